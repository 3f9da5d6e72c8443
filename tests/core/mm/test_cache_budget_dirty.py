"""Dirty data of caches in a budget: written for those who may, told to those who wait, limited (facts 8.5, 8.6)."""

from __future__ import annotations

from typing import Any

import headway as hw
from headway.budgets import Budget
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp, Scope
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import PAGE, Memory, cached
from tests.core.mm.test_cache_budget import go_on, waits

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
