"""The queue and the executor for threads: what users of ``queue`` and ``concurrent.futures`` expect."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import headway as hw


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread is about to do."""
    while not condition():
        pass


def test_put_waits_until_the_bytes_fit_and_get_makes_room() -> None:
    chunks: hw.BudgetQueue[bytes] = hw.BudgetQueue(10, name="chunks")
    chunks.put(b"a" * 6)
    chunks.put_nowait(b"b" * 4)
    assert chunks.full() and chunks.qsize() == 2
    late = in_thread(lambda: chunks.put(b"c" * 5))
    until(lambda: chunks.budget.waiters)
    assert chunks.get() == b"a" * 6
    late.result(60)
    assert [chunks.get_nowait(), chunks.get()] == [b"b" * 4, b"c" * 5]
    assert chunks.empty() and chunks.stats().units == 0
    with pytest.raises(queue.Empty):
        chunks.get_nowait()
    with pytest.raises(queue.Empty, match="for an item, and it is empty"):
        chunks.get(timeout=0.001)


def test_a_full_queue_says_so() -> None:
    chunks: hw.BudgetQueue[bytes] = hw.BudgetQueue("1KiB", name="chunks")
    chunks.put(bytes(1000))
    with pytest.raises(queue.Full, match="100B do not fit: 1000B of 1KiB are in it"):
        chunks.put_nowait(bytes(100))
    with pytest.raises(queue.Full, match=r"'chunks': waited .* for 100B"):
        chunks.put(bytes(100), timeout=0.001)
    with pytest.raises(hw.UsageError, match="2KiB were asked for at once"):
        chunks.put(bytes(2048))
    with pytest.raises(hw.UsageError, match=r"weight of a list is not known: give cost="):
        chunks.put([1])  # type: ignore[arg-type]
    with pytest.raises(hw.UsageError, match="timeout_s is -1"):
        chunks.put(bytes(100), timeout=-1)
    assert chunks.qsize() == 1 and chunks.budget.used == 1000


def test_a_getter_is_served_before_a_newcomer() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(3, cost=lambda item: 1)
    first = in_thread(items.get)
    until(lambda: items.stats().getters)
    items.put(1)
    assert items.qsize() == 0, "the item was not handed over"
    assert first.result(60) == 1


def test_a_leased_item_keeps_its_bytes_until_it_is_done() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(10, cost=int)
    items.put(8)
    joining = in_thread(items.join)
    with items.lease() as item:
        assert item == 8 and items.budget.used == 8
        assert not joining.done()
    joining.result(60)
    assert items.budget.used == 0
    with pytest.raises(hw.UsageError, match=r"task_done\(\) was called more often"):
        items.task_done()


def test_a_producer_may_pay_before_it_makes_the_item() -> None:
    chunks: hw.BudgetQueue[bytes] = hw.BudgetQueue(10)
    chunks.budget.alloc(10)
    chunks.put_paid(bytes(10), 10)
    assert chunks.budget.used == 10 and chunks.get() == bytes(10) and chunks.budget.used == 0
    chunks.budget.alloc(3)
    chunks.close()
    with pytest.raises(hw.PoolClosed):
        chunks.put_paid(b"abc", 3)
    assert chunks.budget.used == 0


def test_a_closed_queue_is_emptied_and_then_ends() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(2, cost=lambda item: 1)
    items.put(1)
    items.put(2)
    late = in_thread(lambda: items.put(3))
    until(lambda: items.budget.waiters)
    items.close()
    assert isinstance(late.exception(60), hw.PoolClosed)
    assert list(items) == [1, 2] and items.budget.used == 0
    with pytest.raises(hw.PoolClosed):
        items.put(4)
    with pytest.raises(hw.PoolClosed):
        items.get_nowait()


def test_closed_at_once_it_drops_what_is_in_it() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(2, cost=lambda item: 1)
    waiting = in_thread(items.get)
    until(lambda: items.stats().getters)
    items.put(0)
    waiting.result(60)
    items.put(1)
    joining = in_thread(items.join)
    items.task_done()
    items.close(immediate=True)
    joining.result(60)
    assert items.qsize() == 0 and items.budget.used == 0


def test_queues_may_share_one_budget() -> None:
    shared = hw.Budget(10, name="shared")
    one: hw.BudgetQueue[bytes] = hw.BudgetQueue(shared, name="one")
    two: hw.BudgetQueue[bytes] = hw.BudgetQueue(shared, name="two")
    one.put(bytes(7))
    late = in_thread(lambda: two.put(bytes(4)))
    until(lambda: two.budget.waiters)
    one.get()
    late.result(60)
    assert (shared.used, two.budget.used) == (4, 4)


def test_many_producers_and_consumers_lose_nothing() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(50, cost=lambda item: 1 + item % 40)
    produced = [
        in_thread(lambda n=n: [items.put(n * 500 + k) for k in range(500)]) for n in range(3)
    ]
    consumed = [in_thread(lambda: list(items)) for _ in range(3)]
    for future in produced:
        future.result(60)
    items.close()
    assert sorted(item for future in consumed for item in future.result(60)) == list(range(1500))
    assert items.budget.used == 0


def test_submit_waits_while_the_work_weighs_too_much() -> None:
    gate = threading.Event()
    with hw.BudgetExecutor(10, cost=lambda units: units, max_workers=4) as executor:
        first = executor.submit_cost(6, gate.wait, 60)
        second = in_thread(lambda: executor.submit_cost(6, gate.wait, 60))
        until(lambda: executor.budget.waiters)
        assert not second.done()
        gate.set()
        assert second.result(60).result(60) and first.result(60)
        with pytest.raises(hw.UsageError):
            executor.submit_cost(11, print)
        failing = executor.submit(lambda units: 1 // 0, 3)
        with pytest.raises(ZeroDivisionError):
            failing.result(60)
    assert executor.budget.used == 0
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit(abs, 1)


def test_cancelled_and_refused_work_gives_its_units_back() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        executor = hw.BudgetExecutor(10, cost=lambda: 4, executor=threads)
        running = executor.submit(gate.wait)
        waiting = executor.submit(gate.wait)
        assert waiting.cancel() and executor.budget.used == 4
        gate.set()
        running.result(60)
        executor.shutdown()
        assert threads.submit(abs, -1).result(60) == 1, (
            "it shut down an executor that is not its own"
        )
    stopped = hw.BudgetExecutor(10, cost=lambda: 4, executor=threads)
    with pytest.raises(RuntimeError):
        stopped.submit(gate.wait)
    assert stopped.budget.used == 0
