"""Code that reclaims, under check: what runs in the background is a task like others."""

from __future__ import annotations

import pytest

import headway as hw
from headway import aio
from headway.checker.target import check
from headway.core.mm.shrinker import ScanControl
from headway.runtimes.scopes import made_for


def cache_beside_a_pool() -> None:
    zone = hw.Zone("128KiB", min_free="16KiB", huge=False)
    cache = hw.ShrinkableCache[object, bytes](zone, cost=len)
    for key in range(20):
        cache[key] = bytes(5000)
    pool: hw.Mempool[memoryview] = hw.Mempool(zone.buffers("32KiB"), min_count=1, name="frames")

    def user() -> None:
        with pool.lease():
            cache["x"] = bytes(9000)
        cache.check_invariants()

    async def other() -> None:
        async with aio.Mempool[memoryview](pool).lease():
            await aio.ShrinkableCache(cache).put("y", bytes(9000))

    hw.spawn(user)
    hw.spawn(other)


def shrinker_that_allocates() -> None:
    """It takes from a pool of its own while it frees: in the background as well as for a request."""
    zone = hw.Zone("128KiB", min_free="32KiB", huge=False)
    buffers = zone.buffers("4KiB")
    bios = hw.Mempool.of(range(1), name="bios")
    cached = [buffers.alloc() for _ in range(24)]

    class Writes:
        def count_objects(self, control: ScanControl) -> int:
            return len(cached)

        def scan_objects(self, control: ScanControl) -> int:
            with bios.lease():
                buffers.free(cached.pop())
            control.scanned = 1
            return 1

    def user() -> None:
        view = buffers.alloc()
        assert view is not None
        buffers.free(view)

    zone.register_shrinker(Writes(), batch=1)
    hw.spawn(user)
    hw.spawn(user)


@pytest.mark.parametrize("program", [cache_beside_a_pool, shrinker_that_allocates])
@pytest.mark.parametrize("threads", [False, True])
def test_no_schedule_ends_badly(program: object, threads: bool) -> None:
    report = check(
        program,  # type: ignore[arg-type]
        ambient=made_for, max_schedules=60, seed=1, sizes=False, threads=threads,
    )  # fmt: skip
    assert report.verdict == "ok", report.reason


def cache_in_a_budget() -> None:
    """One puts a value, two want all units: whoever comes second must have the cache give way."""
    zone = hw.Zone("128KiB", min_free=0, huge=False)
    budget = hw.Budget("8KiB", name="tenant")
    cache = hw.ShrinkableCache[str, bytes](zone, cost=len, budget=budget)

    def user() -> None:
        with budget.lease("8KiB"):
            pass

    hw.spawn(lambda: cache.put("x", bytes(5000)))
    hw.spawn(user)
    hw.spawn(user)


@pytest.mark.parametrize("program", [cache_beside_a_pool, cache_in_a_budget])
def test_every_schedule_of_a_bounded_search(program: object) -> None:
    report = check(
        program,  # type: ignore[arg-type]
        ambient=made_for, max_schedules=400, seed=2, sizes=False,
    )  # fmt: skip
    assert report.verdict == "ok", (report.reason, report.trace)


def test_what_touches_no_pool_is_judged_for_waits_on_reservations_too() -> None:
    def both_want_the_rest() -> None:
        zone = hw.Zone("128KiB", min_free=0, huge=False)
        journal = hw.Reservations(zone, "4KiB", name="journal")

        def user() -> None:
            for _ in range(2):
                journal.reserve(20)

        hw.spawn(user)

    def enough() -> None:
        zone = hw.Zone("128KiB", min_free=0, huge=False)
        journal = hw.Reservations(zone, "4KiB", name="journal")
        hw.spawn(lambda: journal.reserve(20).release())

    report = check(both_want_the_rest, ambient=made_for, max_schedules=20)
    assert report.verdict == "deadlock" and "reserve of journal" in report.reason
    report = check(enough, ambient=made_for, max_schedules=20)
    assert report.verdict == "ok" and "for a reservation, a zone or a slab" in report.reason
