"""A cache is closed while others use it: at every moment of what they do, nothing is lost, and nothing left charged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headway.budgets import Budget
from headway.core.mm.cache import ShrinkableCache
from headway.errors import PoolClosed
from tests.core.mm.gaps import Gaps, moments
from tests.core.mm.memory import PAGE, Memory, cached
from tests.steps import step

Use = Callable[[ShrinkableCache[Any, Any], Budget], object]


def put_dirty(cache: ShrinkableCache[Any, Any], budget: Budget) -> None:
    try:
        step(cache.put_plan("new", PAGE, True, 0, "a")).finish()
    except PoolClosed:
        raise AssertionError("it was open when the put began") from None


def take(cache: ShrinkableCache[Any, Any], budget: Budget) -> None:
    assert budget.alloc(3 * PAGE, timeout_s=5.0)
    budget.free(3 * PAGE)


USES: dict[str, Use] = {
    "put": lambda cache, budget: cache.put("new", PAGE),
    "put where there is no room": lambda cache, budget: cache.put("new", 3 * PAGE),
    "put in the place of another": lambda cache, budget: cache.put("old", PAGE),
    "put dirty": put_dirty,
    "pop": lambda cache, budget: cache.pop("old", None),
    "clear": lambda cache, budget: cache.clear(),
    "make room": take,
}


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("use", USES)
def test_whatever_others_do_a_closed_cache_has_nothing(use: str, watched: bool) -> None:
    written: list[Any] = []

    def scene(gaps: Gaps) -> None:
        runtime: Any = gaps
        written.clear()
        memory = Memory(runtime)
        budget = Budget(parent=Budget(4 * PAGE, runtime=runtime), name="b", runtime=runtime)
        cache = cached(
            memory, runtime, budget=budget, write_back=lambda key, value: written.append(key)
        )
        cache["old"], cache["other"] = PAGE, PAGE
        if watched:
            budget.watch(lambda event: None)  # then the quick way to pay is closed
        gaps.act = cache.close
        USES[use](cache, budget)
        gaps.act = None
        assert cache.closed == gaps.came
        cache.close()
        assert budget.used == 0 == memory.zone.stats().clean_pages and not budget.gives_way
        assert not memory.zone._charges and not cache._entries and cache.used == 0
        memory.zone.check_invariants()
        assert written == (["new"] if use == "put dirty" else []), "dirty data is not dropped"

    assert len(list(moments(scene))) > 2
