"""Formula, largest count and odds: each against the exact search, or against what can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headway as hw
from bench import checker
from headway.checker import check, largest, odds, reserve
from headway.checker.model import parse
from headway.checker.modelled import check as check_model
from headway.checker.modelled import sizes
from headway.checker.profile import reserves
from headway.errors import UsageError

WAKES = st.sampled_from(["fifo", "any-fit"])


@st.composite
def growing(draw: Any, order: list[str]) -> list[str]:
    """Takes of one or two pools in their order, each one or two at a time; all goes back at the end."""
    found, held = [], dict.fromkeys(order, 0)
    for pool in order:
        for _ in range(draw(st.integers(0, 3 if len(order) == 1 else 2))):
            n = draw(st.integers(1, 2))
            held[pool] += n
            found.append(f"+{pool} {n}")
    if not found:
        held[order[0]] = 1
        found.append(f"+{order[0]} 1")
    return found + [f"-{pool} {n}" for pool, n in held.items() if n]


def model(wake: str, pools: dict[str, int], *actors: tuple[int, list[str]]) -> Any:
    return parse({
        "wake": wake, "pools": pools,
        "actors": {f"t{i}": {"count": n, "steps": steps} for i, (n, steps) in enumerate(actors)},
    })  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data(), WAKES, st.sampled_from([["a"], ["a", "b"]]))
def test_the_formula_is_the_smallest_safe_size_where_the_others_are_roomy(
    data: Any, wake: str, order: list[str]
) -> None:
    actors = [
        (data.draw(st.integers(1, 3)), data.draw(growing(order)))
        for _ in range(data.draw(st.integers(1, 2)))
    ]
    known = model(wake, dict.fromkeys(order, 40), *actors)
    found = reserves(known)
    assert found is not None and found.is_exact
    for pool, size in zip(order, found.sizes, strict=True):
        assert size == sizes(known, pool, 1).smallest
    together = model(wake, dict(zip(order, found.sizes, strict=True)), *actors)
    assert check_model(together, sizes=False).verdict == "ok"


def test_no_formula_where_pools_are_in_a_ring_or_asked_for_together() -> None:
    pools = {"a": 2, "b": 2}
    crossed = [(1, ["+a", "+b", "-a", "-b"]), (1, ["+b", "+a", "-a", "-b"])]
    assert reserves(model("fifo", pools, *crossed)) is None
    assert reserves(model("fifo", pools, (2, ["+a 1 +b 1", "-a 1 -b 1"]))) is None


def test_a_million_tasks_over_four_pools_with_ten_wait_points() -> None:
    million = 1_000_000
    assert reserve(checker.million()) == {
        "a": million + 1,
        "b": million + 2,
        "c": 2 * million + 1,
        "d": 2 * million + 3,
    }


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data(), WAKES)
def test_the_largest_count_is_where_the_first_deadlock_is(data: Any, wake: str) -> None:
    order = ["a", "b"] if data.draw(st.booleans()) else ["a"]
    pools = {pool: data.draw(st.integers(1, 4)) for pool in order}
    steps, other = data.draw(growing(order)), data.draw(growing(order))
    table = model(wake, pools, (1, steps), (1, other))
    found = largest(table, "t0")
    verdicts = [
        check_model(model(wake, pools, (n, steps), (1, other)), sizes=False).verdict
        for n in range(1, (found.largest if found.largest is not None else found.cutoff + 2) + 2)
    ]
    assert [verdict == "ok" for verdict in verdicts] == (
        [True] * len(verdicts) if found.every else [True] * (len(verdicts) - 1) + [False]
    )


def test_what_the_proposal_of_2009_would_have_borne() -> None:
    """Ten to twenty elements: nine to nineteen tasks that take two, four to nine that take three."""
    for size, pairs, triples in ((2, 1, 0), (10, 9, 4), (20, 19, 9)):
        for units, expected in ((2, pairs), (3, triples)):
            steps = ["+bio"] * units + [f"-bio {units}"]
            found = largest({"pools": {"bio": size}, "actors": {"m": {"steps": steps}}}, "m")
            assert (found.largest, found.every) == (expected, False)


def test_submitting_before_asking_again_bears_any_number() -> None:
    golden = {"pools": {"bio": 1}, "actors": {"m": {"steps": ["+bio", "-bio", "+bio", "-bio"]}}}
    found = largest(golden, "m")
    assert (found.largest, found.every) == (None, True)
    with pytest.raises(UsageError, match="no actor 'n' in the model; it has m"):
        largest(golden, "n")


PAIR = {"pools": {"bio": 2}, "actors": {"m": {"count": 2, "steps": ["+bio", "+bio", "-bio 2"]}}}


def takes_two(pool: Any) -> None:
    with pool.lease(), pool.lease():
        pass


def two() -> None:
    pool = hw.Mempool.of(range(2), name="bio")
    hw.spawn(takes_two, pool)
    hw.spawn(takes_two, pool)


@pytest.mark.parametrize("subject", [PAIR, two], ids=["model", "code"])
def test_odds_are_what_can_be_worked_out(subject: Any) -> None:
    """After the first take either is next with equal chance, and stalls if it is the other: one in two.

    Of the code the first step of each task is its start: both come to their second step before one comes to
    its third in 6 of 16 ways.
    """
    found = odds(subject, runs=600, seed=5)
    low, high = found.interval
    expected = 0.5 if subject is PAIR else 6 / 16
    assert low < expected < high
    assert odds(subject, runs=600, seed=5) == found
    assert odds(subject, runs=600, seed=6) != found


def test_odds_fall_with_the_spread_and_are_nothing_where_no_schedule_stalls() -> None:
    assert odds(PAIR, runs=300, spread=50.0).stalls < odds(PAIR, runs=300).stalls
    safe = {**PAIR, "pools": {"bio": 3}}
    assert odds(safe, runs=100).stalls == 0
    with pytest.raises(UsageError, match="0 runs were asked for"):
        odds(PAIR, runs=0)


def test_many_sizes_are_told_by_formula_and_it_is_said() -> None:
    steps = ["+a", "+a", "+b", "-a 2", "-b"]
    table = {"pools": {"a": 1200, "b": 3}, "actors": {"m": {"count": 1000, "steps": steps}}}
    report = check(table, max_schedules=10)
    assert report.min_reserve == {"a": 1001, "b": 1}
    assert "sizes by formula" in report.text()


def test_a_hundred_thousand_tasks_are_no_trouble() -> None:
    """Beyond what can be listed the smallest is told by formula, and what is listed is exact."""
    steps = ["+bio", "+bio", "+bio", "-bio 3"]
    table = {"pools": {"bio": 10}, "actors": {"m": {"count": 100_000, "steps": steps}}}
    known = parse(table)
    found = sizes(known, "bio", 30)
    assert (found.smallest, found.safe, found.unsafe) == (200_001, (), tuple(range(1, 31)))
    small = parse({**table, "actors": {"m": {"count": 20, "steps": steps}}})
    assert sizes(small, "bio", 30).unsafe == tuple(range(1, 31))
    report = check(table)
    assert (report.verdict, report.min_reserve) == ("deadlock", {"bio": 200_001})
