"""Work spread over processes or a cluster comes to what one process comes to, to the letter."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import headway as hw
from headway.checker import modelled, odds, target
from headway.checker.crew import Crew
from headway.checker.digest import digest
from headway.checker.model import parse
from headway.checker.trial import Settings, Trial
from headway.errors import HeadwayError, MissingExtra, UsageError
from headway.runtimes.scopes import made_for

BLOCKS = {
    "wake": "any-fit",
    "pools": {"blocks": 7},
    "actors": {
        "long": {"count": 2, "steps": ["+blocks 4", "+blocks", "-blocks 5"]},
        "short": {"count": 2, "steps": ["+blocks 3", "+blocks", "-blocks 4"]},
    },
}


class Ticker:
    """Written to by every task: so the states are not merged, and the schedules are run one by one."""

    count = 0


def ticks(first: Any, second: Any) -> None:
    with first.lease():
        Ticker.count += 1
        with second.lease():
            pass


def opposite() -> None:
    a, b = hw.Mempool.of(range(2), name="a"), hw.Mempool.of(range(2), name="b")
    for pools in ((a, b), (b, a), (a, b), (b, a)):
        hw.spawn(ticks, *pools)


def same_order() -> None:
    a, b = hw.Mempool.of(range(2), name="a"), hw.Mempool.of(range(2), name="b")
    hw.spawn(ticks, a, b)
    hw.spawn(ticks, a, b)


def quits() -> None:
    hw.spawn(os._exit, 3)


def told(program: Any, most: int, crew: Crew | None = None) -> tuple[Any, ...]:
    how: dict[str, Any] = {"max_schedules": most, "seed": 4, "ambient": made_for, "crew": crew}
    report = target.check(program, **how)
    assert report.method == "schedules"
    found = target.sampled(program, 40, 1, crew=crew)
    return report, found, modelled.sizes(parse(BLOCKS), "blocks", crew=crew)


@pytest.fixture(scope="module", params=["processes", "cluster"])
def others(request: pytest.FixtureRequest) -> Iterator[Crew]:
    """The ways to have others do the work."""
    if request.param == "processes":
        with Crew(2) as crew:
            yield crew
        return
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a cluster says of ports and of its own helpers
        made = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        )
        with closing(made) as cluster, Crew(dask=cluster.scheduler_address) as crew:
            yield crew


def test_others_come_to_the_same_to_the_letter(others: Crew) -> None:
    # Of the first not all is seen: found at random, and so by the seed; the second is seen to its end.
    for program, most in ((opposite, 150), (same_order, 300)):
        assert told(program, most, others) == told(program, most)


def test_the_shortest_trace_is_the_same(others: Crew) -> None:
    how: dict[str, Any] = {"max_schedules": 300, "by_counts": False, "ambient": made_for}
    alone = target.check(lost, **how)
    assert target.check(lost, crew=others, **how) == alone
    assert (alone.verdict, len(alone.trace)) == ("deadlock", 4)


def test_the_library_takes_how_many_work() -> None:
    assert odds(lost, runs=40, seed=5, jobs=2) == odds(lost, runs=40, seed=5)


def nested(pool: Any) -> None:
    with pool.lease(), pool.lease():
        pass


def lost() -> None:
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(nested, pool)
    hw.spawn(nested, pool)


def test_what_others_cannot_load_is_refused_in_one_line() -> None:
    def inner() -> None:
        same_order()

    with pytest.raises(UsageError, match=r"inner cannot be loaded by other processes"):
        odds(inner, runs=50, jobs=2)


def test_nobody_asked_for_others_so_one_process_does_what_they_cannot_load() -> None:
    def inner() -> None:
        lost()

    crew = Crew(None)
    crew._waits_till = 0.0  # the work is long
    crew.width = 2
    with crew:
        assert target.sampled(inner, 20, 5, crew=crew) == odds(inner, runs=20, seed=5)
    assert crew.width == 1


def test_long_work_is_spread_though_nobody_asked() -> None:
    with Crew(None) as crew:
        crew._waits_till, crew.width = 0.0, 2
        assert list(crew.map(pair, 7, range(20))) == [(7, n) for n in range(20)]
        assert crew._pool is not None


def pair(common: int, item: int) -> tuple[int, int]:
    if item == 31:
        raise HeadwayError("the thirty-first")
    if item == 41:
        os._exit(1)
    return common, item


def test_an_error_is_raised_in_its_turn_and_a_dead_worker_is_told() -> None:
    found = []
    with Crew(2) as crew, pytest.raises(HeadwayError, match="the thirty-first"):
        for each in crew.map(pair, 1, range(40)):
            found.append(each)
    assert found == [(1, n) for n in range(31)]
    with Crew(2) as crew, pytest.raises(HeadwayError, match="a worker process died"):
        list(crew.map(pair, 1, range(32, 60)))


def test_misuse_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--jobs is -1"):
        Crew(-1)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"install headway\[dask\]"):
        Crew(1, "tcp://127.0.0.1:1")


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    from headway.integrations import dask

    monkeypatch.setattr(dask, "_TIMEOUT_S", 0.2)
    with pytest.raises(UsageError, match=r"dask 'tcp://127.0.0.1:1': no scheduler answers there"):
        Crew(1, "tcp://127.0.0.1:1")


def key_after(common: int, steps: int) -> tuple[int, bytes]:
    """Which process this is, and the digest of the state after so many steps, each of the last task that can."""
    trial = Trial(lost, Settings(ambient=made_for))
    try:
        trial.follow((), lambda options: len(options) - 1, steps)
        return os.getpid(), digest(trial.key())
    finally:
        trial.close()


def test_a_state_has_one_digest_in_every_process() -> None:
    here = [key_after(0, steps) for steps in range(8)]
    with Crew(2) as crew:
        there = list(crew.map(key_after, 0, range(8)))
    assert [key for _, key in here] == [key for _, key in there]
    assert not {pid for pid, _ in here} & {pid for pid, _ in there}
    assert len({key for _, key in here}) == 8, "states that differ have one digest"


def test_values_that_differ_have_digests_that_differ() -> None:
    values = [1, True, "1", 1.0, (1,), ((1,),), frozenset({1}), None, int, lost.__code__]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(frozenset({"a", "b"})) == digest(frozenset({"b", "a"}))
