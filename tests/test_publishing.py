"""Publishing: what is said, to whom, and what stays behind; with real sockets and real second processes."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway import publishing, snapshots
from headway.edge import local_sockets
from headway.published import Published, processes
from headway.roster import Roster

PROGRAM = """
import sys, threading
import headway as hw
zone = hw.Zone("1MiB", min_free=0, name="arena")
slots = hw.Mempool.of(range(2), name="slots", trace=True)
units = hw.Budget("8MiB", name="units")
held = slots.alloc_bulk(2)
units.alloc(8 << 20)
threads = [threading.Thread(target=slots.alloc, name="one", daemon=True),
           threading.Thread(target=units.alloc, args=(4096,), name="other", daemon=True)]
for thread in threads:
    thread.start()
while not (slots.waiters and units.waiters):
    pass
print("ready", flush=True)
sys.stdin.readline()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "headway"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program, and waits until it says that it is ready."""
    running = []

    def run(code: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HEADWAY_PUBLISH": "1", **environment},
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def ask(peer: socket.socket, line: bytes = b"\n") -> Any:
    peer.sendall(line)
    with peer.makefile("rb") as lines:
        return json.loads(lines.readline())


def test_another_process_says_who_waits_and_who_holds(start: Start, folder: Path) -> None:
    pid = start().pid
    assert processes() == [pid]
    path = folder / f"top-{pid}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with Published(pid) as process:
        found = process.snapshot()
        assert process.snapshot()["clock_s"] > found["clock_s"]
    assert (found["format"], found["pid"], found["left_out"]) == (snapshots.FORMAT, pid, 0)
    (pool,) = found["pools"]
    assert (pool["name"], pool["outstanding"], pool["waiters"], pool["capacity"]) == (
        "slots",
        2,
        1,
        2,
    )
    assert [zone["name"] for zone in found["zones"]] == ["arena"]
    (budget,) = found["budgets"]
    assert (budget["used"], budget["unit"], budget["waiters"]) == (8 << 20, "byte", 1)
    waits = {(wait["kind"], wait["name"], wait["who"], wait["need"]) for wait in found["waits"]}
    assert waits == {("pool", "slots", "one", 1), ("budget", "units", "other", 4096)}
    assert all(wait["for_s"] >= 0 for wait in found["waits"])
    assert [(one["name"], one["who"]) for one in found["held"]] == [("slots", "MainThread")] * 2


def test_a_program_that_ends_takes_its_socket_along(start: Start, folder: Path) -> None:
    process = start()
    with Published(process.pid) as reader:
        process.communicate("\n", timeout=60)
        with pytest.raises(EOFError, match="has ended"):
            reader.snapshot()
    assert list(folder.iterdir()) == []


def test_what_a_killed_program_leaves_is_removed(start: Start, folder: Path) -> None:
    dead = start()
    dead.kill()
    dead.communicate()
    assert len(list(folder.iterdir())) == 1
    other = start()  # whoever publishes next cleans up
    assert [path.name for path in folder.iterdir()] == [f"top-{other.pid}.sock"]
    other.kill()
    other.communicate()
    with pytest.raises(hw.UsageError, match="there is no process"):
        Published(other.pid)
    assert processes() == []  # and so does whoever looks
    assert list(folder.iterdir()) == []


def test_nothing_is_published_unless_asked_for(start: Start) -> None:
    pid = start(HEADWAY_PUBLISH="0").pid
    assert processes() == []
    with pytest.raises(
        hw.UsageError, match=rf"process {pid} does not publish: call hw.publish\(\)"
    ):
        Published(pid)


def test_a_program_without_pools_publishes_nothing_even_if_asked_to(start: Start) -> None:
    start("import headway, sys\nprint('ready', flush=True)\nsys.stdin.readline()")
    assert processes() == []


def test_a_program_runs_on_if_it_cannot_publish(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\n", capture_output=True, text=True, timeout=60,
        env={**os.environ, "HEADWAY_PUBLISH": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert "this process does not publish: " in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(hw.UsageError, match="is open to other users"):
        hw.publish()


def test_a_stopped_process_is_listed_and_others_are_read(start: Start) -> None:
    stopped, other = start(), start()
    stopped.send_signal(signal.SIGSTOP)
    assert processes() == sorted([stopped.pid, other.pid])
    with Published(other.pid) as reader:
        assert reader.snapshot()["pid"] == other.pid


def test_publishing_twice_is_once_and_what_was_made_before_is_known() -> None:
    before = hw.Mempool.of(range(3), name="made before")
    with hw.publish("my name") as publication:
        assert hw.publish() is publication
        after = hw.Mempool.of(range(4), name="made after")
        with Published(os.getpid()) as reader:
            found = reader.snapshot()
            names = [pool["name"] for pool in found["pools"]]
            assert found["program"] == "my name"
            assert names.count("made before") == names.count("made after") == 1
            after.close()
            assert "made after" not in [pool["name"] for pool in reader.snapshot()["pools"]]
    assert processes() == [] and before.stats().name == "made before"
    assert "ended" in repr(publication)
    with hw.publish():
        assert processes() == [os.getpid()]


def test_the_reserves_of_a_stack_are_known() -> None:
    snapshots.open_roster()
    with hw.open_stack("memory:1MiB", ["linear,offset=4KiB"], in_flight=5):
        sizes = [pool["min_count"] for pool in snapshots.snapshot()["pools"]]
    assert 5 in sizes
    gc.collect()


def test_any_number_of_readers_and_one_that_does_not_read_stops_nobody() -> None:
    pools = [
        hw.Mempool.of([0], name=f"{n:05}" * 40) for n in range(500)
    ]  # more than a socket takes
    with hw.publish():
        readers = [local_sockets.connect("top", os.getpid(), 60) for _ in range(20)]
        deaf = readers.pop()
        deaf.setblocking(False)
        deaf.send(b"\n" * 4096)
        for peer in readers * 2:
            assert len(ask(peer)["pools"]) >= len(pools)
        for peer in (deaf, *readers):
            peer.close()


def test_what_is_not_a_question_gets_an_error_and_the_next_one_an_answer() -> None:
    with hw.publish(), local_sockets.connect("top", os.getpid(), 60) as peer:
        assert "ask" in ask(peer, b"what?\n")["error"]
        assert ask(peer, b'{"ask": "snapshot"}\n')["pid"] == os.getpid()
        assert ask(peer, b"\r\n")["pid"] == os.getpid()
        peer.sendall(b"x\n" * 1000 + b"\n")
        with peer.makefile("rb") as lines:
            answers = [json.loads(lines.readline()) for _ in range(1001)]
        assert [("error" in answer) for answer in answers] == [True] * 1000 + [False]
        peer.sendall(b"x" * 5000)
        assert peer.recv(1) == b"", "an endless line ends the connection"


def test_a_child_of_a_fork_publishes_for_itself(start: Start) -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
import headway as hw
pool = hw.Mempool.of(range(2), name="shared")
hw.publish("family")
child = os.fork()
if child:
    print("ready", flush=True)
sys.stdin.readline()
os._exit(0)
"""
    parent = start(code, HEADWAY_PUBLISH="")
    found = []
    while len(found) < 2:  # the child may still be on its way
        found = processes()
    for pid in found:
        with Published(pid) as reader:
            said = reader.snapshot()
        assert (said["pid"], said["program"]) == (pid, "family")
        assert [pool["name"] for pool in said["pools"]] == ["shared"]
        if pid != parent.pid:
            os.kill(pid, signal.SIGKILL)
    with Published(parent.pid) as reader:
        assert reader.snapshot()["pid"] == parent.pid


