"""Chance is refused by its line, and clocks stand still: what is said of a program holds in every run of it."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from headway.checker.loading import load
from headway.checker.target import check
from headway.runtimes.scopes import made_for

HEAD = """import datetime, os, random, secrets, time, uuid
from random import random as drawn
import headway as hw
def task(pool):
    with pool.lease():
        if {}:
            pool.free(pool.alloc())
def main():
    pool = hw.Mempool.of(range(2), name="bio")
    for _ in range(4):
        hw.spawn(task, pool)
"""

CHANCE = [
    ("random.random() < 0.5", "random.random"),
    ("drawn() < 0.5", "random.random"),
    ("random.choice([True, False])", "random.choice"),
    ("random.randrange(2)", "random.randrange"),
    ("random.Random().random() < 0.5", "random.Random without a seed"),
    ("random.Random(time.time()).random() < 0.5", "random.Random without a seed"),
    ("random.SystemRandom(1).random() < 0.5", "random.SystemRandom"),
    ("secrets.randbelow(2)", "secrets.randbelow"),
    ("os.urandom(1) < b'x'", "os.urandom"),
    ("uuid.uuid4().int % 2", "uuid.uuid4"),
    ("datetime.datetime.now().microsecond % 2", "datetime.now"),
    ("time.localtime().tm_sec % 2", "time.localtime"),
]

DECIDES = [
    "time.time_ns() % 100 == 7",
    "time.time() > 5",
    "int(time.monotonic() * 1000) % 2",
    "time.perf_counter_ns() & 1",
    "max(time.monotonic() - 3, 0)",
    "time.monotonic()",
]


def judged(folder: Path, code: str) -> Any:
    (folder / "chance.py").write_text(code)
    return check(load(f"{folder}/chance.py:main"), ambient=made_for)


@pytest.mark.parametrize(("condition", "what"), CHANCE)
def test_chance_is_an_error_that_names_its_line(tmp_path: Path, condition: str, what: str) -> None:
    report = judged(tmp_path, HEAD.format(condition))
    assert report.verdict == "error"
    assert report.reason.startswith(f"line 6 of chance.py uses {what}: under check ")


@pytest.mark.parametrize("condition", DECIDES)
def test_a_decision_by_a_clock_is_an_error_that_names_its_line(
    tmp_path: Path, condition: str
) -> None:
    report = judged(tmp_path, HEAD.format(condition))
    assert report.verdict == "error"
    assert report.reason.startswith("line 6 of chance.py decides by a clock: under check ")


def test_code_that_catches_its_refusal_is_not_called_ok(tmp_path: Path) -> None:
    code = HEAD.format("lucky()") + (
        "def lucky():\n    try:\n        return drawn() < 0.5\n    except Exception:\n        return False\n"
    )
    report = judged(tmp_path, code)
    assert (report.verdict, report.complete) == ("error", False)
    assert report.reason.startswith("line 14 of chance.py uses random.random: ")


READS = (
    "import time, datetime\nimport headway as hw\n"
    "def task(pool):\n"
    "    began, ends = time.monotonic(), time.monotonic() + 5\n"
    "    try:\n"
    "        with pool.lease(timeout_s=ends - time.monotonic()):\n"
    "            print(f'{time.monotonic() - began:.1f} s, {1 / (time.monotonic() - began)} a second')\n"
    "            isinstance(datetime.datetime(2020, 1, 1), datetime.date)\n"
    "    except TimeoutError:\n"
    "        pass\n"
    "def main():\n"
    "    pool = hw.Mempool.of(range(1), name='bio')\n"
    "    hw.spawn(task, pool); hw.spawn(task, pool)\n"
)


def test_a_clock_may_be_shown_and_waited_by_and_the_report_says_what_that_rests_on(
    tmp_path: Path,
) -> None:
    report = judged(tmp_path, READS)
    assert (report.verdict, report.complete) == ("ok", True)
    assert sum("clocks stand still" in assumed for assumed in report.assumed) == 1


PACKAGE = """import datetime, time
from time import monotonic
def wait(ends):
    while time.monotonic() < ends:
        pass
    return int(time.time()) > 0 and datetime.datetime.now().year > 0 and monotonic() > 0
def late(ends):
    return time.monotonic() - ends
def slow():
    time.sleep(1)
"""
USES = """import sys, time
sys.path.insert(0, {folder!r})
import {name}
del sys.path[0]
import headway as hw
def task(pool):
    with pool.lease():
        {line}
def main():
    pool = hw.Mempool.of(range(2), name="bio")
    for _ in range(2):
        hw.spawn(task, pool)
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{name}.wait(time.monotonic() + 0.001)", ""),
        ("time.sleep if {name}.late(time.monotonic()) > 1 else 0", "line 8 of chance.py decides"),
        ("{name}.slow()", "line 10 of {name}.py uses time.sleep"),
    ],
    ids=["decides", "reads", "sleeps"],
)
def test_what_an_installed_package_decides_by_a_clock_is_told_and_is_no_error(
    tmp_path: Path, line: str, reason: str, request: pytest.FixtureRequest
) -> None:
    """Who checks cannot mend it; his own lines may still not decide by what it read."""
    name = f"installed_{request.node.callspec.id}"
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / f"{name}.py").write_text(PACKAGE)
    code = USES.format(folder=str(folder), name=name, line=line.format(name=name))
    report = judged(tmp_path, code)
    if reason:
        assert report.verdict == "error"
        assert report.reason.startswith(reason.format(name=name))
    else:
        assert (report.verdict, report.complete) == ("ok", True), report.reason
        assert sum("installed packages decide" in assumed for assumed in report.assumed) == 1


def test_chance_with_a_seed_repeats_itself_and_the_report_says_that_it_was_one_seed(
    tmp_path: Path,
) -> None:
    report = judged(tmp_path, HEAD.format("random.Random(2).random() < 2"))
    assert report.verdict == "deadlock"
    assert any("random.Random(seed)" in assumed for assumed in report.assumed)


def test_a_generator_that_outlives_the_run_is_refused(tmp_path: Path) -> None:
    code = "import random\nrng = random.Random(1)\n" + HEAD.format("rng.random() < -1")
    report = judged(tmp_path, code)
    assert report.verdict == "error"
    assert "uses rng, a Random that goes on where the run before" in report.reason


def test_chance_and_clocks_are_as_before_after_a_check(tmp_path: Path) -> None:
    before = (random.random, random.Random.__init__, time.time, time.time_ns)
    judged(tmp_path, READS)
    assert (random.random, random.Random.__init__, time.time, time.time_ns) == before
    assert type(time.time()) is float


DIVERGES = (
    "import headway as hw\nseen = []\n"
    "def task(pool):\n"
    "    seen.append(1)\n"
    "    with pool.lease():\n"
    "        if len(seen) % 7 == 3:\n"
    "            pool.free(pool.alloc())\n"
    "def main():\n"
    "    pool = hw.Mempool.of(range(2), name='bio')\n"
    "    hw.spawn(task, pool); hw.spawn(task, pool)\n"
)


def test_what_does_not_repeat_itself_is_said_once(tmp_path: Path) -> None:
    report = judged(tmp_path, DIVERGES)
    assert report.verdict == "error"
    assert report.reason.count("does not repeat itself") == 1
