"""Targets, raw primitives, lost wake-ups, and the two commands."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway.checker.explore import Search
from headway.checker.loading import load
from headway.checker.target import check
from headway.checker.trial import Settings
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park
from headway.errors import UsageError
from headway.runtimes.scopes import ambient, made_for

WRONG = [
    ("demo.py", "write FILE.py:FUNCTION"),
    ("demo.txt:main", "write FILE.py:FUNCTION"),
    ("gone.py:main", "gone.py does not exist"),
    ("demo.py:nope", "has no nope; it has main, needs, lazy, pooled"),
    ("demo.py:needs", "needs needs pool"),
    ("demo.py:VALUE", "VALUE is a int, not a function"),
    ("demo.py:lazy", "lazy is a generator"),
    ("broken.py:main", "line 2 is not Python"),
    ("raising.py:main", "loading raising.py raised ZeroDivisionError"),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.py").write_text(
        "VALUE = 1\ndef main(): pass\ndef needs(pool): pass\ndef lazy(): yield\n"
        "def pooled():\n    import headway as hw\n    hw.Mempool.of([1], name='one')\n"
    )
    (tmp_path / "broken.py").write_text("def main():\n    return (\n")
    (tmp_path / "raising.py").write_text("1 / 0\n")
    return tmp_path


@pytest.mark.parametrize(("target", "words"), WRONG)
def test_a_wrong_target_is_one_clear_line(files: Path, target: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(target)
    assert words.replace("needs needs", "needs") in str(caught.value)
    assert "\n" not in str(caught.value)


RAW = [
    ("threading.Thread(target=print)", "threading.Thread"),
    ("threading.Lock()", "threading.Lock"),
    ("Lock()", "threading.Lock"),
    ("threading.Condition()", "threading.Condition"),
    ("Mine()", "threading.Thread"),
    ("time.sleep(0)", "time.sleep"),
    ("queue.Queue()", "queue.Queue"),
    ("queue.SimpleQueue()", "queue.SimpleQueue"),
    ("concurrent.futures.ThreadPoolExecutor()", "concurrent.futures.ThreadPoolExecutor"),
    ("threading.Timer(1, print)", "threading.Timer"),
    ("threading.BoundedSemaphore()", "threading.BoundedSemaphore"),
    ("asyncio.sleep(1)", "asyncio.sleep"),
    ("asyncio.gather()", "asyncio.gather"),
    ("asyncio.TaskGroup()", "asyncio.TaskGroup"),
    ("asyncio.Queue()", "asyncio.Queue"),
    ("asyncio.Lock()", "asyncio.Lock"),
    ("asyncio.run(None)", "asyncio.run"),
]

HEAD = """import asyncio, concurrent.futures, queue, threading, time
from threading import Lock
class Mine(threading.Thread):
    pass
