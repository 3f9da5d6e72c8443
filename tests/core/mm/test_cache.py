"""A cache that gives way: a mapping, never over what is charged, never stale."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.gfp import Gfp, Scope
from headway.errors import PoolClosed, UsageError
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import LOW, PAGE, PAGES, Memory, cached
from tests.steps import step


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
