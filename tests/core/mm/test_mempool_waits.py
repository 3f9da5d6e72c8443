"""Waiting: a wake-up, a gift or a kick that is not used goes on; cancellation and time limits lose nothing."""

from __future__ import annotations

import pytest

from headway.core.mm.ladder import Wake
from headway.core.plan import Now, Offload, Park
from headway.errors import PoolTimeout
from headway.threaded import Mempool
from tests.core.mm.pools import alloc, parked, shut_pool


class Cancelled(BaseException):
    """What a driver throws into a plan that was cancelled."""


@pytest.mark.parametrize("wake", list(Wake))
def test_an_unused_wake_up_is_handed_on(wake: Wake) -> None:
    pool = Mempool.of("x", wake=wake)
    pool.alloc()
    a, b = parked(pool, "a"), parked(pool, "b")
    pool.free("x")
    with pytest.raises(Cancelled):
        a.throw(Cancelled())
    assert b.finish() == ["x"] and pool.waiters == 0


def test_an_unused_kick_is_handed_on() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a, b = parked(pool, "a"), parked(pool, "b")
    shelf.room = None
    pool.kick()
    with pytest.raises(Cancelled):
        a.throw(Cancelled())
    assert b.finish() == ["element 2"]


def test_a_kick_while_the_kicked_one_asks_is_not_lost() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = parked(pool)
    pool.kick()
    a.answer(True)
    a.effect()  # the light try, in vain
    assert isinstance(a.request, Offload)
    a.plan, request = a.plan, a.request
    shelf.room = None
    pool.kick()  # recovered, after the allocator had been asked
    assert request.effect == shelf.alloc
    a.answer(None)
    assert a.finish() == ["element 2"]


def test_a_kick_between_the_heavy_try_and_the_wait_is_not_lost() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = alloc(pool)
    a.effect()
    a.effect()
    assert isinstance(a.request, Now) and pool.waiters == 0
    shelf.room = None
    pool.kick()
    a.answer(0.0)
    assert not isinstance(a.request, Park) and a.finish() == ["element 2"]


def test_an_element_given_while_the_kicked_one_asks_goes_back_if_both_are_had() -> None:
    pool, shelf = shut_pool(1)
    held = pool.alloc_preallocated()
    a = parked(pool)
    pool.kick()
    a.answer(True)
    pool.free(held)  # handed to `a`, which is asking the allocator
    shelf.room = None
    assert a.finish() == ["element 2"]
    assert pool.reserve_count == 1 and pool.waiters == 0


def test_a_bulk_larger_than_the_reserve_keeps_no_surplus() -> None:
    pool, shelf = shut_pool(1)
    shelf.room = shelf.out + 2
    others = [pool.alloc(), pool.alloc(), pool.alloc()]
    a = parked(pool, "a", 3)
    shelf.room += 1
    pool.kick()
    a.answer(True)
    a.effect()  # the light try gives one
    pool.free_bulk(others)  # and three are handed over
    shelf.shut()
    assert len(a.finish()) == 3
    pool.free_bulk(a.result)
    assert pool.outstanding == 0 and shelf.out == pool.reserve_count == 1


@pytest.mark.parametrize("at", range(6))
def test_cancelled_at_any_request_it_hands_on(at: int) -> None:
    pool, _ = shut_pool(2, unplug=lambda: None)
    held = pool.alloc_bulk(2)
    a = alloc(pool, "a", 2)
    for _ in range(at):
        if isinstance(a.request, Park):
            pool.free_bulk(held)  # given, and then cancelled
            break
        a.answer(0.0) if isinstance(a.request, Now) else a.effect()
    assert a.request is not None
    with pytest.raises(Cancelled):
        a.throw(Cancelled())
    if pool.reserve_count == 0:
        pool.free_bulk(held)
    assert (pool.reserve_count, pool.outstanding, pool.waiters) == (2, 0, 0)
    pool.check_invariants()


def test_cancelled_in_the_heavy_try_undo_gets_the_late_result() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a = alloc(pool)
    a.effect()
    assert isinstance(a.request, Offload)
    request, late = a.request, "late"
    shelf.out += 1
    with pytest.raises(Cancelled):
        a.throw(Cancelled())
    b = parked(pool, "b")
    assert request.undo is not None
    request.undo(late)
    request.undo(None)  # nothing came
    assert b.finish() == [late]


def test_a_timeout_that_lost_against_a_gift_keeps_it() -> None:
    pool = Mempool.of("x")
    pool.alloc()
    a = parked(pool, timeout_s=1.0)
    assert isinstance(a.request, Park) and a.request.timeout_s == 1.0
    pool.free("x")
    a.answer(False)  # the time was over just before the wake-up
    assert a.done and a.result == ["x"]


def test_a_timeout_says_how_long_how_many_and_who() -> None:
    pool = Mempool.of("x", name="slots", trace=True)
    pool.alloc()
    a = parked(pool, timeout_s=1.5)
    with pytest.raises(PoolTimeout, match=r"'slots': waited .* s for 1 of 1") as caught:
        a.answer(False)
        a.answer(1.5)
    (holding,) = caught.value.holders
    assert holding.owner == "MainThread" and "test_mempool_waits" in holding.where[0]  # type: ignore[attr-defined]
    assert caught.value.pool == "slots" and pool.stats().timeouts == 1


def test_an_element_freed_to_an_empty_handed_backend_is_seen() -> None:
    """No reserve at all: between the heavy try and the wait the only element goes to the backend."""
    pool, shelf = shut_pool(0)
    shelf.room = 1
    held = pool.alloc()
    a = alloc(pool)
    a.effect()
    a.effect()  # both in vain
    pool.free(held)
    assert shelf.out == 0 or pool.reserve_count
    a.answer(0.0)
    assert a.finish() != []
    pool.free(a.result[0])
    assert shelf.out == pool.outstanding == 0


def test_min_count_0_waits_and_is_served_by_a_free() -> None:
    pool, shelf = shut_pool(0)
    shelf.room = 1
    held = pool.alloc()
    a = parked(pool)
    pool.free(held)
    assert a.finish() == [held]
    pool.free(held)
    assert (pool.reserve_count, shelf.out) == (0, 0)
