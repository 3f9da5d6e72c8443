"""Budgets, queue and executor for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import headway as hw
from headway import aio


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_budget_awaited() -> None:
    async def main() -> None:
        budget = aio.Budget(4, reserve=1, name="b")
        async with budget.lease(3) as had:
            assert had and not budget.try_alloc(1)
            async with budget.lease(1, entitled=True):
                assert budget.stats().used == 4
            task = asyncio.create_task(budget.alloc(2))
            await until(lambda: budget.budget.waiters)
            with pytest.raises(TimeoutError):
                await budget.alloc(1, timeout_s=0.001)
        assert await task and budget.stats().used == 2
        assert repr(budget) == "<aio Budget 'b': 2 of 4 out, 1 of it reserve, 0 waiting>"
        assert await budget.alloc(2, hw.Gfp.NOWAIT) is False
        budget.free(2)
        budget.close()

    run(main)


def test_a_cancelled_task_hands_on_what_it_was_given() -> None:
    async def main() -> None:
        budget = aio.Budget(2)
        await budget.alloc(2)
        first = asyncio.create_task(budget.alloc(2))
        second = asyncio.create_task(budget.alloc(1))
        await until(lambda: budget.budget.waiters == 2)
        budget.free(2)  # the first is granted, and cancelled before it runs
        first.cancel()
        assert await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert budget.stats().used == 1

    run(main)


def test_units_granted_to_a_closed_loop_go_to_the_next() -> None:
    budget = hw.Budget(2)
    budget.alloc(2)

    async def leave_waiting() -> None:
        task = asyncio.ensure_future(aio.Budget(budget).alloc(2))
        kept.append(task)
        await until(lambda: budget.waiters)

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_waiting())
    loop.close()
    budget.free(2)
    assert (budget.used, budget.waiters) == (0, 0) and budget.try_alloc(2)
    kept[0]._log_destroy_pending = False
    kept.clear()


def test_several_at_once() -> None:
    async def main() -> None:
        memory, slots = aio.Budget(10), aio.Budget(1)
        both = aio.Together((memory, 5), (slots, 1))
        await slots.alloc(1)
        task = asyncio.create_task(both.alloc())
        await until(lambda: slots.budget.waiters)
        assert memory.stats().used == 0 and not both.try_alloc()
        slots.free(1)
        assert await task
        both.free()
        async with both.lease():
            assert slots.stats().used == 1
        assert slots.stats().used == 0

    run(main)


def test_a_queue_awaited() -> None:
    async def main() -> None:
        chunks: aio.BudgetQueue[bytes] = aio.BudgetQueue(10, name="chunks")
        await chunks.put(bytes(8))
        with pytest.raises(asyncio.QueueFull, match="5 do not fit: 8 of 10 are in it"):
            chunks.put_nowait(bytes(5))
        late = asyncio.create_task(chunks.put(bytes(5)))
        given_up = asyncio.create_task(chunks.put(bytes(5)))
        await until(lambda: chunks.stats().putters == 2)
        given_up.cancel()
        async with chunks.lease() as chunk:
            assert len(chunk) == 8 and not late.done()
        await late
        assert await chunks.get() == bytes(5)
        with pytest.raises(asyncio.QueueEmpty):
            chunks.get_nowait()
        chunks.put_nowait(b"last")
        assert chunks.qsize() == 1 and not chunks.empty() and not chunks.full()
        chunks.close()
        assert [item async for item in chunks] == [b"last"]
        with pytest.raises(hw.PoolClosed):
            chunks.put_nowait(b"later")
        with pytest.raises(hw.PoolClosed):
            chunks.get_nowait()
        assert chunks.budget.stats().used == 0
        chunks.task_done()
        chunks.task_done()
        await chunks.join()

    run(main)


def test_threads_put_what_tasks_get() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(7, cost=lambda item: 1 + item % 7)

    async def main() -> None:
        def produce() -> None:
            for item in range(500):
                items.put(item)
            items.close()

        threading.Thread(target=produce).start()
        assert [item async for item in aio.BudgetQueue[int](items)] == list(range(500))

    run(main)
    assert items.budget.used == 0


def test_a_cancelled_getter_returns_its_item_to_the_front() -> None:
    async def main() -> None:
        items: aio.BudgetQueue[int] = aio.BudgetQueue(9, cost=lambda item: 1)
        getter = asyncio.create_task(items.get())
        await until(lambda: items.stats().getters)
        items.put_nowait(1)
        items.put_nowait(2)
        getter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getter
        assert [items.get_nowait(), items.get_nowait()] == [1, 2]

    run(main)


def test_an_executor_for_coroutines_and_functions() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        started, stop = threading.Event(), threading.Event()

        def work() -> bool:
            started.set()
            return stop.wait(60)

        async with aio.BudgetExecutor(10, cost=lambda *args: 6, max_workers=2) as executor:
            first = await executor.submit(gate.wait)
            second = asyncio.create_task(executor.submit(work))
            await until(lambda: executor.budget.budget.waiters)
            gate.set()
            working = await second
            await until(started.is_set)
            assert first.done() and working.cancel()
            await asyncio.sleep(0)
            assert executor.budget.stats().used == 6, "its thread still works"
            stop.set()
            assert await (await executor.submit(sum, [1, 2])) == 3
            with pytest.raises(hw.UsageError):
                await executor.submit_cost(11, sum, [])
            await executor.submit_cost(1, asyncio.sleep, 0)
        assert executor.budget.stats().used == 0
        with pytest.raises(hw.PoolClosed):
            await executor.submit(sum, [])

    run(main)
