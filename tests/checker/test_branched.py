"""Requests that may end in more ways than one: over learned automata, held to the schedules run one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headway as hw
from examples import rounds
from headway import aio
from headway.checker.automata import automata
from headway.checker.branched import branched
from headway.checker.explore import Search
from headway.checker.learn import NotPlain
from headway.checker.target import check, replay
from headway.checker.trial import Settings
from headway.runtimes.scopes import made_for
from headway.runtimes.simulator import Kind
from tests.checker import gallery
from tests.checker.test_gallery import BUGS, TWINS

SETTINGS = Settings(ambient=made_for)
FUZZING = settings.default.max_examples > 1000

# -- agreement -------------------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(["a", "b", "a?", "b?", "at", "bt", "aa", "-"]), min_size=1, max_size=4
).map(tuple)


def walks(pools: tuple[Any, Any], steps: tuple[str, ...]) -> None:
    held: list[tuple[Any, Any]] = []
    for step in steps:
        if step == "-":
            if held:
                pool, element = held.pop()
                pool.free(element)
            continue
        pool = pools["ab".index(step[0])]
        if step == "aa":
            held += [(pool, element) for element in pool.alloc_bulk(2)]
            continue
        try:
            element = pool.try_alloc() if step[1:] == "?" else pool.alloc(
                timeout_s=1.0 if step[1:] == "t" else None
            )  # fmt: skip
        except hw.PoolTimeout:
            continue
        held += [(pool, element)] if element is not None else []
    for pool, element in reversed(held):
        pool.free(element)


def first(a: Any, b: Any, *steps: str) -> None:
    walks((a, b), steps)


def program(size: int, actors: tuple[tuple[str, ...], ...], wake: hw.Wake) -> Callable[[], None]:
    def main() -> None:
        a = hw.Mempool.of(range(size), name="a", wake=wake)
        b = hw.Mempool.of(range(1), name="b", wake=wake)
        for steps in actors:
            hw.spawn(first, a, b, *steps)

    return main


@settings(max_examples=500 if FUZZING else 40, deadline=None, derandomize=not FUZZING)
@given(st.integers(2, 3), st.tuples(STEPS, STEPS), st.sampled_from([hw.Wake.FIFO, hw.Wake.ANY_FIT]))
def test_it_says_what_every_schedule_says(
    size: int, actors: tuple[tuple[str, ...], ...], wake: hw.Wake
) -> None:
    checked = program(size, actors, wake)
    one_by_one = Search(checked, SETTINGS, 1500, sampled=False).run()
    if one_by_one.finding is None and not one_by_one.complete:
        return
    report = branched(checked, SETTINGS, sizes=False)
    if one_by_one.finding is None:
        assert (report.verdict, report.complete) == ("ok", True)
        return
    assert report.verdict == one_by_one.finding.verdict
    assert report.replay is not None
    steps = [option for option in one_by_one.schedule if option.kind in (Kind.STEP, Kind.EXPIRE)]
    again = replay(checked, report.replay)
    assert (again.verdict, again.trace) == (report.verdict, report.trace)
    assert len(report.replay.split(".")) <= len(steps) + 2


@pytest.mark.parametrize("name", sorted({name for name, *_ in (*BUGS, *TWINS)}))
def test_the_gallery_result_by_result_and_schedule_by_schedule(name: str) -> None:
    function = getattr(gallery, name)
    try:
        learned = branched(function, SETTINGS)
    except NotPlain:
        return
    one_by_one = check(function, by_counts=False, max_schedules=2000)
    assert learned.verdict == one_by_one.verdict
    assert learned.stuck == one_by_one.stuck
    assert len(learned.trace) == len(one_by_one.trace)
    assert learned.min_reserve == one_by_one.min_reserve


# -- going round -----------------------------------------------------------------------------------


def tries_until_it_has(pool: Any) -> None:
    while (element := pool.try_alloc()) is None:
        pass
    pool.free(element)


def retries_a_timeout(pool: Any) -> None:
    while True:
        try:
            element = pool.alloc(timeout_s=1.0)
            break
        except hw.PoolTimeout:
            continue
    pool.free(element)


def one_slot(*fns: Callable[..., None]) -> Callable[[], None]:
    def main() -> None:
        pool = hw.Mempool.of(range(1), name="slot")
        for fn in fns:
            hw.spawn(fn, pool)

    return main


ROUND = [
    (rounds.both_give_way, "livelock", 2),
    (rounds.one_order, "ok", 0),
    (rounds.batch_as_it_fits, "starvation", 1),
    (rounds.batch_in_order, "ok", 0),
    (one_slot(tries_until_it_has, rounds.serves), "starvation", 1),
    (one_slot(tries_until_it_has, tries_until_it_has), "ok", 0),
    (one_slot(rounds.serves, rounds.serves), "ok", 0),
    (one_slot(retries_a_timeout, rounds.serves), "starvation", 1),
    (one_slot(retries_a_timeout, retries_a_timeout), "ok", 0),
]


@pytest.mark.parametrize(("checked", "verdict", "stuck"), ROUND, ids=range(len(ROUND)))
def test_who_goes_round_for_ever(checked: Any, verdict: str, stuck: int) -> None:
    report = check(checked)
    assert (report.verdict, len(report.stuck)) == (verdict, stuck)
    assert report.complete == (verdict == "ok")
    if verdict == "ok":
        assert "nor keeps anybody out for ever" in report.reason
        return
    assert report.replay is not None and "~" in report.replay
    again = replay(checked, report.replay)
    assert (again.verdict, again.reason, again.trace, again.repeats) == (
        report.verdict, report.reason, report.trace, report.repeats,
    )  # fmt: skip
    assert "and from here round and round" in report.text()


def test_a_round_in_which_somebody_is_merely_forgotten_is_no_finding() -> None:
    """The poller could go round for ever if the holder were never let: that is the scheduler's fault."""
    report = check(one_slot(tries_until_it_has, tries_until_it_has))
    assert report.verdict == "ok"
    assert replay(one_slot(tries_until_it_has, tries_until_it_has), "1.2*2.3~3").verdict == "ok"