def test_a_name_that_is_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    with pytest.raises(hw.UsageError, match="at most 107"):
        hw.publish()
    assert publishing._current is None


def test_a_snapshot_is_bounded_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots.open_roster()
    pool = hw.Mempool.of(range(1), name="one", trace=True)
    units = hw.Budget(1000, name="many", trace=True)
    for _ in range(snapshots.LINES + 5):
        units.alloc(1)
    found = snapshots.snapshot()
    assert len(found["held"]) == snapshots.LINES
    assert found["left_out"] >= 5
    assert pool.waiting() == ()
    assert found["budgets"][-1]["unit"] == ""
    units.free(snapshots.LINES + 5)


def test_who_waits_is_told_in_the_order_in_which_they_are_served() -> None:
    pool, units = hw.Mempool.of(range(1), name="p"), hw.Budget(10, reserve=2, name="b")
    element = pool.alloc()
    units.alloc(8)
    threads = []
    for number, take in enumerate((pool.alloc, lambda: pool.alloc_bulk(1), lambda: units.alloc(3))):
        thread = threading.Thread(target=take, name=f"t{number}", daemon=True)
        thread.start()
        threads.append(thread)
        while pool.waiters + units.waiters != number + 1:
            pass
    assert [(wait.owner, wait.need) for wait in pool.waiting()] == [("t0", 1), ("t1", 1)]
    assert [(wait.owner, wait.need) for wait in units.waiting()] == [("t2", 3)]
    assert all(
        wait.since_s is not None and wait.since_s <= pool.runtime.now()
        for wait in (*pool.waiting(), *units.waiting())
    )
    pool.free(element)
    threads[0].join(60)
    pool.free(element)
    units.free(8)
    for thread in threads:
        thread.join(60)
    assert pool.waiting() == units.waiting() == ()


