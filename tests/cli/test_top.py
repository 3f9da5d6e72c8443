"""`headway top` as a process: the table, JSON, a saved snapshot, the live view on a terminal, refusals."""

import contextlib
import json
import os
import pty
import select
import subprocess
import sys

import pytest

pytest.importorskip("typer")

COMMAND = [sys.executable, "-m", "headway", "top"]
PROGRAM = """
import sys, threading
import headway as hw
zone = hw.Zone("4MiB", min_free=0, name="arena")
slots = hw.Mempool.of(range(2), name="sl[red]ots\\x1b", trace=True)
cache = hw.ShrinkableCache(zone, cost=len, name="pages")
cache["a"] = bytes(5000)
cache["a"], cache.get("b")
hw.Budget(10, name="dropped")
units = hw.Budget("8MiB", name="units")
held = slots.alloc_bulk(2)
thread = threading.Thread(target=slots.alloc, name="late-comer", daemon=True)
thread.start()
while not slots.waiters:
    pass
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWAY_PUBLISH", "1")  # also for the command: it makes no pool


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def run():
            path = tmp_path / "app.py"
            path.write_text(PROGRAM)
            process = subprocess.Popen(
                [sys.executable, str(path), "--secret"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout.readline() == "ready\n"
            return process

        yield run


def run(status, *arguments):
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done
    return done


def refused(status, *arguments, says):
    done = run(status, *arguments)
    assert done.stdout == ""
    assert done.stderr.startswith("headway: ") and done.stderr.count("\n") == 1, done.stderr
    assert says in done.stderr


def test_the_only_program_is_shown_and_without_a_terminal_once(start):
    process = start()
    for arguments in ((), ("--once",), (process.pid,)):
        shown = run(0, *arguments).stdout
        assert f"app.py  pid {process.pid}" in shown
        assert "sl[red]ots?" in shown, "a name is neither markup nor an escape"
        assert "\x1b" not in shown and "secret" not in shown and "dropped" not in shown
        assert "0 of 2" in shown and "late-comer" in shown
        assert "arena" in shown and "0B of 8MiB" in shown and "50%" in shown
        assert "MainThread" in shown and f"{process.args[1]}:11" in shown


def test_json_is_one_snapshot_and_a_file_of_it_is_shown_again(start, tmp_path):
    process = start()
    done = run(0, process.pid, "--json")
    assert done.stdout.count("\n") == 1 and done.stderr == ""
    found = json.loads(done.stdout)
    assert [len(found[kind]) for kind in ("pools", "zones", "caches", "budgets")] == [1, 1, 1, 1]
    assert [wait["who"] for wait in found["waits"]] == ["late-comer"]
    saved = tmp_path / "saved.json"
    saved.write_text(done.stdout)
    process.communicate("\n", timeout=60)
    assert "late-comer" in run(0, saved).stdout
    assert json.loads(run(0, saved, "--json").stdout) == found


def test_several_are_listed_and_none_is_no_error(start):
    assert "no program publishes: call hw.publish()" in run(0).stdout
    assert json.loads(run(0, "--json").stdout) == {"programs": []}
    one, other = start(), start()
    shown = run(0).stdout
    assert str(one.pid) in shown and str(other.pid) in shown
    listed = json.loads(run(0, "--json").stdout)["programs"]
    assert {row["pid"] for row in listed} == {one.pid, other.pid}


def test_refusals_are_one_line(tmp_path):
    refused(2, 2**22 + 1, says="there is no process 4194305")
    refused(2, os.getpid(), says="does not publish: call hw.publish()")
    refused(1, tmp_path / "missing", says="missing: No such file or directory")
    refused(1, tmp_path, says="Is a directory")
    broken = tmp_path / "broken"
    whole = {key: [] for key in ("pools", "zones", "caches", "budgets", "waits", "held")}
    broken.write_text(json.dumps({**whole, "format": 1}))
    refused(2, broken, says="lacks")
    refused(2, "--interval", "0", says="--interval")


@pytest.mark.skipif(os.getuid() == 0, reason="root may signal every process")
def test_another_users_process_is_refused():
    refused(2, 1, says="another user's")


def on_terminal(*arguments):
    """The command on a terminal of its own: its process, and our side."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def read_until(ours, word, times=1):
    seen = b""
    while seen.count(word) < times:
        assert select.select([ours], [], [], 60)[0], seen
        seen += os.read(ours, 65536)
    return seen


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_the_live_view_looks_again_and_again_until_a_key(start, key):
    process = start()
    viewer, ours = on_terminal(process.pid, "--interval", "0.1")
    read_until(ours, b"late-comer", times=3)
    if key == b"\x03":
        viewer.send_signal(2)
    else:
        os.write(ours, key)
    seen = read_until(ours, b"\x1b[?1049l")  # the screen is given back, and the last view stays
    seen += (
        read_until(ours, b"late-comer") if b"late-comer" not in seen.split(b"1049l")[-1] else b""
    )
    assert viewer.communicate(timeout=60)[1] == b""
    assert viewer.returncode == 0
    os.close(ours)


def test_the_live_view_ends_with_the_program(start):
    process = start()
    viewer, ours = on_terminal("--interval", "0.1")
    read_until(ours, b"late-comer", times=2)
    process.communicate("\n", timeout=60)
    read_until(ours, b"\x1b[?1049l")
    said = viewer.communicate(timeout=60)[1].decode()
    assert said == f"headway: process {process.pid} has ended, or publishes no more\n"
    assert viewer.returncode == 0
    os.close(ours)