# -- cancellation ----------------------------------------------------------------------------------


async def careless(pool: Any) -> None:
    face = aio.Mempool(pool)
    one = await face.alloc()
    other = await face.alloc()
    pool.free(other)
    pool.free(one)


async def careful(pool: Any) -> None:
    async with aio.Mempool(pool).lease(), aio.Mempool(pool).lease():
        pass


@pytest.mark.parametrize(("fn", "verdict"), [(careless, "leak"), (careful, "ok")])
def test_a_cancelled_wait_loses_what_is_not_in_a_scope(fn: Any, verdict: str) -> None:
    def main() -> None:
        pool = hw.Mempool.of(range(3), name="slots")
        hw.spawn(fn, pool)
        hw.spawn(fn, pool)

    assert check(main).verdict == "ok"
    found, one_by_one = check(main, cancels=1), check(main, cancels=1, by_counts=False)
    assert (found.verdict, one_by_one.verdict) == (verdict, verdict)
    assert (found.method, one_by_one.method) == ("branches", "schedules")
    if verdict == "leak":
        assert found.replay is not None and "x" in found.replay
        assert replay(main, found.replay).verdict == "leak"


# -- learning --------------------------------------------------------------------------------------


def counts_its_rounds(pool: Any) -> None:
    rounds = 0
    while True:
        pool.free(pool.alloc(timeout_s=1.0))
        rounds += 1


def loops_over_a_list(pool: Any) -> None:
    for _ in range(3):
        if (element := pool.try_alloc()) is not None:
            pool.free(element)


def test_a_loop_is_folded_only_where_all_is_as_before() -> None:
    assert automata(one_slot(rounds.serves), SETTINGS).has_loops
    assert not automata(one_slot(loops_over_a_list), SETTINGS).has_loops
    with pytest.raises(NotPlain, match="never where it was before"):
        automata(one_slot(counts_its_rounds), SETTINGS)


def test_code_that_goes_by_its_elements_is_not_learned() -> None:
    def goes_by_it(pool: Any) -> None:
        element = pool.alloc()
        if element == 1:
            pool.free(pool.try_alloc() or element)
        pool.free(element)

    def main() -> None:
        hw.spawn(goes_by_it, hw.Mempool.of(range(2), name="slots"))

    with pytest.raises(NotPlain, match="with other elements"):
        automata(main, SETTINGS)
