"""The slow path of a mempool, request by request: what is asked, in which order, with which flags."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.ladder import RETRY_S, Ladder, Wake
from headway.core.plan import Call, Now, Offload, Park
from headway.threaded import Mempool
from tests.core.mm.pools import Shelf, alloc, parked, shut_pool

LIGHT = Gfp.NOMEMALLOC | Gfp.NORETRY | Gfp.NOWARN | Gfp.KSWAPD_RECLAIM
HEAVY = LIGHT | Gfp.DIRECT_RECLAIM | Gfp.IO | Gfp.FS


@pytest.mark.parametrize(
    ("ladder", "reserve", "asked"),
    [
        (Ladder.HALF_FULL, 2, ["light"]),  # half of 4 is enough
        (Ladder.HALF_FULL, 1, ["light", "heavy"]),
        (Ladder.LINUX_2_5, 3, ["light"]),
        (Ladder.LINUX_2_5, 2, ["light", "heavy"]),  # more than half is asked for
        (Ladder.RESERVE_FIRST, 1, ["light"]),
    ],
)
def test_t1_1_and_t1_2_order_of_levels(ladder: Ladder, reserve: int, asked: list[str]) -> None:
    pool, shelf = shut_pool(4, ladder=ladder)
    out = [pool.alloc_preallocated() for _ in range(4 - reserve)]
    taken = alloc(pool).finish()
    assert [who for who, _ in shelf.asked] == asked
    assert taken is not None and pool.reserve_count == reserve - 1
    assert len(out) == pool.outstanding - 1


def test_t1_1_flags_of_each_round() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = alloc(pool)
    assert a.request == Call(shelf.light, (LIGHT,), 0)
    a.effect()
    assert isinstance(a.request, Offload) and a.request.args == (HEAVY,)
    a.effect()
    assert isinstance(a.request, Now)
    assert isinstance(a.answer(0.0), Park)
    pool.kick()
    a.answer(True)  # a later round asks with the full mask, and lightly again in this ladder
    assert isinstance(a.request, Call)
    a.effect()
    a.effect()
    assert shelf.asked == [("light", LIGHT), ("heavy", HEAVY)] * 2


def test_t1_1_later_rounds_of_todays_kernel_skip_the_light_try() -> None:
    pool, shelf = shut_pool(1, ladder=Ladder.RESERVE_FIRST)
    pool.alloc_preallocated()
    a = parked(pool)
    pool.kick()
    a.answer(True)
    a.effect()
    assert [door for door, _ in shelf.asked] == ["light", "heavy", "heavy"]


@pytest.mark.parametrize(
    ("scope", "gone"),
    [
        (Scope.NOFS, Gfp.FS),
        (Scope.NOIO, Gfp.FS | Gfp.IO),
        (Scope.NORECLAIM, Gfp.DIRECT_RECLAIM),
    ],
)
def test_t1_1_the_heavy_mask_honours_the_scope(scope: Scope, gone: Gfp) -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = alloc(pool, scope=scope)
    a.effect()
    assert isinstance(a.request, Offload) and a.request.scope == scope
    a.effect()
    assert shelf.asked[-1] == ("heavy", HEAVY & ~gone)
    a.to_park()  # also under NORECLAIM: parking is not reclaim


def test_t1_3_atomic_gets_the_reserve_before_none() -> None:
    pool, shelf = shut_pool(2)
    assert pool.alloc(Gfp.ATOMIC) == "element 2"  # last in, first out
    assert pool.alloc(Gfp.ATOMIC) == "element 1"
    assert pool.alloc(Gfp.ATOMIC) is None
    light = (LIGHT & ~Gfp.RECLAIM) | Gfp.ATOMIC
    assert shelf.asked == [("light", light)] * 3  # one call each, and no wait


def test_t1_3_a_mask_that_may_not_wait_never_parks() -> None:
    pool, _ = shut_pool(1)
    pool.alloc_preallocated()
    for gfp in (Gfp.ATOMIC, Gfp.NOWAIT):
        a = alloc(pool, gfp=gfp)
        assert isinstance(a.request, Call)
        a.effect()
        assert a.done and a.result is None


def test_t2_4_noretry_tries_once_and_does_not_park() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = alloc(pool, gfp=Gfp.KERNEL | Gfp.NORETRY)
    a.effect()
    a.effect()
    assert a.done and a.result is None
    assert [door for door, _ in shelf.asked] == ["light", "heavy"]


def test_t1_4_unplug_comes_before_join_before_park() -> None:
    seen: list[tuple[int, bool]] = []
    pool, _ = shut_pool(1, unplug=lambda: seen.append((pool.waiters, bool(pool._gate & 1))))
    held = pool.alloc_preallocated()
    a = alloc(pool)
    a.effect()
    a.effect()
    a.answer(0.0)
    assert isinstance(a.request, Call) and a.request.effect is pool.unplug and pool.waiters == 0
    a.effect()
    assert isinstance(a.request, Park) and pool.waiters == 1 and seen == [(0, False)]
    pool.free(held)
    assert a.finish() == [held]


def test_t1_4_what_unplug_brings_back_is_not_slept_on() -> None:
    pool, _ = shut_pool(1)
    held = pool.alloc_preallocated()
    pool.unplug = lambda: pool.free(held)
    a = parked(pool)
    assert isinstance(a.request, Park) and a.request.ticket.woken
    assert a.finish() == [held]


def test_t1_5_the_fast_path_takes_no_guard() -> None:
    class Counting:
        def __init__(self, guard: Any) -> None:
            self.guard = guard
            self.taken = 0

        def acquire(self, blocking: bool = True) -> bool:
            self.taken += 1
            return bool(self.guard.acquire(blocking))

        def release(self) -> None:
            self.guard.release()

        __enter__ = acquire

        def __exit__(self, *exc: object) -> None:
            self.release()

    for pool in (Mempool.of("ab"), Mempool(Shelf(), min_count=1)):
        if pool.runtime.locked:
            pytest.skip("a free-threaded build has no fast path")
        guard: Any = Counting(pool._guard)
        pool._guard = guard
        for _ in range(3):
            pool.free(pool.alloc())
        assert guard.taken == 0
        pool.kick()
        assert guard.taken > 0  # it can count


def test_t1_6_any_element_refills_the_reserve() -> None:
    shelf = Shelf()
    pool: Mempool[str] = Mempool(shelf, min_count=1)
    from_backend = pool.alloc()
    from_reserve = pool.alloc_preallocated()
    assert (from_backend, from_reserve, pool.reserve_count) == ("element 2", "element 1", 0)
    pool.free(from_backend)
    assert pool.reserve_count == 1 and shelf.out == 2
    assert from_reserve is not None
    pool.free(from_reserve)  # the reserve is full: this one goes to the backend
    assert pool.reserve_count == 1 and shelf.out == 1


def test_t1_7_a_free_hands_its_element_to_the_waiter() -> None:
    pool, _ = shut_pool(1)
    held = pool.alloc_preallocated()
    a = parked(pool)
    assert isinstance(a.request, Park)
    pool.free(held)
    assert a.request.ticket.gift == [held] and pool.reserve_count == 0
    assert pool.try_alloc() is None  # it is not raced for
    assert a.finish() == [held]


@pytest.mark.parametrize("wake", [Wake.EXCLUSIVE, Wake.WAKE_ALL])
def test_t1_7_the_timed_retry_asks_the_recovered_allocator(wake: Wake) -> None:
    pool, shelf = shut_pool(1, wake=wake)
    pool.alloc_preallocated()
    a = parked(pool)
    assert isinstance(a.request, Park) and a.request.timeout_s == RETRY_S
    shelf.room = None
    a.answer(False)  # five seconds are over
    assert a.finish() == ["element 2"] and pool.waiters == 0
    pool.check_invariants()


def test_t1_7_a_kick_asks_the_recovered_allocator_one_waiter_after_the_other() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a, b, c = (parked(pool, who) for who in "abc")
    shelf.room = shelf.out + 2
    pool.kick()
    assert [ticket.woken for ticket in pool._queue] == [True, False, False]
    assert a.finish() == ["element 2"]
    assert b.finish() == ["element 3"]
    assert isinstance(c.request, Park) and c.request.ticket.woken
    c.answer(True)
    assert c.to_park() is not None and not c.request.ticket.woken  # its turn brought nothing
    pool.check_invariants()


def test_t1_8_fifo() -> None:
    pool = Mempool.of("x")
    pool.alloc()
    waiting = [parked(pool, who) for who in "abc"]
    for _ in range(3):
        pool.free("x")
        (served,) = [w for w in waiting if w.request is not None and w.request.ticket.woken]
        assert served is waiting.pop(0)
        assert served.finish() == ["x"]


def test_t1_8_exclusive_wakes_one_and_a_newcomer_may_barge() -> None:
    pool = Mempool.of("x", wake=Wake.EXCLUSIVE)
    pool.alloc()
    a, b = parked(pool, "a"), parked(pool, "b")
    pool.free("x")
    assert [s.request.ticket.woken for s in (a, b)] == [True, False]  # type: ignore[union-attr]
    assert pool.alloc() == "x"  # barged in front of both
    a.answer(True)
    a.to_park()
    pool.free("x")
    assert b.finish() == ["x"]  # the one that failed stands behind now
    pool.check_invariants()


def test_t1_8_wake_all_wakes_everybody() -> None:
    pool = Mempool.of("x", wake=Wake.WAKE_ALL)
    pool.alloc()
    a, b = parked(pool, "a"), parked(pool, "b")
    pool.free("x")
    assert b.finish() == ["x"]
    a.answer(True)
    a.to_park()
    pool.free("x")
    assert a.finish() == ["x"]


@pytest.mark.parametrize("wake", [Wake.EXCLUSIVE, Wake.WAKE_ALL])
def test_a_bulk_that_is_woken_for_too_little_does_not_spin(wake: Wake) -> None:
    pool = Mempool.of("xyz", wake=wake)
    held = pool.alloc_bulk(3)
    a = parked(pool, "a", 3)
    pool.free(held.pop())
    a.answer(True)
    assert not a.to_park().woken
    pool.free_bulk(held)
    assert sorted(a.finish()) == ["x", "y", "z"]
