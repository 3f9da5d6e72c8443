"""Clean data of caches in a budget goes for those who may not wait, and for those who reclaim (decision 0032)."""

from __future__ import annotations

from headway.budgets import Budget
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp
from headway.runtimes.scopes import noreclaim
from tests.core.mm.memory import PAGE, Memory, cached
from tests.steps import step


def test_who_reclaims_or_may_not_wait_has_clean_cache_dropped_and_asks_nobody_else() -> None:
    """A cache fills its budget to the last unit: 8.5 has no background that would keep some free."""
    asked: list[int] = []
    budget = Budget(8 * PAGE, name="b", reclaim=lambda units: asked.append(units))
    cache = cached(
        Memory(), budget=budget, group=Domain("any", "1GiB", None),
        write_back=lambda key, value: asked.append(key),
    )  # fmt: skip
    assert step(cache.put_plan("dirty", PAGE, True, 0, "a")).finish()
    for key in range(7):
        cache[key] = PAGE
        cache.get(key)
    assert budget.room == 0
    with noreclaim():
        assert step(budget.alloc_plan(PAGE, Gfp.KERNEL, 4, "a", None, False)).result is True
        assert budget.alloc(PAGE, Gfp.KERNEL | Gfp.NORETRY)
    assert budget.try_alloc(PAGE) and budget.alloc(PAGE, Gfp.ATOMIC) and len(cache) == 4
    assert not budget.try_alloc(5 * PAGE) and list(cache) == ["dirty"], "and not what is dirty"
    assert not asked and budget.try_alloc(3 * PAGE)
    cache.close()


def test_who_may_not_wait_does_not_wait_for_who_is_in_the_cache_either() -> None:
    budget = Budget(2 * PAGE, name="b")
    cache = cached(Memory(), budget=budget)
    cache["a"] = 2 * PAGE
    with cache._guard:
        assert not budget.try_alloc(PAGE)
    assert budget.try_alloc(PAGE)


def test_high_passes_a_limit_only_when_nothing_clean_is_left() -> None:
    budget = Budget(2 * PAGE, name="b", force=True)
    cache = cached(Memory(), budget=budget)
    cache["a"] = 2 * PAGE
    assert budget.alloc(PAGE, Gfp.ATOMIC) and budget.stats().forced_count == 0
    assert budget.alloc(2 * PAGE, Gfp.ATOMIC) and budget.stats().forced_count == 1


def test_inside_the_caches_guard_nobody_waits_for_the_budgets() -> None:
    """So a finaliser that comes by while somebody is in the budget's guard can use the cache."""
    root = Budget(8 * PAGE, name="root")
    for budget in (root, Budget(parent=root, name="child")):
        cache = cached(Memory(), budget=budget)
        with budget._guard, cache._guard:
            assert cache._holding.book(PAGE) == (False, 0)
        assert cache.put("a", PAGE) and budget.used == PAGE
        cache.close()
