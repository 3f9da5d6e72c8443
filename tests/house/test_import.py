"""`import headway` needs the standard library alone, and works where Linux's calls are missing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import headway
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
import socket, subprocess, sys, sysconfig, tempfile, threading
sysconfig.get_paths()  # of the platform this is
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

LIGHT = """
import sys
sys.path.insert(0, {src!r})
import headway
heavy = ("headway.core.block", "headway.devices", "headway.core.mm.slab", "headway.core.mm.budget",
         "headway.edge.nbd_client", "asyncio", "ctypes", "socket", "subprocess", "concurrent.futures")
print([name for name in heavy if name in sys.modules])
headway.Budget(1), headway.open_device
print("headway.core.mm.budget" in sys.modules, "headway.devices" in sys.modules)
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


def test_what_few_programs_need_is_imported_when_it_is_named() -> None:
    done = run(LIGHT.format(src=str(tree.SRC)), "-I", "-S")
    assert (done.returncode, done.stdout) == (0, "[]\nTrue True\n"), (
        f"{done.stdout}{done.stderr}enter heavy names in _LATER of headway/__init__.py"
    )


def test_what_comes_later_is_what_a_type_checker_is_told() -> None:
    source = ast.parse((tree.SRC / "headway" / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in source.body if isinstance(node, ast.If)]
    told = {
        alias.name: (node.module or "").removeprefix("headway.")
        for node in blocks[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == headway._LATER
    for name, module in told.items():
        assert getattr(headway, name) is getattr(importlib.import_module(f"headway.{module}"), name)
    assert set(headway.__all__) <= set(dir(headway))
    assert not hasattr(headway, "no_such_name")
