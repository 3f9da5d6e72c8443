"""Buffer caches by their faces: on threads, on asyncio, and both at once; with real files and a real zone."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway import aio
from headway.buffers import BufferCache, BufferLimit
from headway.core.block import bufio as core
from headway.core.block.bottom import Bottom
from headway.errors import BlockError, PoolBusy, UsageError
from headway.runtimes.threads import THREADS

BLOCK = 4096
BLOCKS = 64


def image(path: Path, blocks: int = BLOCKS) -> Path:
    path.write_bytes(b"".join(bytes([n % 251]) * BLOCK for n in range(blocks)))
    return path


def all_of(*works: Any) -> None:
    """Run functions on threads beside each other; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("zone_blocks", [2, 8, 40])
def test_t712_threads_with_one_buffer_each_all_progress(tmp_path: Path, zone_blocks: int) -> None:
    """Many threads add to counters in blocks, through a cache that holds almost nothing of it."""
    device = hw.open_device(str(image(tmp_path / "a")), writable=True)
    locks = [threading.Lock() for _ in range(16)]
    with hw.Zone(zone_blocks * BLOCK, min_free=0) as zone:
        with BufferCache(device, memory=zone, block_size=BLOCK, retain=0) as cache:

            def work(seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(60):
                    number = chance.randrange(16)
                    with cache.read(3 * number) as buffer, locks[number]:
                        at = int.from_bytes(buffer.view[:4], "little") + 1
                        buffer.view[:4] = at.to_bytes(4, "little")
                        buffer.mark_dirty(0, 4)

            before = [int.from_bytes(bytes([3 * n % 251]) * 4, "little") for n in range(16)]
            all_of(*(lambda seed=seed: work(seed) for seed in range(8)))
            cache.write_dirty()
            cache.check_invariants()
    found = (tmp_path / "a").read_bytes()
    counts = [int.from_bytes(found[3 * n * BLOCK :][:4], "little") - before[n] for n in range(16)]
    assert sum(counts) == 8 * 60, "an update was lost"
    device.close()


def test_threads_and_two_loops_share_a_cache(tmp_path: Path) -> None:
    device = hw.open_device(str(image(tmp_path / "a")))
    with hw.Zone(4 * BLOCK, min_free=0) as zone:
        with BufferCache(device, memory=zone, block_size=BLOCK, gather=0, retain=0) as cache:

            def thread() -> None:
                for n in range(100):
                    with cache.read(7 * n % BLOCKS) as buffer:
                        assert buffer.view[9] == 7 * n % BLOCKS

            async def task(seed: int) -> None:
                shared = aio.BufferCache(cache)
                for n in range(seed, seed + 25):
                    async with shared.held(n % BLOCKS) as buffer:
                        assert buffer.view[9] == n % BLOCKS
                        await asyncio.sleep(0)

            async def loop() -> None:
                await asyncio.gather(*map(task, range(6)))

            all_of(thread, thread, lambda: asyncio.run(loop()), lambda: asyncio.run(loop()))
            cache.check_invariants()
            assert not any(buffer.held for buffer in cache.blocks.values())
    device.close()


def test_the_async_face(tmp_path: Path) -> None:
    device = hw.open_device(str(image(tmp_path / "a")), writable=True)

    async def main() -> None:
        with hw.Zone(32 * BLOCK, min_free=0) as zone:
            async with aio.BufferCache(device, memory=zone, block_size=BLOCK) as cache:
                buffer = await cache.read(5)
                assert cache.get(5) is buffer and cache.get(6) is None
                buffer.release(), buffer.release()
                async with cache.held(6, fresh=True) as fresh:
                    fresh.view[:] = b"n" * BLOCK
                    cache.mark_dirty(fresh)
                await cache.write_dirty()
                await cache.prefetch(10, 4)
                await cache.move(await cache.read(6), 7)
                cache.forget(5)
                await cache.flush()
                assert cache.stats().dirty == 1

    asyncio.run(main())
    assert (tmp_path / "a").read_bytes()[6 * BLOCK : 8 * BLOCK] == b"n" * 2 * BLOCK
    device.close()


def test_a_cancelled_reader_leaves_nothing_behind(tmp_path: Path) -> None:
    device = hw.open_device(str(image(tmp_path / "a")))

    async def main() -> None:
        with hw.Zone(4 * BLOCK, min_free=0) as zone:
            cache = aio.BufferCache(device, memory=zone, block_size=BLOCK, gather=0)
            for turns in range(12):
                reader = asyncio.create_task(cache.read(turns))
                for _ in range(turns % 5):
                    await asyncio.sleep(0)
                reader.cancel()
                try:
                    (await reader).release()
                except asyncio.CancelledError:
                    pass
            for number in range(20):
                async with cache.held(number) as buffer:
                    assert buffer.view[0] == number
            await cache.close()

    asyncio.run(main())
    device.close()


def test_a_cache_over_a_stack_that_fails(tmp_path: Path) -> None:
    with hw.open_stack("memory:1MiB", ["error,ops=writes"], writable=True) as device:
        with hw.Zone("64KiB", min_free=0) as zone:
            cache = BufferCache(device, memory=zone, block_size="4KiB")
            with cache.new(1) as buffer:
                buffer.mark_dirty()
            with pytest.raises(BlockError):
                cache.write_dirty()
            cache.write_dirty()
            cache.close()


def test_a_limit_is_kept_and_may_be_shared(tmp_path: Path) -> None:
    device = hw.open_device(str(image(tmp_path / "a")))
    limit = BufferLimit(16 * BLOCK)
    with hw.Zone("1MiB", min_free=0) as zone:
        with (
            BufferCache(device, memory=zone, block_size=BLOCK, limit=limit, gather=0) as one,
            BufferCache(device, memory=zone, block_size=BLOCK, limit=limit, gather=0) as two,
        ):
            for number in range(BLOCKS):
                one.read(number).release()
                two.read(number).release()
        assert limit.total == 0
    device.close()


def test_what_makes_no_cache_is_refused(tmp_path: Path) -> None:
    device = hw.open_device("memory:1MiB", writable=True)
    with hw.Zone("64KiB", min_free=0) as zone:
        for options in (
            {"block_size": 1000},
            {"block_size": 4096, "reserve": 0},
            {"block_size": 0},
        ):
            with pytest.raises(UsageError):
                BufferCache(device, memory=zone, **options)
        cache = BufferCache(device, memory=zone, block_size=4096)
        held = cache.read(0)
        assert "1 clean" in repr(cache) and "1 holds" in repr(held)
        with pytest.raises(PoolBusy):
            cache.close()
        held.release()
    assert not [t for t in threading.enumerate() if t.name.startswith("keeper of memory:1MiB")]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs O_DIRECT")
def test_past_the_page_cache(tmp_path: Path) -> None:
    device = hw.open_device(str(image(tmp_path / "a", 300)), writable=True, direct=True)
    with hw.Zone("1MiB", min_free=0) as zone:
        with BufferCache(device, memory=zone, block_size=BLOCK, gather="64KiB") as cache:
            for number in range(300):
                with cache.read(number) as buffer:
                    assert buffer.view[0] == number % 251
                    buffer.view[1] = 255
                    buffer.mark_dirty(1, 2)
            cache.write_dirty()
            stats = cache.stats()
            assert stats.written_blocks >= 300 > stats.write_requests
    found = (tmp_path / "a").read_bytes()
    assert all(found[n * BLOCK : n * BLOCK + 2] == bytes([n % 251, 255]) for n in range(300))
    device.close()


class Throttled:
    """A zone's allocator that does not come back before it is let go: reclaim that is throttled."""

    def __init__(self) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self.free_now = 2

    def light(self, gfp: hw.Gfp) -> memoryview | None:
        if not self.free_now:
            return None
        self.free_now -= 1
        return memoryview(bytearray(BLOCK))

    def alloc(self, gfp: hw.Gfp) -> memoryview | None:
        if self.free_now:
            return self.light(gfp)
        self.inside.set()
        assert self.go.wait(60)
        return None

    def free(self, element: memoryview) -> None:
        self.free_now += 1


def test_t71_nobody_waits_for_an_allocation_that_is_throttled() -> None:
    memory = Throttled()
    device = hw.open_device("memory:1MiB", writable=True)
    cache = core.BufferCache(Bottom(device), memory, BLOCK, runtime=THREADS,
                             keeping={"retain_bytes": 0})  # fmt: skip
    THREADS.run(cache.read_plan(0)).release()
    stuck = threading.Thread(target=lambda: THREADS.run(cache.read_plan(1)).release(), daemon=True)
    stuck.start()
    assert memory.inside.wait(60)
    assert not cache.guard.locked(), "the guard is held while memory is asked for"
    assert cache.keeper.count_objects(None) == 1
    hit = cache.get(0)
    assert hit is not None
    hit.mark_dirty()
    hit.release()
    THREADS.run(cache.write_dirty_plan())
    memory.go.set()
    stuck.join(60)
    assert not stuck.is_alive()
    THREADS.run(cache.close_plan())


def test_others_get_the_memory_of_a_cache_and_of_a_store_that_share_their_zone() -> None:
    device, swap_device = (hw.open_device("memory:4MiB", writable=True) for _ in range(2))
    with hw.Zone("1MiB", min_free=0) as zone:
        swap = hw.Swap(swap_device, slot_size=BLOCK)
        with (
            BufferCache(device, memory=zone, block_size=BLOCK, retain=0) as cache,
            hw.SpillStore(swap, memory=zone) as store,
        ):
            for number in range(100):
                store[number] = bytes([number]) * BLOCK
            for number in range(400):
                with cache.new(number) as buffer:
                    buffer.view[:] = bytes([number % 251]) * BLOCK
                    buffer.mark_dirty()
            buffers = zone.buffers("64KiB", name="others")
            with hw.Mempool(buffers, min_count=1) as pool:
                taken = [pool.alloc(timeout_s=30) for _ in range(10)]
                assert len(taken) == 10 and zone.stats().reclaimed > 0
                pool.free_bulk(taken)
            assert all(store[number] == bytes([number]) * BLOCK for number in range(100))
            for number in range(400):
                with cache.read(number) as buffer:
                    assert buffer.view[7] == number % 251
