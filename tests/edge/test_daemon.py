"""Daemon mode: what it says holds is what the kernel says, with rights and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.nbd_client import connect

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is Linux's")
pytest.importorskip("typer")

NAMES = ["no I/O for its memory", "memory locked", "spared by the OOM killer", "buffers in memory"]

WITHOUT = """
import encodings.ascii, os, resource, sys
import ctypes, headway.edge.daemon, headway.runtimes.scopes
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
from headway.edge.daemon import DaemonMode
from headway.edge.process import IoFlusher
from headway.runtimes.scopes import noio
with DaemonMode(IoFlusher(noio(), False, warns=False)) as daemon:
    for protection in daemon.settle(lambda: None):
        print(protection)
    kept = [bytearray(1 << 20) for _ in range(8)]
    print(daemon.steady().minor_faults > 500, daemon.steady().python_blocks > 0)
    kept = None
"""


def status_of(process: int, field: str) -> int:
    with open(f"/proc/{process}/status") as file:
        return int(dict(line.split(":", 1) for line in file)[field].split()[0])


def test_what_is_said_to_hold_does(tmp_path) -> None:
    command = [sys.executable, "-m", "headway", "serve", "memory:1MiB", "--memory", "4MiB"]
    command += ["--daemon-mode", "--json", "--listen", f"unix:{tmp_path}/s"]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    assert process.stderr is not None and process.stdout is not None
    try:
        said = [process.stderr.readline().strip() for _ in range(5)]
        assert [line.split(": ")[2] for line in said[:4]] == NAMES, said
        holds = ["does not hold" not in line for line in said[:4]]
        with open(f"/proc/{process.pid}/oom_score_adj") as file:
            assert (int(file.read()) == -1000) == holds[2]
        assert (status_of(process.pid, "VmLck") > 4 << 10) == holds[1]
        assert holds[3]
        client = connect(tmp_path / "s")
        assert client.write(5, b"hello") == b"" and client.read(5, 5) == b"hello"
        process.send_signal(signal.SIGUSR1)
        shown = process.stderr.readline()
        assert "since the start" in shown and "minor and" in shown
        assert client.read(5, 5) == b"hello"
        client.close()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0 and "since the start" in err
    found = json.loads(out)["daemon_mode"]
    assert [one["holds"] for one in found["protections"]] == holds
    assert found["steady"]["major_faults"] >= 0 and found["steady"]["minor_faults"] >= 0


def test_without_rights_it_runs_and_says_what_would_help(tmp_path) -> None:
    os.chmod(tmp_path, 0o755)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *said, counted = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in said] == NAMES
    assert "does not hold" in said[0] and "CAP_SYS_RESOURCE" in said[0]
    assert "does not hold" in said[1] and "the limit is 64 KiB; raise it" in said[1]
    assert "does not hold" in said[2] and "OOMScoreAdjust=" in said[2]
    assert counted == "True True"


def test_a_server_without_it_says_nothing_of_it(tmp_path) -> None:
    command = [sys.executable, "-m", "headway", "serve", "memory:1MiB", "--stdio", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "daemon" not in done.stdout + done.stderr
