"""A cache that gives way: never over what is charged, never stale, dirty data never dropped."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.dirtied import EXPIRE_S
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.sieve import Entry, Sieve
from headway.core.plan import Offload, Plan, Runtime, call, now
from headway.errors import PoolClosed, UsageError
from headway.runtimes.simulator import Failure, Option, Simulator
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import LOW, PAGES, Memory
from tests.steps import step

PAGE = 4096


def cached(memory: Memory, runtime: Runtime = THREADS, **options: Any) -> ShrinkableCache[Any, Any]:
    """Values cost what they are: integers are sizes."""
    settings: dict[str, Any] = {
        "cost": lambda value: value if isinstance(value, int) else len(value),
        "name": "c", "seeks": 2, "max_bytes": None, "write_back": None,
    }  # fmt: skip
    return ShrinkableCache(memory.path, runtime=runtime, **(settings | options))


# -- which goes next -------------------------------------------------------------------------------


def sieved(uses: Sequence[int], room: int) -> tuple[int, Sieve[int, None]]:
    sieve: Sieve[int, None] = Sieve()
    entries: dict[int, Entry[int, None]] = {}
    hits = 0
    for key in uses:
        if key in entries:
            hits += 1
            entries[key].used = True
            continue
        while len(entries) >= room:
            entry = sieve.look()
            assert entry is not None
            if entry.used:
                entry.used = False
            else:
                sieve.remove(entry)
                del entries[entry.key]
        entries[key] = Entry(key, None, 1)
        sieve.add(entries[key])
    return hits, sieve


def modelled(uses: Sequence[int], room: int) -> int:
    """SIEVE in ten lines, on a plain list: oldest first, and a hand."""
    queue: list[list[int]] = []
    hand = hits = 0
    for key in uses:
        found = [item for item in queue if item[0] == key]
        if found:
            hits += 1
            found[0][1] = 1
            continue
        while len(queue) >= room:
            if queue[hand][1]:
                queue[hand][1] = 0
                hand += 1
            else:
                del queue[hand]
            hand = hand if hand < len(queue) else 0  # from the youngest back to the oldest
        queue.append([key, 0])
    return hits


@given(uses=st.lists(st.integers(0, 12), max_size=200), room=st.integers(1, 8))
def test_sieve_against_its_definition(uses: list[int], room: int) -> None:
    hits, sieve = sieved(uses, room)
    sieve.check_invariants()
    assert hits == modelled(uses, room)


@pytest.mark.parametrize("skew", [0.7, 0.9, 1.1])
def test_sieve_hits_more_often_than_least_recently_used_under_zipf(skew: float) -> None:
    chance = random.Random(1)
    weights = [1 / rank**skew for rank in range(1, 3001)]
    uses = chance.choices(range(3000), weights, k=30_000)
    hits, lru = 0, OrderedDict[int, None]()
    for key in uses:
        hits += key in lru
        lru[key] = None
        lru.move_to_end(key)
        if len(lru) > 1000:
            lru.popitem(last=False)
    assert sieved(uses, 1000)[0] > hits


# -- the mapping -----------------------------------------------------------------------------------


def test_it_is_a_mapping() -> None:
    memory = Memory()
    cache = cached(memory)
    cache["a"], cache["b"] = b"1", b"22"
    assert (cache["a"], cache.get("b"), cache.get("c"), cache.get("c", 7)) == (b"1", b"22", None, 7)
    assert "a" in cache and "c" not in cache and sorted(cache) == ["a", "b"] and len(cache) == 2
    assert cache.setdefault("a", b"9") == b"1" and cache.setdefault("d", b"4") == b"4"
    assert cache.pop("d") == b"4" and cache.pop("d", None) is None
    cache["a"] = b"333"
    assert dict(cache.items()) == {"a": b"333", "b": b"22"}
    with pytest.raises(KeyError):
        cache["c"]
    with pytest.raises(KeyError):
        del cache["c"]
    with pytest.raises(KeyError):
        cache.pop("c")
    assert cache.used == 5 and memory.zone.stats().clean_pages == 1
    del cache["a"], cache["b"]
    assert cache.used == 0 == memory.zone.stats().clean_pages
    cache.check_invariants()


def test_it_fills_the_zone_to_low_and_then_drops_what_is_idle() -> None:
    memory = Memory()
    cache = cached(memory)
    for number in range(PAGES):
        cache[0], cache[1] = cache.get(0, 100), cache.get(1, 100)
        cache.put(("n", number), PAGE)
        assert memory.zone.room() >= LOW
    assert cache.evicted and cache.refused == 0
    assert cache.stats().charged > (PAGES - LOW - 40) * PAGE, "and not much more than it had to"
    memory.zone.check_invariants()
    cache.check_invariants()


def test_what_was_used_since_the_hand_came_by_is_spared() -> None:
    memory = Memory()
    cache = cached(memory)
    for key in range(10):
        cache[key] = PAGE
    for key in range(0, 10, 2):
        assert cache[key]
    assert THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 5)) >= 5
    assert set(cache) <= {0, 2, 4, 6, 8}


def test_a_busy_cache_gives_less_than_an_idle_one() -> None:
    memory = Memory()
    busy, idle = cached(memory, name="busy"), cached(memory, name="idle")
    for key in range(50):
        busy[key] = idle[key] = PAGE
    for _ in range(4):
        for key in range(50):
            busy.get(key)
        THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 5))
    assert len(idle) < 30 and len(busy) > 40


def test_what_has_no_room_is_not_kept_and_an_older_value_is_not_served() -> None:
    memory = Memory()
    cache = cached(memory)
    cache["a"] = 10
    memory.fill(leave=LOW)
    assert not cache.put("a", 2 * PAGE)
    assert "a" not in cache and cache.refused == 1
    memory.release(20)
    assert not cache.put("huge", PAGES * PAGE) and cache.put("small", PAGE)
    cache.check_invariants()


def test_a_limit_of_its_own() -> None:
    cache = cached(Memory(), max_bytes=1000)
    for key in range(50):
        assert cache.put(key, 90)
        assert cache.used <= 1000
    assert not cache.put("large", 1001) and len(cache) == 11 and cache.evicted == 39
    cache.check_invariants()


@pytest.mark.parametrize("cost", [-1, 1.5, None, "5"])
def test_a_cost_that_is_none(cost: Any) -> None:
    cache = cached(Memory(), cost=lambda value: cost)
    with pytest.raises(UsageError, match="'c': the cost of int is"):
        cache["a"] = 1


def test_objects_that_cost_nothing_do_not_keep_the_hand_busy() -> None:
    memory = Memory()
    cache = cached(memory)
    for key in range(1000):
        cache[key] = 0
    cache["x"] = PAGE
    freed = [THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 1)) for _ in range(16)]
    assert sum(freed) == 1


def test_inside_reclaim_nothing_is_dropped_to_keep_something_else() -> None:
    memory = Memory()
    cache = cached(memory)
    for key in range(200):
        cache[key] = PAGE
    evicted = cache.evicted
    asked = step(cache.put_plan("new", 40 * PAGE, False, int(Scope.NORECLAIM), "a"))
    assert asked.done and asked.result is False and cache.evicted == evicted


def test_a_finaliser_may_use_the_cache() -> None:
    memory = Memory()
    cache = cached(memory, cost=lambda value: PAGE)

    class Dies:
        def __del__(self) -> None:
            cache.pop("other", None)
            cache["last words"] = 1

    cache["other"], cache["dies"] = 1, Dies()
    del cache["dies"]
    assert set(cache) == {"last words"}
    cache["dies"] = Dies()
    THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a", 3))
    cache["dies"] = Dies()
    cache.clear()
    cache.check_invariants()


def test_close_leaves_nothing_charged() -> None:
    memory = Memory()
    cache = cached(memory)
    cache["a"] = PAGE
    cache.close()
    cache.close()
    assert memory.zone.stats().clean_pages == 0 == len(memory.path.reclaim.shrinkers)
    assert not memory.zone._charges and len(cache) == 0
    with pytest.raises(PoolClosed):
        cache["a"] = 1


# -- dirty -----------------------------------------------------------------------------------------


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


def test_what_is_dirty_and_not_kept_is_written_now() -> None:
    memory, cache, disk = dirty_memory()
    memory.fill(leave=LOW)
    assert put_dirty(cache, "a", PAGE).result is False
    assert disk.written == [("a", PAGE)] and memory.zone.stats().dirty_pages == 0


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