def test_the_roster_keeps_nothing_until_asked_and_nothing_alive() -> None:
    roster = Roster()
    early = hw.Mempool.of(range(1), name="early")
    roster.enter(early)
    assert roster.all() == []
    roster.open((type(early),))
    roster.enter(early)  # found already
    late = hw.Mempool.of(range(1), name="late")
    roster.enter(late)
    assert {early, late} <= set(roster.all())
    gone = weakref.ref(late)
    del late
    gc.collect()
    assert gone() is None and early in roster.all()


def test_the_roster_asks_no_proxy_what_it_is() -> None:
    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("code of the program was run")

        @__class__.setter
        def __class__(self, kind: Any) -> None: ...

    proxy = Proxy()
    roster = Roster()
    roster.open((hw.Zone,))
    assert proxy not in roster.all()


def test_what_the_checker_runs_is_not_entered() -> None:
    from headway import checker

    snapshots.open_roster()

    def model() -> None:
        pool = hw.Mempool.of(range(2), name="of the simulator")
        budget = hw.Budget(3, name="of the simulator")
        seen.append(json.dumps(snapshots.snapshot()))
        pool.free(pool.alloc())
        made.append((pool, budget))  # alive when it was looked

    seen: list[str] = []
    made: list[Any] = []
    ours = hw.Mempool.of(range(2), name="of the program")
    assert checker.check(model).verdict == "ok"
    assert made, "the model was not run"
    assert all(ours.name in text for text in seen), "the snapshot saw nothing at all"
    assert not any("of the simulator" in text for text in seen)


def test_a_process_that_accepts_nobody_is_given_up_after_the_time() -> None:
    with local_sockets.listen("deaf") as listening:
        listening.listen(0)  # room for one who is not accepted
        with local_sockets.connect("deaf", os.getpid(), 60):
            with pytest.raises(TimeoutError, match="does not accept"):
                local_sockets.connect("deaf", os.getpid(), 0.05)
            assert local_sockets.listeners("deaf") == [os.getpid()], "busy is not gone"
    assert local_sockets.listeners("deaf") == []


def test_what_is_no_snapshot_is_refused_and_named() -> None:
    for text in ("", "[]", "{}", "{", '{"error": "x"}', "\x00", b"\xff"):
        with pytest.raises(hw.UsageError, match=r"^saved "):
            snapshots.read(text, "saved")
    other = json.dumps({**snapshots.snapshot(), "format": 99})
    with pytest.raises(hw.UsageError, match="saved has format 99, and this headway reads 1"):
        snapshots.read(other, "saved")
    with pytest.raises(hw.UsageError, match="there is no process"):
        Published(2**40)
