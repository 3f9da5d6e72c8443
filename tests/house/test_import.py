"""`import headway` needs the standard library alone, and works where Linux's calls are missing."""

from __future__ import annotations

import subprocess
import sys

from tests.house import tree

ALONE = """
import sys
sys.path.insert(0, {src!r})
import headway
tops = {{name.split(".")[0] for name in sys.modules}} - {{"headway"}}
print(sorted(t for t in tops - set(sys.stdlib_module_names) if not t.startswith("__")))
"""

ELSEWHERE = """
import asyncio, concurrent.futures, ctypes, importlib, logging, mmap, multiprocessing, os, signal
import socket, subprocess, sys, tempfile, threading
for name in ("fcntl", "resource", "termios", "tty", "pwd", "grp"):
    sys.modules[name] = None
LINUX = ("preadv", "pwritev", "pread", "pwrite", "posix_fadvise", "posix_fallocate", "sendfile",
         "copy_file_range", "splice", "O_DIRECT", "O_TMPFILE", "SEEK_DATA", "SEEK_HOLE", "eventfd",
         "memfd_create", "sched_getaffinity", "getuid", "geteuid", "fork", "register_at_fork")
for name in LINUX:
    if hasattr(os, name):
        delattr(os, name)
PREFIXES = {{mmap: ("MAP_", "PROT_", "MADV_"), signal: ("SIGUSR", "SIGHUP", "pthread")}}
for module, prefixes in PREFIXES.items():
    for name in [name for name in dir(module) if name.startswith(prefixes)]:
        delattr(module, name)
if hasattr(socket, "AF_UNIX"):
    del socket.AF_UNIX
sys.platform = "elsewhere"
sys.path.insert(0, {src!r})
import headway
from headway.errors import MissingExtra
for name in {names!r}:
    try:
        importlib.import_module(name)
    except MissingExtra:
        pass
print("imported", len({names!r}))
"""


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)


def test_import_needs_the_standard_library_alone() -> None:
    done = run(ALONE.format(src=str(tree.SRC)), "-I", "-S")
    assert (done.returncode, done.stdout) == (0, "[]\n"), (
        f"{done.stdout}{done.stderr}import optional packages inside the function that needs them"
    )


def test_every_module_imports_where_linux_calls_are_missing() -> None:
    names = [name for name in tree.modules() if not name.endswith("__main__")]
    done = run(ELSEWHERE.format(src=str(tree.SRC), names=names))
    assert (done.returncode, done.stdout) == (0, f"imported {len(names)}\n"), (
        f"{done.stderr}look the call up where it is used, and say there that it needs Linux"
    )
