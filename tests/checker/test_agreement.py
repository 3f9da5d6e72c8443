"""Merged or not, the search says the same of small programs over two pools, and finds it as early."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

import headway as hw
from headway.checker.explore import Result, Search
from headway.checker.trial import Settings
from headway.runtimes.scopes import made_for
from headway.runtimes.simulator import Kind

# A step takes one of a pool, tries to, takes two at once, or gives back what was taken last.
STEPS = st.lists(st.sampled_from(["a", "b", "a?", "b?", "aa", "-"]), min_size=1, max_size=4).map(
    tuple
)


def actor(pools: tuple[hw.Mempool[int], hw.Mempool[int]], steps: tuple[str, ...]) -> None:
    held: list[tuple[hw.Mempool[int], int]] = []
    for step in steps:
        if step == "-":
            if held:
                pool, element = held.pop()
                pool.free(element)
            continue
        pool = pools["ab".index(step[0])]
        if step == "aa":
            held += [(pool, element) for element in pool.alloc_bulk(2)]
        elif step.endswith("?"):
            element_or_none = pool.try_alloc()
            held += [(pool, element_or_none)] if element_or_none is not None else []
        else:
            held.append((pool, pool.alloc()))
    for pool, element in reversed(held):
        pool.free(element)


def first(a: hw.Mempool[int], b: hw.Mempool[int], *steps: str) -> None:
    actor((a, b), steps)


def program(size: int, actors: tuple[tuple[str, ...], ...], backed: bool) -> Callable[[], None]:
    def main() -> None:
        a: hw.Mempool[int]
        if backed:
            a = hw.Mempool(alloc=object, min_count=size, name="a")  # type: ignore[assignment]
        else:
            a = hw.Mempool.of(range(size), name="a")
        b = hw.Mempool.of(range(1), name="b")
        for steps in actors:
            hw.spawn(first, a, b, *steps)

    return main


def searched(checked: Callable[[], None], merging: bool) -> Result:
    how = Settings(ambient=made_for, merging=merging)
    return Search(checked, how, 600, sampled=False).run()


def operations(result: Result) -> int:
    """Steps of the schedule without the start of each task, which merging puts first."""
    steps = [option.task for option in result.schedule if option.kind is Kind.STEP]
    return len(steps) - len(set(steps))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(2, 3), st.tuples(STEPS, STEPS), st.booleans())
def test_merging_changes_nothing_but_the_cost(
    size: int, actors: tuple[tuple[str, ...], ...], backed: bool
) -> None:
    checked = program(size, actors, backed)
    whole, merged = searched(checked, False), searched(checked, True)
    if whole.finding is None and not whole.complete:
        return  # too large to be seen without merging
    assert (merged.finding is None) == (whole.finding is None)
    assert merged.complete == whole.complete
    if merged.finding is not None and whole.finding is not None:
        assert merged.finding.verdict == whole.finding.verdict, (merged, whole)
        assert operations(merged) <= operations(whole)
    assert merged.notes == []
