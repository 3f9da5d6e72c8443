"""The driver for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from headway import aio
from headway.core.mm.gfp import Gfp, Scope
from headway.core.plan import Offload, Plan, Ticket, offload
from headway.runtimes import scopes, tasks
from headway.runtimes.threads import THREADS
from headway.threaded import Mempool
from tests.core.mm.pools import parked
from tests.runtimes.conformance import Conformance, Driver


class OnTasks(Driver):
    runtime = THREADS
    cancelled = asyncio.CancelledError

    def run(self, *plans: Plan[Any]) -> list[Any]:
        async def main() -> list[Any]:
            return list(await asyncio.gather(*map(tasks.run, plans)))

        return asyncio.run(main())

    def cancel(
        self, plan: Plan[Any], when: Callable[[], bool], *others: Plan[Any]
    ) -> BaseException:
        async def main() -> BaseException:
            task = asyncio.create_task(tasks.run(plan))
            while not when():
                await asyncio.sleep(0)
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, BaseException), "it was not cancelled"
            return ended

        return asyncio.run(main())


class TestTasks(Conformance):
    make = OnTasks


def test_t2_2_a_scope_follows_its_task_and_no_other() -> None:
    async def main() -> None:
        inside, outside = asyncio.Event(), asyncio.Event()
        seen: list[tuple[str, int]] = []

        async def careful() -> None:
            with scopes.noio():
                inside.set()
                await outside.wait()
                seen.append(("careful", scopes.current()))
                seen.append(("worker", await tasks.in_worker(scopes.current)))
            seen.append(("after", scopes.current()))

        async def other() -> None:
            await inside.wait()
            seen.append(("other", scopes.current()))
            outside.set()

        await asyncio.gather(careful(), other())
        noio = Scope.NOIO
        assert seen == [("other", 0), ("careful", noio), ("worker", noio), ("after", 0)]

    asyncio.run(main())


def test_a_cancelled_offload_gives_its_late_result_to_undo() -> None:
    entered, leave, undone = threading.Event(), threading.Event(), threading.Event()
    got: list[object] = []

    def slow() -> str:
        entered.set()
        leave.wait()
        return "late"

    def undo(result: object) -> None:
        got.append(result)
        undone.set()

    async def main() -> None:
        task = asyncio.create_task(tasks.run(offload(slow, undo=undo)))
        while not entered.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        leave.set()

    asyncio.run(main())
    undone.wait()
    assert got == ["late"]


def test_a_result_that_arrived_in_a_loop_that_turns_no_more_is_undone() -> None:
    stopped = threading.Event()
    undone: list[object] = []

    def slow() -> str:
        stopped.wait()
        return "late"

    def plan() -> Plan[None]:
        yield Offload(slow, (), 0, undone.append)

    loop = asyncio.new_event_loop()
    task = loop.create_task(tasks.run(plan()))
    loop.run_until_complete(asyncio.sleep(0))
    stopped.set()
    for thread in threading.enumerate():
        if thread.name == "headway-offload":
            thread.join()  # its result is on its way into a loop that has stopped
    loop.close()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()  # what the collector does when the task goes
    assert undone == ["late"]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_what_was_handed_to_a_waiter_of_a_closed_loop_goes_on() -> None:
    pool = Mempool.of("x")
    pool.alloc()
    loop = asyncio.new_event_loop()
    task = loop.create_task(aio.Mempool(pool).alloc())
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert pool.waiters == 1
    loop.close()
    alive = parked(pool, "alive")
    pool.free("x")
    assert alive.finish() == ["x"] and pool.waiters == 0
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    pool.free("x")
    assert pool.reserve_count == 1


def test_cancelled_after_the_hand_over_it_hands_on() -> None:
    async def main() -> None:
        pool = aio.Mempool.of("x")
        x = await pool.alloc()
        first, second = asyncio.create_task(pool.alloc()), asyncio.create_task(pool.alloc())
        while pool.stats().waiters < 2:
            await asyncio.sleep(0)
        pool.free(x)  # handed to `first`, which runs only in the next turn
        first.cancel()
        assert await second == "x"
        assert first.cancelled() or (await asyncio.gather(first, return_exceptions=True))
        pool.free(x)
        assert pool.stats().reserve_count == 1

    asyncio.run(main())


def test_wake_ups_of_one_turn_are_delivered_together() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tickets = [Ticket(str(n)) for n in range(5)]
        plans = [asyncio.create_task(tasks._park(ticket, None)) for ticket in tickets]
        await asyncio.sleep(0)
        calls: list[object] = []
        loop.call_soon = lambda *args, **_: calls.append(args[0])  # type: ignore[assignment, method-assign]
        try:
            for ticket in tickets:
                ticket.wake()
        finally:
            del loop.call_soon  # type: ignore[method-assign]
        (deliver,) = calls
        deliver()  # type: ignore[operator]
        assert await asyncio.gather(*plans) == [True] * 5

    asyncio.run(main())


def test_the_async_lease_returns_its_element_however_it_ends() -> None:
    async def main() -> None:
        pool = aio.Mempool.of("x", trace=True)
        with pytest.raises(ZeroDivisionError):
            async with pool.lease():
                raise ZeroDivisionError
        started = asyncio.Event()

        async def holder() -> None:
            async with pool.lease():
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(holder(), name="holder")
        await started.wait()
        assert [holding.owner for holding in pool.pool.holders()] == ["holder"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with (lease := pool.lease(timeout_s=1.0)) as x:
            assert lease.hand_over() == x == "x"
        assert pool.try_alloc() is None
        with pytest.raises(TimeoutError):
            await pool.alloc(timeout_s=0.0)
        pool.free(x)
        assert await pool.alloc_bulk(0) == []
        pool.free_bulk(await pool.alloc_bulk(1))
        pool.close()

    asyncio.run(main())


def test_an_allocator_runs_on_a_worker_under_the_tasks_scope() -> None:
    seen: list[tuple[bool, Gfp]] = []
    main_thread = threading.get_ident()

    def allocate(gfp: Gfp) -> object:
        seen.append((threading.get_ident() == main_thread, scopes.effective()))
        return object()

    async def main() -> None:
        pool: aio.Mempool[object] = aio.Mempool(alloc=allocate, min_count=1)
        pool.pool.alloc_preallocated()
        with scopes.nofs():
            await pool.alloc()
            assert await pool.resize(2) == 2

    asyncio.run(main())
    assert seen == [(True, Gfp.KERNEL)] + [(False, Gfp.NOFS)] * 3
