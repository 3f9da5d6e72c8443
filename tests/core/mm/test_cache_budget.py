"""Caches that belong to a budget, as the page cache of a memory cgroup belongs to it (facts 8.5)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import headway as hw
from headway import aio
from headway.budgets import Budget
from headway.core.mm.gfp import Gfp
from headway.core.plan import Now, Offload, Park
from headway.errors import PoolBusy, PoolTimeout, UsageError
from headway.runtimes.scopes import noreclaim
from headway.runtimes.simulator import Cancelled, Simulator
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import PAGE, Memory, cached
from tests.steps import Stepper, step


def charged(*caches: Any) -> int:
    return sum(cache.stats().charged for cache in caches)


def tree(**options: Any) -> tuple[Memory, Budget, dict[str, Budget], dict[str, Any]]:
    """A root of 40 pages; two tenants of 10, and one without a limit of its own."""
    memory = Memory()
    root = Budget(40 * PAGE, name="root")
    budgets = {
        "a": Budget(10 * PAGE, parent=root, name="a"),
        "b": Budget(10 * PAGE, parent=root, name="b"),
        "free": Budget(parent=root, name="free"),
    }
    caches = {
        name: cached(memory, name=name, budget=budget, **options)
        for name, budget in budgets.items()
    }
    return memory, root, budgets, caches


def test_a_tenants_limit_is_met_by_its_own_cache_and_nobody_elses() -> None:
    _, root, budgets, caches = tree()
    for key in range(10):
        caches["b"][key] = PAGE
    for key in range(25):
        assert caches["a"].put(key, PAGE), "its oldest go"
        assert budgets["a"].used <= 10 * PAGE
    assert len(caches["b"]) == 10 and caches["b"].evicted == 0
    assert (len(caches["a"]), caches["a"].evicted) == (10, 15) and 24 in caches["a"]
    assert budgets["a"].alloc(4 * PAGE), "units of others are had of it as well"
    assert len(caches["a"]) == 6 and len(caches["b"]) == 10
    assert root.used == 20 * PAGE == charged(*caches.values()) + 4 * PAGE


def test_a_limit_above_is_met_by_all_below_in_turn_and_what_is_idle_goes_first() -> None:
    _, root, _, caches = tree()
    for key in range(10):
        caches["a"][key] = caches["b"][key] = PAGE
    for key in range(20):
        caches["free"][key] = PAGE
    assert root.room == 0
    for key in range(10):
        caches["a"].get(key)
    assert root.alloc(6 * PAGE), "somebody who keeps nothing"
    assert len(caches["a"]) == 10, "all that it keeps is in use"
    assert len(caches["b"]) + len(caches["free"]) == 24
    assert root.alloc(34 * PAGE), "and if that is not enough, all of it"
    assert root.used == 40 * PAGE and charged(*caches.values()) == 0


def test_nobody_waits_beside_clean_cache_however_much_it_is_used() -> None:
    budget = Budget(8 * PAGE, name="b")
    cache = cached(Memory(), budget=budget)
    for key in range(8 * 16):
        cache[key] = PAGE // 16
    for key in list(cache):
        cache.get(key)
    waiting = step(budget.alloc_plan(8 * PAGE, Gfp.KERNEL, 0, "a", None, False))
    assert waiting.done and waiting.result and len(cache) == 0


def test_what_a_floor_keeps_for_a_cache_is_not_dropped_for_others() -> None:
    memory = Memory()
    root = Budget(20 * PAGE, name="root")
    kept = Budget(parent=root, floor=6 * PAGE, name="kept")
    mine, other = cached(memory, budget=kept, name="mine"), cached(memory, budget=root)
    for key in range(10):
        mine[key] = other[key] = PAGE
    assert root.alloc(14 * PAGE)
    assert len(other) == 0 and len(mine) == 6, "what exceeds the floor, and no more"
    assert not root.alloc(PAGE, Gfp.KERNEL | Gfp.NORETRY)
    assert len(mine) == 6 and mine.put("new", PAGE) and len(mine) == 6


def test_a_put_never_waits_and_what_has_no_room_is_not_kept() -> None:
    budget = Budget(4 * PAGE, name="b")
    cache = cached(Memory(), budget=budget)
    cache["a"] = PAGE
    assert not cache.put("huge", 5 * PAGE) and cache.refused == 1, "larger than the budget"
    budget.alloc(3 * PAGE)
    assert not cache.put("b", 2 * PAGE) and "a" not in cache, "it gave way, in vain"
    assert cache.put("b", PAGE)
    budget.alloc(PAGE)
    asked = step(cache.put_plan("c", PAGE, False, 0, "a"))
    assert asked.done and asked.result is False and budget.used == 4 * PAGE
    budget.free(4 * PAGE)
    with pytest.raises(PoolBusy, match="close cache 'c' first"):
        cache["d"] = PAGE
        budget.close()
    assert not cache.put("e", PAGE), "its budget is closed"
    cache.close()
    assert budget.used == 0


def test_whatever_takes_a_value_away_gives_its_units_back() -> None:
    memory = Memory()
    budget = Budget(100 * PAGE, name="b")
    cache = cached(memory, budget=budget)
    for key in range(20):
        cache[key] = PAGE + 1
    assert budget.used == charged(cache) == 21 * PAGE
    del cache[0]
    cache.pop(1)
    cache[2] = 10
    assert budget.used == charged(cache) == 18 * PAGE
    assert THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 4)) >= 4
    assert budget.used == charged(cache) < 15 * PAGE
    memory.fill(leave=22)
    assert not cache.put("large", 30 * PAGE), "the zone had no room: what was paid came back"
    assert budget.used == charged(cache) == memory.zone.stats().clean_pages * PAGE
    cache.clear()
    assert budget.used == 0
    cache.close()
    budget.close()
    assert not budget.gives_way


def test_inside_reclaim_a_value_is_kept_where_there_is_room_and_nothing_dropped_for_it() -> None:
    _, _, budgets, caches = tree()
    for key in range(9):
        caches["a"][key] = PAGE
    for watcher in (None, lambda event: None):
        if watcher is not None:
            budgets["a"].watch(watcher)  # then the quick way to pay is closed
        with noreclaim():
            assert caches["a"].put("fits", PAGE) and not caches["a"].put("does not", PAGE)
        assert caches["a"].evicted == 0
        del caches["a"]["fits"]


def waits(budget: Budget, units: int, gfp: Gfp) -> Stepper:
    """A request that has come to its wait, and found nothing in its second look."""
    asked = step(budget.alloc_plan(units, gfp, 0, "waits", None, False))
    go_on(asked)
    assert not asked.done
    return asked


def go_on(asked: Stepper) -> None:
    """Until it is done, or parked with nobody having woken it."""
    for _ in range(200):
        request = asked.request
        if asked.done or (isinstance(request, Park) and not request.ticket.woken):
            return
        if isinstance(request, Park):
            asked.answer(True)
        elif isinstance(request, Now):
            asked.answer(0.0)
        else:
            assert isinstance(request, Offload)
            asked.effect()
    raise AssertionError("it never comes to rest")


def test_a_value_on_its_way_in_while_others_make_room_is_not_overlooked() -> None:
    """Between the payment and the entry nobody can drop it; who parks then is told when it is there."""
    budget = Budget(4 * PAGE, name="b")
    cache = cached(Memory(), budget=budget)
    assert THREADS.run(cache._holding.pay(4, 0, "a"))
    waiting = waits(budget, PAGE, Gfp.KERNEL)
    assert cache._keep(cache._made("x", 4 * PAGE, False), False, 4)
    go_on(waiting)
    assert waiting.done and waiting.result and len(cache) == 0
    again = waits(budget, 4 * PAGE, Gfp.KERNEL)
    with pytest.raises(Cancelled):
        again.throw(Cancelled())
    assert budget.used == PAGE


def test_what_can_be_given_after_the_last_try_and_before_the_line_is_not_overlooked() -> None:
    budget = Budget(4 * PAGE, name="b")
    cache = cached(Memory(), budget=budget)
    assert THREADS.run(cache._holding.pay(4, 0, "a"))
    waiting = step(budget.alloc_plan(PAGE, Gfp.KERNEL, 0, "waits", None, False))
    assert isinstance(waiting.request, Now), "it has found nothing, and stands in no line yet"
    assert cache._keep(cache._made("x", 4 * PAGE, False), False, 4)
    go_on(waiting)
    assert waiting.done and waiting.result


def test_a_kick_between_the_last_try_and_the_line_is_heard() -> None:
    hoard = 0

    def reclaim(units: int) -> int:
        budget.free(hoard)
        return hoard

    budget = Budget(4, reclaim=reclaim)
    budget.alloc(4)
    waiting = step(budget.alloc_plan(2, Gfp.KERNEL, 0, "waits", None, False))
    waiting.effect()
    assert isinstance(waiting.request, Now)
    hoard = 2
    budget.kick()
    go_on(waiting)
    assert waiting.done and waiting.result


def test_a_sibling_that_can_give_again_wakes_who_waits_for_the_level_above() -> None:
    """A kick of one budget is heard by those who starve above it, wherever they asked."""
    root = Budget(4)
    hoard: list[int] = []

    def reclaim(units: int) -> int:
        if not hoard:
            return 0
        one.free(hoard.pop())
        return 2

    one, other = Budget(parent=root, name="one", reclaim=reclaim), Budget(parent=root, name="other")
    one.alloc(4)
    waiting = waits(other, 2, Gfp.KERNEL)
    hoard.append(2)
    one.kick()
    go_on(waiting)
    assert waiting.done and waiting.result


def test_who_starves_at_one_level_and_another_and_the_first_again_asks_there_again() -> None:
    """What came to be had at the first level meanwhile found nobody there to tell."""
    root = Budget(10 * PAGE, name="root", reserve=2 * PAGE)
    small = Budget(4 * PAGE, name="small", parent=root)
    cache = cached(Memory(), budget=Budget(parent=root, name="sibling"))
    root.alloc(8 * PAGE)
    waiting = waits(small, 3 * PAGE, Gfp.KERNEL)
    assert small.alloc(2 * PAGE, entitled=True), "a release path, from the reserve above"
    root.free(7 * PAGE)
    go_on(waiting)
    assert not waiting.done and not root.starving, "it is its own budget that has too little now"
    for key in range(5):
        assert cache.put(key, PAGE)
    small.free(2 * PAGE)
    go_on(waiting)
    assert waiting.done and waiting.result and len(cache) < 5


def test_to_the_record_the_cache_is_who_holds_the_units() -> None:
    budget = Budget("1MiB", name="b", trace=True)
    events: list[tuple[str, int]] = []
    cache = cached(Memory(), budget=budget, name="thumbs")
    budget.alloc(100)
    for key in range(8):
        cache[key] = PAGE
    [mine, its] = budget.holders()
    assert (mine.owner, mine.count) == ("MainThread", 100)
    assert (its.owner, its.count, its.in_flight) == ("cache 'thumbs'", 8 * PAGE, True)
    budget.watch(lambda event: events.append((event.kind, event.count)))
    cache[8] = PAGE
    assert events == [("request", PAGE), ("grant", PAGE), ("release", PAGE)]
    cache.clear()
    assert [holding.owner for holding in budget.holders()] == ["MainThread"]
    assert len(events) == 3, (
        "whoever watches for what can hang knows them to be there for the asking"
    )
    with pytest.raises(PoolTimeout, match="held by MainThread"):
        budget.alloc("1MiB", timeout_s=0.0)


def test_a_budget_that_is_none_or_of_another_runtime() -> None:
    with hw.Zone("1MiB") as zone:
        with pytest.raises(UsageError, match="'cache': budget is 5; give a Budget"):
            hw.ShrinkableCache(zone, budget=5)
    with pytest.raises(UsageError, match="'c': its budget 'b' was made for another runtime"):
        cached(Memory(), budget=Budget(10, name="b", runtime=Simulator(lambda *seen: 0)))


def test_a_decorated_function_in_a_budget() -> None:
    with hw.Zone("4MiB") as zone:
        budget = hw.Budget("64KiB", name="tenant")

        @hw.ShrinkableCache(zone, cost=len, budget=budget)
        def read(key: int) -> bytes:
            return bytes(10_000)

        for key in range(20):
            assert len(read(key)) == 10_000
            assert budget.used <= 64 << 10
        assert read.cache_info().currsize == 6 and "64KiB" in repr(budget)


def test_tasks_share_a_budget_with_a_cache() -> None:
    import asyncio

    zone = hw.Zone("4MiB")
    budget = aio.Budget("64KiB", name="tenant")
    cache = aio.ShrinkableCache[int, bytes](zone, cost=len, budget=budget, name="pages")

    async def worker(number: int) -> None:
        for turn in range(20):
            assert await cache.put(number * 100 + turn, bytes(3000)) in (True, False)
            async with budget.lease("16KiB"):
                assert budget.stats().used <= 64 << 10
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(worker(number) for number in range(8)))

    asyncio.run(main())
    assert budget.stats().used == cache.stats().charged
    zone.close()
    assert budget.stats().used == 0


def test_threads_fill_caches_and_take_units_and_nobody_is_left_waiting() -> None:
    zone = hw.Zone("4MiB")
    root = hw.Budget("256KiB", name="root")
    budgets = [hw.Budget("128KiB", parent=root, name=f"b{n}") for n in range(2)]
    caches: list[hw.ShrinkableCache[int, bytes]] = [
        hw.ShrinkableCache(zone, cost=len, budget=budget) for budget in budgets
    ]

    def user(seed: int) -> None:
        for turn in range(400):
            which = (turn + seed) % 2
            caches[which][turn * seed % 97] = bytes(1000 + 37 * (turn % 200))
            with budgets[1 - which].lease("32KiB"):
                caches[1 - which].get(turn % 97)

    threads = [threading.Thread(target=user, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert root.used == charged(*caches)
    for cache in caches:
        cache.check_invariants()
    zone.close()
    for budget in (*budgets, root):
        budget.close()
