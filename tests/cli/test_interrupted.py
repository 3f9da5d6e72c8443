"""What a signal does to a search that other processes work for: one line, at once, and nobody left behind.

Everybody who works for a command holds its standard error: it ends for the reader when all of them have ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the extra cli is not installed")

MODEL = """wake = "any-fit"
[pools]
a = 9
b = 9
c = 7
[actors.x]
count = 30
steps = ["+a 2", "+b 3", "-a 2", "+c", "-b 3", "-c"]
[actors.y]
count = 25
steps = ["+b", "+c 2", "-b", "+a", "-a", "-c 2"]
[actors.z]
count = 25
steps = ["+c 3", "+a 2", "-c 3", "+b", "-a 2", "-b"]
"""
# Says which process runs it, goes on for ever once it is another than the first, and is run schedule by schedule.
CODE = """import os
import headway as hw
def task(first, second):
    with first.lease():
        task.runs = 1
        with second.lease():
            pass
def main():
    if os.getpid() != int(os.environ["FIRST"]):
        os.write(2, b"working\\n")
        while True:
            pass
    a, b = hw.Mempool.of(range(2), name="a"), hw.Mempool.of(range(2), name="b")
    for _ in range(6):
        hw.spawn(task, a, b)
"""
SHELL = 'FIRST=$$ exec "$0" -m headway "$@"'


# The same in one process: interrupted while it holds something, a task gives back on its way out.
ALONE = """import os
import headway as hw
def task(pool):
    with pool.lease():
        task.runs = 1
        os.write(2, b"working\\n")
        while True:
            pass
def main():
    pool = hw.Mempool.of(range(2), name="a")
    hw.spawn(task, pool)
    hw.spawn(task, pool)
"""


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own: a signal to its group is what a terminal sends."""
    (folder / "big.toml").write_text(MODEL)
    (folder / "ever.py").write_text(CODE)
    (folder / "alone.py").write_text(ALONE)
    process = subprocess.Popen(
        ["sh", "-c", SHELL, sys.executable, *arguments],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return pytest.skip("the kernel does not tell whose child a process is")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_check_and_all_who_work_for_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, "check", "ever.py:main", "--jobs", "2") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        if number is signal.SIGTERM:  # sent by hand, to one process
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)
        said = process.communicate(timeout=30)[1].replace("working\n", "")
        assert said.startswith(f"headway: interrupted by {number.name}")
        assert said.count("\n") == 1
        assert process.returncode == 1


def test_an_interrupt_while_workers_start_is_one_line_too(tmp_path: Path) -> None:
    with running(tmp_path, "size", "big.toml", "--pool", "a", "--jobs", "2") as process:
        while len(children(process.pid)) < 2:  # a worker, and who looks after what they share
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert (said, process.returncode) == ("headway: interrupted by SIGINT\n", 1)


def test_an_interrupt_tells_what_is_known_so_far(tmp_path: Path) -> None:
    """The verdict, where the sizes are all that is still judged."""
    with running(tmp_path, "check", "big.toml", "--max-schedules", "20", "--jobs", "2") as process:
        while len(children(process.pid)) < 2:  # others are called for the sizes alone
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert said.startswith("headway: interrupted by SIGINT; ")
        assert said.endswith(" (its sizes were still being judged)\n")
        assert process.returncode == 1


def test_workers_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, "check", "ever.py:main", "--jobs", "2") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        process.kill()
        process.communicate(timeout=30)  # ends when the last of them has ended
        assert process.returncode == -signal.SIGKILL


def test_an_interrupt_passes_through_code_under_check_that_holds_something(tmp_path: Path) -> None:
    with running(tmp_path, "check", "alone.py:main") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        assert said == "headway: interrupted by SIGINT; 5 runs seen so far, and no verdict yet\n"
        assert process.returncode == 1
