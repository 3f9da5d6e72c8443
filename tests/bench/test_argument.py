"""The argument of 2001 ends as the docs say it does: each figure of the page, but for what is timed."""

from __future__ import annotations

import pytest

from bench import argument
from bench.argument_designs import DESIGNS, Classes, Design, FixedCache, Pool, Reservations
from headway.core.mm.ladder import RESERVE_IF_HALF, RESERVE_IF_MORE_THAN_HALF
from tests.house import tree

PAGE = (tree.ROOT / "docs" / "concepts" / "argument-of-2001.md").read_text("utf-8")


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_the_table_of_the_page_is_what_comes_out(design: type[Design]) -> None:
    quiet, busy = argument.play(design()), argument.play(design(), others=argument.OTHERS)
    assert argument.row(quiet, busy) in PAGE


def test_t3_6_all_dirty_stalls_the_plain_allocator_and_no_other() -> None:
    ended = {design: argument.play(design()).verdict for design in DESIGNS}
    assert ended.pop(Design) == "stall at 0"
    assert set(ended.values()) == {"progress"}


def test_t3_5_what_lies_idle_is_what_the_designs_differ_in() -> None:
    idle = {design: argument.play(design()).idle for design in DESIGNS}
    assert idle[Reservations] == idle[Classes] == 0 < idle[Pool] < idle[FixedCache]


@pytest.mark.parametrize(("loops", "whole"), argument.SWEEPS)
def test_the_half_full_threshold_matters_only_if_the_heavy_try_may_not_return(
    loops: bool, whole: bool
) -> None:
    found = list(argument.sweep(loops=loops, whole=whole))
    stalls = {(m, k) for m, k, outcome in found if outcome.written < argument.WRITES}
    assert stalls == ({(m, k) for m, k, _ in found if k > 1} if loops and whole else set())
    assert f"{argument.named(loops, whole)} | {argument.said_of_sweep(found).split(':')[0]}" in PAGE
    if stalls:  # and this is where the two rules of that year differ
        half = {m for m in range(1, 7) if (m, RESERVE_IF_HALF.threshold(m)) in stalls}
        more = {m for m in range(1, 7) if (m, RESERVE_IF_MORE_THAN_HALF.threshold(m)) in stalls}
        assert (half, more) == ({3, 4, 5, 6}, {2, 3, 4, 5, 6})


def test_costs_are_ratios() -> None:
    assert set(argument.costs()) == {
        *(design.name for design in DESIGNS),
        "a draw on a promise",
    }
