"""The face of caches that give way: in the place of lru_cache, on a real zone, beside real pools."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import headway as hw
from headway import aio
from headway.caching import CacheInfo, ShrinkableCache
from headway.core.mm.shrinker import ScanControl


@pytest.fixture(params=["lru_cache", "ours"])
def decorate(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The same tests for both: that is what a drop-in means."""
    if request.param == "lru_cache":
        return lambda **options: functools.lru_cache(maxsize=None, **options)
    return lambda **options: ShrinkableCache(hw.Zone("1MiB"), **options)


def test_calls_with_equal_arguments_are_answered_once(decorate: Callable[..., Any]) -> None:
    calls = []

    @decorate()
    def function(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What it does."""
        calls.append((args, kwargs))
        return (*args, *kwargs.items())

    for args, kwargs in [((), {}), ((1,), {}), ((1, 2), {}), ((1,), {"a": 2}), ((), {"a": 1}),
                         ((1, "a", 2), {}), (((1, 2),), {}), ((None,), {}), ((), {"a": 1, "b": 2}),
                         ((), {"b": 2, "a": 1})]:  # fmt: skip
        first = function(*args, **kwargs)
        assert function(*args, **kwargs) is first
    assert len(calls) == 10
    assert tuple(function.cache_info())[:2] == (10, 10) and function.cache_info().currsize == 10
    assert function.cache_info().maxsize is None
    assert function.cache_parameters() == {"maxsize": None, "typed": False}
    assert function.__name__ == "function" and function.__doc__ == "What it does."
    assert function.__wrapped__(5) == (5,) and len(calls) == 11
    function.cache_clear()
    assert tuple(function.cache_info()) == (0, 0, None, 0)
    function(1)
    assert len(calls) == 12


@pytest.mark.parametrize("typed", [False, True])
def test_equal_arguments_of_different_types(decorate: Callable[..., Any], typed: bool) -> None:
    function = decorate(typed=typed)(lambda x, y: type(x))
    assert (function(1, 2), function(1.0, 2)) == ((int, float) if typed else (int, int))
    assert function.cache_parameters()["typed"] is typed


def test_none_is_an_answer_and_an_exception_is_not(decorate: Callable[..., Any]) -> None:
    calls = []

    @decorate()
    def function(x: int) -> None:
        calls.append(x)
        if x:
            raise KeyError(x)

    assert function(0) is function(0) is None and calls == [0]
    for _ in range(2):
        with pytest.raises(KeyError):
            function(1)
    assert calls == [0, 1, 1]
    with pytest.raises(TypeError, match="unhashable"):
        function([])


def test_recursion_and_methods(decorate: Callable[..., Any]) -> None:
    @decorate()
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)  # type: ignore[no-any-return]

    assert fibonacci(50) == 12586269025 and fibonacci.cache_info().misses == 51

    class Thing:
        @decorate()
        def method(self, x: int) -> tuple[Thing, int]:
            return self, x

    one, other = Thing(), Thing()
    assert one.method(1) == (one, 1) and other.method(1) == (other, 1)


def test_a_coroutine_function_is_refused() -> None:
    async def function() -> None: ...

    with pytest.raises(hw.UsageError, match="awaited only once"):
        ShrinkableCache(hw.Zone("1MiB"))(function)


def test_the_cost_is_bytes_and_max_size_is_a_size() -> None:
    zone = hw.Zone("1MiB")
    cache: ShrinkableCache[str, bytes] = ShrinkableCache(zone, max_size="10KiB", name="thumbs")
    cache["a"] = bytes(5000)
    assert cache.stats().used == sys.getsizeof(bytes(5000))
    cache["b"] = bytes(5200)
    assert len(cache) == 1 and cache.stats().evicted == 1
    assert "'thumbs': 1 objects" in repr(cache)
    zone.close()
    assert cache.closed


def test_a_cache_gives_way_to_a_pool() -> None:
    zone = hw.Zone("8MiB")
    cache: ShrinkableCache[int, bytes] = ShrinkableCache(zone, cost=len)
    for key in range(2000):
        cache[key] = bytes(5000)
    assert zone.stats().free < 1 << 20 and zone.stats().clean > 6 << 20
    frames: hw.Mempool[memoryview] = hw.Mempool(zone.buffers("1MiB"), min_count=2)
    held = [frames.alloc() for _ in range(5)]
    stats = zone.stats()
    assert stats.held == 5 << 20 and stats.clean < 3 << 20
    assert stats.held + stats.clean + stats.dirty + stats.free == stats.size
    for frame in held:
        frames.free(frame)
    frames.close()
    for key in range(2000):
        cache[key] = bytes(5000)
    assert zone.stats().clean > 6 << 20, "and takes the room again"
    zone.close()


def test_a_floor_is_admitted_by_dropping_cache() -> None:
    zone = hw.Zone("4MiB", min_free=0)
    cache: ShrinkableCache[int, bytes] = ShrinkableCache(zone, cost=len)
    for key in range(1000):
        cache[key] = bytes(5000)
    zone.buffers("1MiB", floor="3MiB")
    assert zone.stats().kept_for_floors == 3 << 20 and zone.stats().clean <= 1 << 20
    zone.close()


def test_a_users_shrinker_is_asked_and_may_stop() -> None:
    zone = hw.Zone("4MiB", min_free=0)
    buffers = zone.buffers("1MiB")
    spare: list[memoryview] = []

    class Spares:
        busy = False

        def count_objects(self, control: ScanControl) -> int:
            return len(spare)

        def scan_objects(self, control: ScanControl) -> int:
            if self.busy:
                return hw.STOP
            freed = min(control.scan_count, len(spare))
            for _ in range(freed):
                buffers.free(spare.pop())
            return freed

    spares = Spares()
    registered = zone.register_shrinker(spares, name="spares", object_size="1MiB")
    for _ in range(4):
        taken = buffers.alloc()
        assert taken is not None
        spare.append(taken)
    spares.busy = True
    with hw.noio():
        assert buffers.alloc() is None, "it is code above the allocation"
    spares.busy = False
    view = buffers.alloc()
    assert view is not None and len(spare) <= 3
    assert zone.reclaim("1MiB") >= 1 << 20
    registered.unregister()
    assert zone.stats().shrinker_count == 0 and zone.reclaim("1MiB") == 0
    for one in [view, *spare]:
        buffers.free(one)
    zone.close()


def test_out_of_memory_is_what_the_user_chose() -> None:
    zone = hw.Zone("1MiB", min_free=0, oom=hw.Oom.RAISE, name="small")
    buffers = zone.buffers("512KiB", name="halves")
    held = [buffers.alloc(), buffers.alloc()]
    with pytest.raises(hw.NoMemory, match="zone 'small': 512KiB for 'halves' is not to be had"):
        buffers.alloc()
    assert buffers.alloc(hw.Gfp.NOWAIT) is None
    assert zone.stats().oom_count == 1
    pool: hw.Mempool[memoryview] = hw.Mempool(buffers, min_count=0)
    with pytest.raises(hw.PoolTimeout):
        pool.alloc(timeout_s=0.001)
    pool.close()
    for view in held:
        assert view is not None
        buffers.free(view)
    zone.close()


def test_a_pool_that_waits_is_told_when_a_cache_gives_back() -> None:
    zone = hw.Zone("1228KiB", min_free=0)
    slow = threading.Event()
    cache: ShrinkableCache[str, int] = ShrinkableCache(
        zone, cost=int, write_back=lambda key, value: slow.wait(30)
    )
    assert cache.put("dirty", 244 << 10, dirty=True)
    buffers = zone.buffers("1MiB")
    pool: hw.Mempool[memoryview] = hw.Mempool(buffers, min_count=0)
    got: list[memoryview] = []
    with hw.noio():
        thread = threading.Thread(target=hw.carry(lambda: got.append(pool.alloc())))
    thread.start()
    while not pool.waiters:
        assert thread.is_alive(), "it was to wait: what is dirty may not be written for it"
    cache.clear()
    thread.join(30)
    assert got
    slow.set()
    pool.free(got[0])
    pool.close()
    zone.close()


def test_under_asyncio_a_pool_reclaims_without_stopping_the_loop() -> None:
    zone = hw.Zone("8MiB")
    cache: ShrinkableCache[int, bytes] = ShrinkableCache(zone, cost=len)

    async def main() -> int:
        frames: aio.Mempool[memoryview] = aio.Mempool(zone.buffers("256KiB"), min_count=2)
        done = 0

        async def worker(number: int) -> None:
            nonlocal done
            for turn in range(20):
                async with frames.lease() as frame:
                    frame[:4] = b"data"
                    cache[number, turn] = bytes(100_000)
                    await asyncio.sleep(0)
                    done += 1

        await asyncio.gather(*(worker(n) for n in range(16)))
        frames.close()
        return done

    assert asyncio.run(main()) == 320
    stats = zone.stats()
    assert stats.held == 0 and stats.clean <= stats.size
    cache.check_invariants()
    zone.close()


def test_threads_share_a_cache_and_nothing_is_lost_or_over_the_limit() -> None:
    zone = hw.Zone("1MiB")
    caches: list[ShrinkableCache[int, bytes]] = [
        ShrinkableCache(zone, cost=len, name=f"c{n}") for n in range(3)
    ]
    wrong: list[Any] = []

    def user(seed: int) -> None:
        for turn in range(3000):
            cache = caches[turn % 3]
            key = (turn * 7919 * seed) % 200
            value = cache.get(key)
            if value is None:
                cache[key] = bytes([key]) * (1000 + 40 * key)
            elif value[0] != key:
                wrong.append((key, value[0]))
            if turn % 50 == 0:
                cache.pop(key, None)

    threads = [threading.Thread(target=user, args=(seed,)) for seed in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for cache in caches:
        cache.check_invariants()
    assert sum(cache.stats().charged for cache in caches) == zone.stats().clean
    zone.close()


def test_info_has_the_fields_of_lru_cache() -> None:
    assert CacheInfo._fields == functools.lru_cache(lambda: None).cache_info()._fields
    gc.collect()


def test_under_asyncio_dirty_values_are_written_without_stopping_the_loop() -> None:
    zone = hw.Zone("1MiB")
    turns, stored = 0, dict[int, bytes]()
    go = threading.Event()

    def write_back(key: int, value: bytes) -> None:
        assert go.wait(30)
        stored[key] = value

    plain: ShrinkableCache[int, bytes] = ShrinkableCache(zone, cost=len, write_back=write_back)
    cache = aio.ShrinkableCache(plain)

    async def main() -> None:
        async def beside() -> None:
            nonlocal turns
            while turns < 5:
                turns += 1
                await asyncio.sleep(0)
            go.set()

        task = asyncio.create_task(beside())
        for key in range(60):
            assert await cache.put(key, bytes(10_000), dirty=True)
        await task
        await cache.flush()

    asyncio.run(main())
    assert turns == 5 and set(stored) == set(range(60)) and cache.stats().dirty == 0
    assert cache.get(59) == bytes(10_000) and "aio ShrinkableCache 'cache'" in repr(cache)
    zone.close()
