"""The marker: a test under check passes, fails with the shortest schedule, or says that not all was seen."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TESTS = """
import headway as hw
import pytest
from headway import aio

def nested(pool):
    with pool.lease(), pool.lease():
        pass

def start(size):
    pool = hw.Mempool.of(range(size), name="bio")
    hw.spawn(nested, pool)
    hw.spawn(nested, pool)

@pytest.mark.headway
def test_safe():
    start(3)

@pytest.mark.headway
def test_broken():
    start(2)

@pytest.fixture
def size():
    return 2

@pytest.mark.headway(max_schedules=500)
def test_with_a_fixture(size):
    start(size + 1)

@pytest.mark.headway
def test_broken_with_a_fixture(size):
    start(size)

@pytest.mark.headway
async def test_a_coroutine():
    async with aio.Mempool(hw.Mempool.of([1], name="slot")).lease():
        pass

def appends(pool, order):
    element = pool.alloc()
    order.append(element)
    pool.free(element)

@pytest.mark.headway(max_schedules=5, complete=True)
def test_too_much():
    pool, order = hw.Mempool.of(range(2), name="bio"), []
    for _ in range(3):
        hw.spawn(appends, pool, order)

@pytest.mark.headway(budget=5)
def test_wrong_option():
    start(3)

def test_not_marked():
    with pytest.raises(hw.UsageError, match="outside a check"):
        start(3)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    if not any(point.name == "headway" for point in entry_points(group="pytest11")):
        pytest.skip("headway is not installed with its pytest plugin: run ./dev test")
    place: Path = tmp_path_factory.mktemp("plugin")
    (place / "test_pools.py").write_text(TESTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-v", "-c", "/dev/null",
         "--rootdir", str(place), str(place)],
        cwd=place, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("test_safe", "PASSED"),
        ("test_broken", "FAILED"),
        ("test_with_a_fixture", "PASSED"),
        ("test_broken_with_a_fixture", "FAILED"),
        ("test_a_coroutine", "PASSED"),
        ("test_too_much", "FAILED"),
        ("test_wrong_option", "FAILED"),
        ("test_not_marked", "PASSED"),
    ],
)
def test_it_passes_or_fails(outcome: tuple[int, str], name: str, verdict: str) -> None:
    assert f"::{name} {verdict}" in outcome[1]


def test_a_failure_is_the_shortest_schedule_and_its_replay_line(outcome: tuple[int, str]) -> None:
    status, out = outcome
    assert status == 1
    assert "deadlock: 2 tasks wait for ever" in out
    assert "   4  nested-2  asks for 1 of bio, and waits" in out
    assert "again: headway check test_pools.py:test_broken --replay 1" in out
    assert "Traceback" not in out


def test_what_was_not_seen_and_what_is_no_option_is_said(outcome: tuple[int, str]) -> None:
    assert "not all seen within 5 schedules; raise max_schedules" in outcome[1]
    assert (
        "the marker takes max_schedules, seed, cancels, complete by name; it has budget"
        in outcome[1]
    )