def main():
    """


@pytest.mark.parametrize(("code", "what"), RAW)
def test_a_raw_primitive_is_an_error_that_names_the_line(files: Path, code: str, what: str) -> None:
    (files / "raw.py").write_text(HEAD + code + "\n")
    report = check(load("raw.py:main"), ambient=made_for)
    assert report.verdict == "error"
    assert report.reason.startswith(f"line 6 of raw.py uses {what}")


def test_a_coroutine_that_needs_a_loop_is_an_error_that_names_its_line(files: Path) -> None:
    (files / "loop.py").write_text(
        "import asyncio\nimport headway as hw\nasync def task():\n    await asyncio.sleep(1)\n"
        "def main():\n    hw.spawn(task)\n"
    )
    report = check(load("loop.py:main"), ambient=made_for)
    assert report.verdict == "error"
    assert report.reason.startswith("line 4 of loop.py uses asyncio.sleep")


OUTSIDE = [
    (
        "guard = threading.Lock()",
        "with guard: pass",
        "line 8 of raw.py: main uses guard, a raw lock",
    ),
    ("done = threading.Event()", "done.wait()", "line 8 of raw.py: main uses done, a raw Event"),
]


@pytest.mark.parametrize(("made", "used", "words"), OUTSIDE)
def test_a_raw_primitive_made_earlier_is_an_error_too(
    files: Path, made: str, used: str, words: str
) -> None:
    (files / "raw.py").write_text(
        f"import threading\n{made}\ndef task():\n    pass\n\n\n\ndef main():\n    {used}\n"
    )
    with pytest.raises(UsageError, match=words):
        check(load("raw.py:main"), ambient=made_for)


def test_a_pool_made_outside_the_function_is_told(files: Path) -> None:
    (files / "out.py").write_text(
        "import headway as hw\npool = hw.Mempool.of(range(1), name='early')\n"
        "def main(): pool.alloc()\n"
    )
    with pytest.raises(UsageError, match="pool 'early' was made outside the function under check"):
        check(load("out.py:main"), ambient=made_for)


def test_an_element_freed_twice_is_an_error(files: Path) -> None:
    (files / "twice.py").write_text(
        "import headway as hw\ndef task(pool):\n    slot = pool.alloc()\n    pool.free(slot)\n"
        "    pool.free(slot)\ndef main():\n    hw.spawn(task, hw.Mempool.of([0], name='slots'))\n"
    )
    report = check(load("twice.py:main"), ambient=made_for)
    assert report.verdict == "error"
    assert "pool 'slots': an element was freed while none was out" in report.reason
    assert report.reason.endswith("at line 5 of task")


def test_primitives_are_restored_after_a_check(files: Path) -> None:
    (files / "raw.py").write_text(HEAD + "Lock()\n")
    check(load("raw.py:main"), ambient=made_for)
    with threading.Lock(), threading.Condition():
        assert threading.Thread(target=len, args=("",)).name


def test_spawn_outside_a_check_says_so() -> None:
    with pytest.raises(UsageError, match=r"hw.spawn\(len\) was called outside a check"):
        hw.spawn(len, "")


class Sleepy(FixedMempool[Any]):
    """A pool whose waiters sleep without a place in the queue: nobody can wake them."""

    def alloc_plan(self, *args: Any, **options: Any) -> Plan[Any]:
        self.tell("request", 1)
        if self.reserve_count:
            return self.granted(self.take_reserve(1) or [], "sleeper")
        yield from park(Ticket("asleep"))
        raise AssertionError("nobody wakes it")

    def alloc(self, *args: Any, **options: Any) -> Any:
        return (self.runtime.run(self.alloc_plan()) or [None])[0]


def holds(pool: Any) -> None:
    element = pool.alloc()
    pool.free(element)


def sleepy() -> None:
    runtime: Any = ambient()
    pool = Sleepy([1], runtime=runtime, name="bio")
    runtime.adopt(pool)
    hw.spawn(holds, pool)
    hw.spawn(holds, pool)


def test_a_lost_wake_up_is_a_deadlock_with_that_reason() -> None:
    result = Search(sleepy, Settings(ambient=made_for), 500).run()
    assert result.finding is not None
    assert result.finding.verdict == "deadlock"
    assert "lost wake-up: holds-" in result.finding.reason
    assert "1 of bio lie in the reserve" in result.finding.reason


def command(*arguments: str) -> int:
    pytest.importorskip("typer")
    from headway.cli.app import run

    ends = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]  # the command takes them over for good
    before = [signal.getsignal(number) for number in ends]
    try:
        return run(list(arguments))
    finally:
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


def test_check_prints_the_designs_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "hang.py").write_text(
        "import headway as hw\n"
        "print('loading')\n"
        "def worker(pool):\n"
        "    first, second = pool.alloc(), pool.alloc()\n"
        "    pool.free(first); pool.free(second)\n"
        "def demo():\n"
        "    print('running')\n"
        "    pool = hw.Mempool.of(range(2), name='bio')\n"
        "    hw.spawn(worker, pool); hw.spawn(worker, pool)\n"
    )
    assert command("check", "hang.py:demo", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {
        "verdict", "reason", "stuck", "complete", "schedules", "states", "trace", "replay", "min_reserve",
    }  # fmt: skip
    assert (report["verdict"], report["min_reserve"]) == ("deadlock", {"bio": 3})
    assert command("check", "hang.py:demo", "--replay", report["replay"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("deadlock: 2 tasks wait for ever")
    assert out.rstrip().endswith(f"again: headway check hang.py:demo --replay {report['replay']}")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("check", "demo.py:pooled"), 0),
        (("check", "demo.py:main"), 2),
        (("check", "demo.py:nope"), 2),
        (("check", "demo.py:main", "--max-schedules", "0"), 2),
        (("check", "demo.py:main", "--replay", "9"), 2),
        (("check", "demo.py:main", "--replay", "1", "--seed", "1"), 2),
        (("replay",), 0),
        (("replay", "E-003"), 0),
        (("replay", "E-003", "--fix", "submit"), 0),
        (("replay", "E-003", "--fix", "prayer"), 2),
        (("replay", "E-9"), 2),
        (("replay", "--fix", "submit"), 2),
    ],
)
def test_exit_status(files: Path, arguments: tuple[str, ...], status: int) -> None:
    assert command(*arguments) == status


def test_what_exits_the_interpreter_is_an_error(files: Path) -> None:
    (files / "exits.py").write_text("import sys\ndef main(): sys.exit(0)\n")
    assert check(load("exits.py:main"), ambient=made_for).reason.startswith(
        "main raised SystemExit"
    )


def nothing() -> None:
    """Makes no pool, starts no task."""


def calculates() -> None:
    for _ in range(3):
        hw.spawn(nothing)


def test_a_function_with_nothing_to_judge_is_misuse_and_no_verdict(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UsageError,
        match="check nothing: it makes no pool or budget, asks no device and starts no task, so",
    ):
        check(nothing)
    assert command("check", "demo.py:main", "--json") == 2
    assert (
        "check demo.py:main: it makes no pool or budget, asks no device and starts no task"
        in capsys.readouterr().err
    )


def test_tasks_without_pools_are_judged_for_errors_alone_and_that_is_said() -> None:
    report = check(calculates)
    assert report.verdict == "ok"
    assert report.reason.startswith(
        "its 3 tasks touch no pool or budget: no schedule raises an error"
    )
