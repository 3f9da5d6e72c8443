"""The executor with a reserve: the standard one's behaviour, and threads kept for the release path."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor as StandardExecutor
from concurrent.futures import wait

import pytest

import headway as hw
from headway.integrations.executor import ThreadPoolExecutor


def test_it_does_what_the_standard_one_does() -> None:
    with ThreadPoolExecutor(3, "name", reserve=1) as executor:
        assert isinstance(executor, StandardExecutor)
        assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))
        failed = executor.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            failed.result(60)
    assert executor.slots.used == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(print)
    with pytest.raises(hw.UsageError):
        ThreadPoolExecutor(2, reserve=2)


def test_ordinary_work_leaves_the_reserve_alone_and_the_entitled_use_it_last() -> None:
    gate, running = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        running.release()
        gate.wait(60)

    with ThreadPoolExecutor(3, reserve=1) as executor:
        executor.entitled.submit(hold)
        running.acquire(timeout=60)
        assert executor.slots.stats().reserve_uses == 0, "the reserve was used first"
        held = [executor.submit(hold) for _ in range(3)]
        running.acquire(timeout=60)
        assert executor.slots.used == 2, "ordinary work took the last thread"
        assert executor.entitled.submit(abs, -1).result(60) == 1
        with hw.noreclaim():
            assert executor.submit(abs, -2).result(60) == 2
        assert executor.slots.stats().reserve_uses == 2
        gate.set()
        wait(held, 60)


def test_work_that_waits_for_a_connection_does_not_stop_the_work_that_gives_it_back() -> None:
    connections = threading.Semaphore(1)
    with ThreadPoolExecutor(2, reserve=1) as executor:
        for _ in range(20):
            executor.submit(connections.acquire).result(60)
            late = executor.submit(connections.acquire, True, 60)
            executor.entitled.submit(connections.release).result(60)
            assert late.result(60)
            executor.entitled.submit(connections.release).result(60)


def test_shutdown_finishes_or_cancels_what_waits() -> None:
    gate = threading.Event()
    finishing = ThreadPoolExecutor(1)
    futures = [finishing.submit(gate.wait, 60) for _ in range(5)]
    finishing.shutdown(wait=False)
    gate.set()
    assert all(future.result(60) for future in futures)
    finishing.shutdown()

    gate.clear()
    cancelling = ThreadPoolExecutor(1)
    running, *dropped = [cancelling.submit(gate.wait, 60) for _ in range(5)]
    assert dropped[0].cancel()
    cancelling.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in dropped)
    gate.set()
    assert running.result(60)
    cancelling.shutdown()
    assert cancelling.slots.used == 0


def test_it_may_be_the_default_of_an_event_loop() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(2, reserve=1)
        loop.set_default_executor(executor)
        assert await asyncio.to_thread(abs, -1) == 1
        return await loop.run_in_executor(executor.entitled, abs, -2)

    assert asyncio.run(main()) == 2
