"""Dirty data: never dropped, written in time and in order, whoever fails (T8.4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.dirtied import EXPIRE_S, RETRY_S
from headway.core.mm.gfp import Gfp
from headway.core.plan import Offload, Park, Plan, Spawn, call, now
from headway.errors import UsageError
from headway.runtimes.simulator import Failure, Option, Simulator
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import LOW, PAGE, PAGES, Memory, cached
from tests.steps import step


class Disk:
    """What was written, in order; fails while told to."""

    def __init__(self) -> None:
        self.written: list[tuple[Any, Any]] = []
        self.fails = False

    def __call__(self, key: Any, value: Any) -> None:
        if self.fails:
            raise OSError("disk full")
        self.written.append((key, value))


def dirty_memory(**options: Any) -> tuple[Memory, ShrinkableCache[Any, Any], Disk]:
    memory, disk = Memory(**options), Disk()
    return memory, cached(memory, options.get("runtime", THREADS), write_back=disk), disk


def put_dirty(cache: ShrinkableCache[Any, Any], key: Any, value: Any) -> Any:
    asked = step(cache.put_plan(key, value, True, 0, "a"))
    asked.finish()
    return asked


def test_page_classes_are_visible_and_follow_each_transition() -> None:
    memory, cache, disk = dirty_memory()
    classes: Callable[[], tuple[int, int]] = lambda: (  # noqa: E731
        memory.zone.stats().clean_pages, memory.zone.stats().dirty_pages,
    )  # fmt: skip
    cache["clean"] = 3 * PAGE
    put_dirty(cache, "dirty", PAGE + 1)
    assert classes() == (3, 2)
    cache.flush()
    assert classes() == (5, 0) and disk.written == [("dirty", PAGE + 1)]
    put_dirty(cache, "dirty", 2 * PAGE)
    assert classes() == (3, 2)
    del cache["dirty"]
    assert classes() == (3, 0)
    assert memory.zone.stats().swap_due is (3 < PAGES // 20)
    cache.check_invariants()


def test_dirty_data_is_not_dropped_without_io_and_clean_goes_first() -> None:
    memory, cache, disk = dirty_memory()
    for key in range(12):
        put_dirty(cache, ("d", key), PAGE)
    for key in range(12):
        cache["c", key] = PAGE
    assert THREADS.run(memory.path.reclaim.direct(Gfp.NOIO, 0, "a", 100)) == 12
    assert len(cache) == 12 and not disk.written and memory.zone.stats().dirty_pages == 12
    assert THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 100)) == 12
    assert [key for key, _ in disk.written] == [("d", key) for key in range(12)], "oldest first"
    assert len(cache) == 0


def test_who_dirties_too_much_writes_himself() -> None:
    memory, cache, disk = dirty_memory()
    for key in range(60):
        put_dirty(cache, key, PAGE)
        assert memory.zone.stats().dirty_pages <= PAGES // 5
    assert [key for key, _ in disk.written] == list(range(60 - PAGES // 5))
    cache.check_invariants()


def test_a_cache_that_cannot_write_uses_up_its_own_part_of_the_limit() -> None:
    memory, fast, disk = dirty_memory()
    broken = Disk()
    slow = cached(memory, write_back=broken, name="slow")
    page = memory.zone.page_bytes
    limit = memory.path.dirty.whole.limit
    for key in range(3 * PAGES):
        put_dirty(fast, key, PAGE)  # it has shown what it can do
    broken.fails = True
    with pytest.raises(OSError, match="disk full"):
        for key in range(PAGES):
            put_dirty(slow, key, PAGE)
    part = slow._dirtied.device.part
    assert part < limit // 4 and slow.stats().dirty <= part + page, (
        "who is over his part must write"
    )
    before = len(disk.written)
    for key in range(PAGES):
        put_dirty(fast, key, PAGE)
    assert fast.stats().dirty > limit // 2 and len(disk.written) > before
    assert memory.zone.stats().dirty_pages <= PAGES // 5 + 1
    for cache in (fast, slow):
        cache.check_invariants()
    broken.fails = False
    slow.close()
    assert fast._dirtied.device.part == limit, "all is the other's now"


def test_a_group_has_limits_of_its_own() -> None:
    memory, one, disk = dirty_memory()
    group = memory.path.dirty.group("tenant", 4 * PAGE)
    tenants = [cached(memory, write_back=disk, name=f"t{n}", group=group) for n in range(2)]
    for key in range(12):
        for cache in tenants:
            put_dirty(cache, key, PAGE)
            assert group.dirty <= 4 * PAGE == group.limit
    put_dirty(one, "other", 9 * PAGE)
    assert one.stats().dirty == 9 * PAGE, "it is no business of theirs"
    del tenants[0][11]
    for cache in tenants:
        cache.close()
    assert group.dirty == 0 and memory.path.dirty.whole.dirty == 9 * PAGE
    assert [device.name for device in memory.path.dirty.devices] == ["c"]


def test_what_is_dropped_unwritten_is_no_speed_of_a_device() -> None:
    _memory, cache, _disk = dirty_memory()
    put_dirty(cache, "a", PAGE)
    put_dirty(cache, "a", PAGE)
    del cache["a"]
    assert cache._dirtied.device is not None
    assert (cache._dirtied.device.dirty, cache._dirtied.device.cleaned_bytes) == (0, 0)
    put_dirty(cache, "a", PAGE)
    cache.flush()
    assert cache._dirtied.device.cleaned_bytes == PAGE


def test_what_is_dirty_and_not_kept_is_written_now() -> None:
    memory, cache, disk = dirty_memory()
    memory.fill(leave=LOW)
    assert put_dirty(cache, "a", PAGE).result is False
    assert disk.written == [("a", PAGE)] and memory.zone.stats().dirty_pages == 0


def test_a_value_is_kept_if_nobody_can_be_started_to_write_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _memory, cache, disk = dirty_memory()
    asked = step(cache.put_plan("a", PAGE, True, 0, "a"))
    assert isinstance(asked.request, Spawn)
    asked.throw(RuntimeError("can't start new thread"))
    assert asked.done and asked.result is True and cache["a"] == PAGE
    assert "can't start new thread" in caplog.text
    put_dirty(cache, "b", PAGE)  # which starts one
    cache.flush()
    assert disk.written == [("a", PAGE), ("b", PAGE)]


def test_reclaim_of_a_zone_waits_for_anothers_write_but_not_for_ever() -> None:
    """It may be waiting for this very page; and a zone whose disk is slow is not out of memory at once."""
    memory, cache, _disk = dirty_memory()
    put_dirty(cache, "a", PAGE)
    flush = step(cache.flush_plan(0))
    asked, waits = step(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 1)), 0
    while not asked.done:
        if isinstance(asked.request, Park):
            assert asked.request.timeout_s == RETRY_S
            waits += 1
            asked.answer(False)
        else:
            asked.effect()
    assert 1 <= waits <= 13 and asked.result == 0, "at most once in each round"
    asked = step(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 1))
    asked.to_park()
    flush.finish()
    assert asked.finish() == 1


def test_a_failed_write_keeps_the_data_and_close_says_so(caplog: pytest.LogCaptureFixture) -> None:
    memory, cache, disk = dirty_memory()
    put_dirty(cache, "a", PAGE)
    disk.fails = True
    assert THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 1)) == 0
    assert "disk full" in caplog.text and cache["a"] == PAGE
    with pytest.raises(OSError, match="disk full"):
        cache.close()
    assert not cache.closed and cache.stats().write_errors and memory.zone.stats().dirty_pages == 1
    disk.fails = False
    cache.close()
    assert disk.written == [("a", PAGE)]


def test_dirty_without_a_way_to_write_is_refused() -> None:
    with pytest.raises(UsageError, match="write_back="):
        cached(Memory()).put("a", 1, dirty=True)


def test_t8_4_dirty_data_is_written_after_thirty_seconds_by_a_plan_that_then_ends() -> None:
    simulator = Simulator(lambda options: 0)
    memory, disk = Memory(simulator), Disk()
    cache = cached(memory, simulator, write_back=disk)
    written_s: list[float] = []
    cache._dirtied._write = lambda key, value: written_s.append(simulator.clock_s)

    def user() -> Plan[float]:
        yield from cache.put_plan("a", PAGE, True, 0, "a")
        return (yield from now())

    task = simulator.start(user(), "user")
    assert simulator.go() == []
    simulator.check_ended()
    assert task.result == 0.0 and written_s == [EXPIRE_S]
    assert not cache._dirtied.running and memory.zone.stats().dirty_pages == 0


@pytest.mark.parametrize("seed", range(30))
def test_in_every_order_the_last_value_written_is_the_last_one_put(seed: int) -> None:
    """Writers of three keys, a reclaimer, failing writes: nothing lost, nothing stale, no overlap."""
    chance = random.Random(seed)

    def choose(options: Sequence[Option]) -> int:
        return chance.randrange(len(options))

    def may_fail(request: Any) -> Failure | None:
        if isinstance(request, Offload) and chance.random() < 0.2:
            return Failure(error=OSError("flaky"))
        return None

    simulator = Simulator(choose, fine=True, expires=True, may_fail=may_fail)
    memory = Memory(simulator)
    stored: dict[Any, Any] = {}
    cache = cached(memory, simulator, write_back=stored.__setitem__, cost=lambda value: PAGE)
    latest: dict[Any, Any] = {}

    def writer(key: int) -> Plan[None]:
        for number in range(30):
            latest[key] = number
            try:
                yield from cache.put_plan(key, number, True, 0, f"writer {key}")
            except OSError:
                pass  # the caller was told
            if chance.random() < 0.2:
                yield from cache.put_plan((key, number), number, True, 0, "x")

    def reclaimer() -> Plan[None]:
        for _ in range(10):
            yield from memory.path.reclaim.direct(Gfp.KERNEL, 0, "r", 3)
            yield from call(cache.check_invariants)

    for key in range(3):
        simulator.start(writer(key), f"writer {key}")
    simulator.start(reclaimer(), "reclaimer")
    simulator.go(300_000)
    for task in simulator.tasks:
        assert task.failure is None or isinstance(task.failure, OSError)
    simulator._may_fail = None
    simulator.start(cache._dirtied.write_all(0), "flush")
    assert simulator.go(300_000) == []
    assert {key: stored[key] for key in range(3)} == latest
    assert not cache._dirtied._writing and not cache._dirtied.running
    cache.check_invariants()
    memory.zone.check_invariants()
