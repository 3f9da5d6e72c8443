"""Reservations over a real arena, under threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

import headway as hw
from headway.runtimes import tasks

BOTH = pytest.mark.parametrize("debug", [False, True])


@BOTH
def test_a_promise_is_kept_in_a_zone_that_is_full_of_cache(debug: bool) -> None:
    with hw.Zone("1MiB", min_free=0, debug=debug) as zone:
        journal = hw.Reservations(zone, "64KiB", name="journal")
        with journal.reserve(8, "transaction") as transaction:
            cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
            for key in range(256):
                cache[key] = bytes(4096)
            assert zone.stats().clean == 1 << 20, "what is promised lies idle, and is lent"
            blocks = [transaction.draw() for _ in range(8)]
            for number, block in enumerate(blocks):
                block[:] = bytes([number]) * len(block)
            assert [block[-1] for block in blocks] == list(range(8))
            assert zone.stats().clean + zone.stats().held <= 1 << 20
            for block in blocks:
                transaction.free(block)
        assert zone.stats().findings == 0


def test_threads_and_tasks_wait_in_one_line() -> None:
    with hw.Zone("256KiB", min_free=0) as zone:
        of = hw.Reservations(zone, "64KiB", name="r")
        first = of.reserve(4)
        order: list[str] = []

        def thread() -> None:
            with of.reserve(3, "thread"):
                order.append("thread")

        async def task() -> None:
            node = await tasks.run(of.reserve_plan(2, "task", "task"))
            order.append("task")
            node.release()

        started = threading.Thread(target=thread)
        started.start()
        while "1 waiting" not in repr(of):
            pass
        other = threading.Thread(target=lambda: asyncio.run(task()))
        other.start()
        while "2 waiting" not in repr(of):
            pass
        assert of.try_reserve(0) is None
        first.release()
        started.join(30)
        other.join(30)
        assert order == ["thread", "task"]


def test_the_impossible_is_refused_at_once() -> None:
    with hw.Zone("256KiB", min_free=0) as zone:
        with pytest.raises(hw.UsageError, match="can never be had"):
            hw.Reservations(zone, "1MiB")
        with pytest.raises(hw.UsageError, match="can never be promised; the zone can promise 4"):
            hw.Reservations(zone, "64KiB").reserve(5)
