"""Reservations over a real arena, under threads and tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

import headway as hw
from headway import aio

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
            async with await aio.Reservations(of).reserve(2, "task"):
                order.append("task")

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


def test_tasks_draw_on_what_clean_cache_lies_in_and_parts_are_admitted_beforehand() -> None:
    async def main() -> None:
        with hw.Zone("1MiB", min_free=0) as zone:
            journal = aio.Reservations(zone, "64KiB", name="journal")
            async with await journal.reserve(8, "transaction") as transaction:
                part = await transaction.child(4, "part")
                assert transaction.try_child(8, "another") is None, "an order to wait"
                cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
                for key in range(256):
                    cache[key] = bytes(4096)
                blocks = [await node.draw() for node in (part, *[transaction] * 8)]
                assert cache.stats().evicted >= 9 * 16
                with pytest.raises(hw.UsageError, match="all 8 buffers that were promised"):
                    await transaction.draw()
                part.free(blocks[0])
                for block in blocks[1:]:
                    transaction.free(block)
                part.release()
            assert "0 x 64KiB promised" in repr(journal)
            first = await journal.reserve(16)
            with pytest.raises(hw.PoolTimeout, match="were not promised in"):
                await journal.reserve(1, timeout_s=0.01)
            first.release()

    asyncio.run(main())


def test_the_impossible_is_refused_at_once() -> None:
    with hw.Zone("256KiB", min_free=0) as zone:
        with pytest.raises(hw.UsageError, match="can never be had"):
            hw.Reservations(zone, "1MiB")
        with pytest.raises(hw.UsageError, match="can never be promised; the zone can promise 4"):
            hw.Reservations(zone, "64KiB").reserve(5)
