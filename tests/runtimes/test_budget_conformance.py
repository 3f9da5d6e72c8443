"""Budgets and their queue behave alike on threads, tasks and the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headway.budgets import Budget
from headway.core.mm.budget_queue import BudgetQueue
from headway.core.mm.gfp import Gfp
from headway.core.mm.together import Together
from headway.core.plan import Plan, Ticket, call, park
from headway.errors import PoolClosed
from tests.core.mm.memory import PAGE, Memory, cached
from tests.runtimes.conformance import Driver
from tests.runtimes.test_simulator_conformance import OnSimulator
from tests.runtimes.test_tasks import OnTasks
from tests.runtimes.test_threads import OnThreads


@pytest.fixture(params=[OnThreads, OnTasks, OnSimulator])
def driver(request: pytest.FixtureRequest) -> Driver:
    made: Driver = request.param()
    return made


def take(budget: Budget, units: int, who: str, timeout_s: float | None = None) -> Plan[bool]:
    return budget.alloc_plan(units, Gfp.KERNEL, 0, who, timeout_s, False)


def is_parked(budget: Budget) -> Callable[[], bool]:
    def look() -> bool:
        line = list(budget.lines[0])
        return bool(line) and line[0]._waker is not None

    return look


def test_many_share_a_few_units(driver: Driver) -> None:
    memory = Budget(10, name="memory", runtime=driver.runtime)
    slots = Budget(2, name="slots", parent=memory, runtime=driver.runtime)
    out = [0, 0]

    def user(units: int, slot: int) -> Plan[int]:
        both = Together((memory, units), (slots, slot))
        for _ in range(20):
            assert (yield from both.alloc_plan(Gfp.KERNEL, 0, "user", None, False))
            out[0] += units
            out[1] += slot
            assert out[1] <= 2 and sum(out) <= 10
            yield from call(int)
            out[0] -= units
            out[1] -= slot
            both.free()
        return 20

    plans = [user(1, 2), user(8, 0), user(3, 1), user(7, 2), user(0, 1)]
    assert driver.run(*plans) == [20] * 5
    assert (memory.used, slots.used, memory.waiters, slots.waiters) == (0, 0, 0, 0)


def test_a_cancelled_request_hands_on(driver: Driver) -> None:
    budget = Budget(2, runtime=driver.runtime)
    driver.run(take(budget, 2, "holder"))
    given = Ticket("given")

    def second() -> Plan[bool]:
        yield from park(given, 60.0)
        return (yield from take(budget, 1, "second"))

    ended = driver.cancel(take(budget, 2, "first"), is_parked(budget))
    assert isinstance(ended, driver.cancelled)
    budget.free(2)
    given.wake()
    assert driver.run(second()) == [True]
    assert (budget.used, budget.waiters) == (1, 0)


def test_a_time_limit(driver: Driver) -> None:
    budget = Budget(2, runtime=driver.runtime, trace=True)
    driver.run(take(budget, 1, "holder"))
    with pytest.raises(TimeoutError, match=r"for 2; 1 of 2 out, 0 others waiting; held by holder"):
        driver.run(take(budget, 2, "late", 0.001))
    assert budget.waiters == 0 and budget.stats().timeouts == 1


def test_the_entitled_are_not_stopped_by_those_who_wait_for_them(driver: Driver) -> None:
    """Each user needs a unit to work, and one more to give it back: the reserve keeps that one."""
    budget = Budget(5, reserve=1, runtime=driver.runtime)

    def user() -> Plan[int]:
        for _ in range(10):
            yield from take(budget, 1, "user")
            yield from call(int)
            yield from budget.alloc_plan(1, Gfp.KERNEL, 0, "user", None, True)
            yield from call(int)
            budget.free(1)
            budget.free(1)
        return 10

    assert driver.run(*(user() for _ in range(8))) == [10] * 8
    assert budget.used == 0


def test_a_reclaimer_makes_room(driver: Driver) -> None:
    cache = [1] * 4

    def reclaim(units: int) -> int:
        freed = min(units, len(cache))
        del cache[:freed]
        budget.free(freed)
        return freed

    budget = Budget(4, reclaim=reclaim, runtime=driver.runtime)
    driver.run(take(budget, 4, "cache"))
    assert driver.run(take(budget, 3, "user")) == [True]
    assert (budget.used, len(cache)) == (4, 1)


def test_a_reclaimer_that_raises_fails_nobody(driver: Driver) -> None:
    def broken(units: int) -> int:
        raise ValueError(units)

    budget = Budget(4, runtime=driver.runtime)
    theirs = Budget(parent=budget, name="theirs", reclaim=broken, runtime=driver.runtime)

    def holder() -> Plan[None]:
        while not is_parked(budget)():
            yield from park(Ticket("a turn"), 0.001)
        budget.free(3)

    driver.run(take(budget, 3, "holder"))
    assert driver.run(take(budget, 2, "user"), holder()) == [True, None]
    assert budget.used == 2 and theirs.stats().raised_count == 2


def test_caches_in_a_tree_give_way_to_those_who_wait(driver: Driver) -> None:
    memory = Memory(driver.runtime)
    root = Budget(8 * PAGE, name="root", runtime=driver.runtime)
    child = Budget(5 * PAGE, parent=root, name="child", runtime=driver.runtime)
    caches = [
        cached(memory, driver.runtime, name="a", budget=root),
        cached(memory, driver.runtime, name="b", budget=child, write_back=lambda key, value: None),
    ]

    def putter(cache: Any, dirty: bool) -> Plan[None]:
        for key in range(12):
            yield from cache.put_plan(key, PAGE * (1 + key % 2), dirty, 0, "putter")

    def user(budget: Any, pages: int) -> Plan[int]:
        for _ in range(4):
            yield from budget.alloc_plan(pages * PAGE, Gfp.KERNEL, 0, "user", None, False)
            yield from call(int)
            budget.free(pages * PAGE)
        return pages

    done = driver.run(
        putter(caches[0], False), putter(caches[1], True), user(root, 8), user(child, 5)
    )
    assert done == [None, None, 8, 5]
    assert root.used == sum(cache.stats().charged for cache in caches)
    for cache in caches:
        cache.check_invariants()
        driver.run(cache.flush_plan(0))


def test_a_queue_passes_everything_on_in_bounds(driver: Driver) -> None:
    queue: BudgetQueue[int] = BudgetQueue(Budget(6, runtime=driver.runtime))
    got: list[int] = []

    def producer(first: int) -> Plan[None]:
        for item in range(first, first + 20):
            yield from queue.put_plan(item, 1 + item % 3, Gfp.KERNEL, 0, "producer", None)

    def consumer(count: int) -> Plan[None]:
        for _ in range(count):
            item, units = yield from queue.get_plan("consumer", None)
            assert queue.budget.used <= 6
            got.append(item)
            yield from call(int)
            queue.budget.free(units)
            queue.task_done()

    def waiter() -> Plan[str]:
        yield from queue.join_plan("waiter")
        return "joined"

    plans: list[Plan[Any]] = [producer(0), producer(100), producer(200), consumer(35), consumer(25)]
    driver.run(*plans)
    assert sorted(got) == [*range(20), *range(100, 120), *range(200, 220)]
    for first in (0, 100, 200):
        mine = [item for item in got if first <= item < first + 20]
        assert sorted(mine) == mine or len(mine) == 20
    assert driver.run(waiter()) == ["joined"]
    assert (queue.qsize(), queue.budget.used) == (0, 0)


def test_a_getter_that_is_cancelled_loses_nothing(driver: Driver) -> None:
    queue: BudgetQueue[str] = BudgetQueue(Budget(6, runtime=driver.runtime))

    def waits() -> bool:
        line = list(queue._getters)
        return bool(line) and line[0]._waker is not None

    assert isinstance(driver.cancel(queue.get_plan("first", None), waits), driver.cancelled)
    queue.budget.try_alloc(1)
    queue.put_paid("item", 1)
    assert driver.run(queue.get_plan("second", None)) == [("item", 1)]


def test_closing_ends_every_wait(driver: Driver) -> None:
    queue: BudgetQueue[str] = BudgetQueue(Budget(1, runtime=driver.runtime))
    ended: list[str] = []

    def expect(plan: Plan[Any]) -> Plan[None]:
        try:
            yield from plan
        except PoolClosed:
            ended.append("closed")

    def closer() -> Plan[None]:
        while not (queue.budget.waiters == 1 and len(queue._getters) == 0):
            yield from park(Ticket("a moment"), 0.001)
        queue.close()
        yield from expect(queue.put_plan("late", 1, Gfp.KERNEL, 0, "late", None))

    driver.run(queue.put_plan("a", 1, Gfp.KERNEL, 0, "producer", None))
    driver.run(expect(queue.put_plan("b", 1, Gfp.KERNEL, 0, "producer", None)), closer())
    assert driver.run(queue.get_plan("consumer", None)) == [("a", 1)]
    driver.run(expect(queue.get_plan("consumer", None)))
    assert ended == ["closed"] * 3
