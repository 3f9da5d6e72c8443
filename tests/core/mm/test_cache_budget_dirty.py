"""Dirty data of caches in a budget: written for those who may, told to those who wait, limited (facts 8.5, 8.6)."""

from __future__ import annotations

from typing import Any

import pytest

import headway as hw
from headway.budgets import Budget
from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp, Scope
from headway.core.plan import Offload, Park
from headway.errors import PoolTimeout
from headway.runtimes.simulator import Cancelled
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import PAGE, Memory, cached
from tests.core.mm.test_cache_budget import go_on, waits
from tests.steps import step

ANY = Domain("any number", "1GiB", None)  # of bytes may be dirty


def test_what_is_dirty_is_written_for_a_request_that_may_and_others_wait() -> None:
    budget = Budget(4 * PAGE, name="b")
    written: list[Any] = []
    cache = cached(
        Memory(), budget=budget, group=ANY, write_back=lambda key, value: written.append(key)
    )
    for key in range(4):
        cache.put(key, PAGE, dirty=True)
    assert not budget.alloc(PAGE, Gfp.NOIO | Gfp.NORETRY) and not written
    assert budget.alloc(PAGE) and written == [0] and len(cache) == 3
    cache.close()


def test_who_waits_hears_when_dirty_data_is_clean() -> None:
    budget = Budget(4 * PAGE, name="b")
    cache = cached(Memory(), budget=budget, group=ANY, write_back=lambda key, value: None)
    for key in range(4):
        cache.put(key, PAGE, dirty=True)
    waiting = waits(budget, PAGE, Gfp.NOIO)
    cache.flush()
    go_on(waiting)
    assert waiting.done and waiting.result and len(cache) == 3
    cache.close()


def test_a_write_back_that_fails_does_not_keep_who_waits_busy() -> None:
    budget = Budget(4 * PAGE, name="b")
    calls: list[Any] = []
    fails = True

    def write_back(key: Any, value: Any) -> None:
        calls.append(key)
        if fails:
            raise OSError("disk")

    cache = cached(Memory(), budget=budget, group=ANY, write_back=write_back)
    for key in range(4):
        cache.put(key, PAGE, dirty=True)
    waiting = waits(budget, PAGE, Gfp.KERNEL)
    assert len(calls) == 2, "a try when it does not fit, and one from the line"
    fails = False
    cache.flush()
    go_on(waiting)
    assert waiting.done and waiting.result
    cache.close()


def written_by_another(pages: int, taken: int) -> tuple[Budget, ShrinkableCache[Any, Any], Any]:
    """A budget with one dirty page in a cache, which somebody is writing just now."""
    budget = Budget(pages * PAGE, name="b")
    cache = cached(Memory(), budget=budget, group=ANY, write_back=lambda key, value: None)
    cache.put("a", PAGE, dirty=True)
    flush = step(cache.flush_plan(0))
    assert isinstance(flush.request, Offload)
    budget.alloc(taken * PAGE)
    return budget, cache, flush


def test_who_needs_room_does_not_wait_for_what_another_writes_but_hears_of_its_end() -> None:
    """That write may be waiting for this very room; and room may come from elsewhere."""
    budget, cache, flush = written_by_another(10, 5)
    asked = waits(budget, 6 * PAGE, Gfp.KERNEL)
    assert isinstance(asked.request, Park) and asked.request.timeout_s is None, "in the line"
    budget.free(5 * PAGE)
    go_on(asked)
    assert asked.done and asked.result and cache.stats().dirty == PAGE
    asked = waits(budget, 4 * PAGE, Gfp.KERNEL)
    flush.finish()
    go_on(asked)
    assert asked.done and asked.result and len(cache) == 0


def test_a_write_back_that_needs_room_in_its_own_budget_is_not_what_it_waits_for() -> None:
    budget = Budget(10 * PAGE, name="b")
    budget.alloc(5 * PAGE)

    def write_back(key: Any, value: Any) -> None:
        with budget.lease(6 * PAGE, timeout_s=0.01):
            raise AssertionError("there is no room")

    cache = cached(Memory(), budget=budget, group=ANY, write_back=write_back)
    assert step(cache.put_plan("a", PAGE, True, 0, "a")).finish()
    with pytest.raises(PoolTimeout, match=r"waited 0\.0.* s for 24576"):
        cache.flush()


def test_who_waits_writes_what_another_failed_to_write_or_left() -> None:
    for error in (OSError("disk"), Cancelled()):
        budget, cache, flush = written_by_another(4, 3)
        asked = waits(budget, PAGE, Gfp.KERNEL)
        with pytest.raises(type(error)):
            flush.throw(error)
        go_on(asked)
        assert asked.done and asked.result and cache.stats().written == 1


def test_the_scope_of_who_asks_reaches_what_is_written_for_him() -> None:
    budget = Budget(2 * PAGE, name="b")
    scopes: list[int] = []
    cache = cached(
        Memory(), budget=budget, group=ANY,
        write_back=lambda key, value: scopes.append(int(THREADS.scope())),
    )  # fmt: skip
    cache.put(0, PAGE, dirty=True)
    cache.put(1, PAGE, dirty=True)
    with hw.nofs():
        assert budget.alloc(PAGE)
    assert scopes == [int(Scope.NOFS | Scope.NORECLAIM)]
    cache.close()


def test_what_may_be_dirty_is_a_fifth_at_every_level_and_of_what_the_limit_is_now() -> None:
    memory = Memory()
    root = Budget(50 * PAGE, name="root")
    budgets = [Budget(50 * PAGE, parent=root, name=f"b{n}") for n in range(5)]
    caches = [
        cached(memory, budget=budget, write_back=lambda key, value: None) for budget in budgets
    ]

    def dirty() -> int:
        for key in range(10):
            for cache in caches:
                step(cache.put_plan(key, PAGE, True, 0, "a")).finish()
        return sum(cache.stats().dirty for cache in caches) // PAGE

    assert dirty() == 10
    assert root.alloc(40 * PAGE, Gfp.NOIO | Gfp.NORETRY), "all else is clean"
    root.free(40 * PAGE)
    root.resize(25 * PAGE)
    assert dirty() == 5
    root.resize(50 * PAGE)
    budgets[0].resize(5 * PAGE)
    assert dirty() == 10 and caches[0].stats().dirty <= PAGE
    for cache in caches:
        cache.check_invariants()
        cache.close()


def test_a_budget_that_outlives_a_zone_keeps_nothing_of_it() -> None:
    root = Budget(50 * PAGE, name="root")
    tenant = Budget(parent=root, name="tenant")
    for _ in range(2):
        with hw.Zone("1MiB") as zone:
            for budget in (root, tenant, tenant):
                cache = hw.ShrinkableCache[int, bytes](
                    zone, budget=budget, write_back=lambda key, value: None
                )
            assert len(root.dirty) == len(tenant.dirty) == 1
            cache.close()
            assert len(root.dirty) == len(tenant.dirty) == 1, "others are there still"
        assert not root.dirty and not tenant.dirty


def test_what_may_be_dirty_in_a_budget_is_a_fifth_of_it_and_the_neighbours_is_its_own() -> None:
    """8.6: the zone's limits and the group's own; so nobody's budget is ever full of dirty data."""
    memory = Memory()
    root = Budget(100 * PAGE, name="root")
    budgets = [Budget(20 * PAGE, parent=root, name=name) for name in "ab"]
    written: list[str] = []
    caches = [
        cached(
            memory, name=f"{budget.name}{n}", budget=budget,
            write_back=lambda key, value, name=budget.name: written.append(name),
        )
        for budget in budgets for n in range(2)
    ]  # fmt: skip
    for key in range(2):  # what may be dirty before the background begins
        caches[2].put(key, PAGE, dirty=True)
    assert not written
    for key in range(15):
        caches[key % 2].put(key, PAGE, dirty=True)
        assert sum(cache.stats().dirty for cache in caches[:2]) <= 4 * PAGE
    assert set(written) == {"a"} and caches[2].stats().dirty == 2 * PAGE
    assert budgets[0].alloc(16 * PAGE, Gfp.NOIO | Gfp.NORETRY), "all that is clean, without I/O"
    for cache in caches:
        cache.close()
    assert root.used == 16 * PAGE
