"""How a pool and a request end badly: errors, closing, misuse; everything still comes home."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.gfp import Gfp
from headway.errors import NoMemory, PoolBusy, PoolClosed, UsageError
from headway.threaded import Mempool
from tests.core.mm.pools import Shelf, parked, shut_pool
from tests.steps import step


def test_alloc_preallocated_asks_nobody_and_never_waits() -> None:
    pool, shelf = shut_pool(1)
    assert pool.alloc_preallocated() == "element 1" and pool.alloc_preallocated() is None
    assert shelf.asked == []
    pool.free("element 1")
    with pytest.raises(PoolBusy):
        pool.alloc_preallocated()
        pool.close()
    with pytest.raises(PoolClosed):
        pool.alloc_preallocated()


def test_an_allocator_that_raises_is_heard_after_the_reserve() -> None:
    pool, shelf = shut_pool(1, name="odd")
    shelf.error = RuntimeError("disk on fire")
    assert pool.alloc() == "element 1"
    with pytest.raises(RuntimeError, match="disk on fire") as caught:
        pool.alloc()
    assert caught.value.__notes__ == [
        "pool 'odd': the allocator raised this and the reserve has 0 of 1, 1 out"
    ]
    pool.free("element 1")
    assert pool.outstanding == 0


def test_an_allocator_that_raises_in_a_later_round_leaves_the_queue() -> None:
    pool, shelf = shut_pool(1)
    held = pool.alloc_preallocated()
    a, b = parked(pool, "a"), parked(pool, "b")
    shelf.error = OSError("gone")
    pool.kick()
    with pytest.raises(OSError, match="gone"):
        a.finish()
    assert b.request.ticket.woken  # type: ignore[union-attr]
    pool.free(held)
    assert b.finish() == [held]


def test_filling_the_reserve_is_all_or_nothing() -> None:
    shelf = Shelf(room=2)
    with pytest.raises(NoMemory, match=r"3 elements were asked for .* gave 2"):
        Mempool(shelf, min_count=3)
    assert shelf.out == 0


def test_closing_wakes_who_waits() -> None:
    pool, shelf = shut_pool(1, name="p", trace=True)
    held = pool.alloc_preallocated()
    a = parked(pool)
    with pytest.raises(
        PoolBusy, match="'p': closed with 1 elements out; held by MainThread"
    ) as busy:
        pool.close()
    assert busy.value.count == 1 and len(busy.value.holders) == 1
    with pytest.raises(PoolClosed):
        a.finish()
    pool.free(held)  # later frees go to the backend
    assert shelf.out == 0
    pool.close()  # again: nothing to do


def test_t1_13_closing_with_elements_out_says_so_and_how_to_know_more() -> None:
    pool = Mempool.of("xy", name="p")
    pool.alloc()
    with pytest.raises(PoolBusy, match=r"1 elements out; .* trace=True or set HEADWAY_TRACE=1"):
        pool.close()
    with pytest.raises(ZeroDivisionError), Mempool.of("x") as other:  # never hides the first error
        other.alloc()
        raise ZeroDivisionError


def test_what_is_given_back_while_closing_goes_home() -> None:
    pool, shelf = shut_pool(1)
    held = pool.alloc_preallocated()
    assert held is not None
    with pytest.raises(PoolBusy):
        pool.close()
    pool._reserve.append(held)  # as `free` does that read the gate before
    pool._settle()
    assert shelf.out == 0 and pool.reserve_count == 0


def test_a_closed_pool_is_not_resized() -> None:
    pool, _ = shut_pool(1)
    pool.close()
    with pytest.raises(PoolClosed):
        pool.resize(3)
    with pytest.raises(UsageError, match="fixed set"):
        Mempool.of("x").resize(2)


def test_light_of_a_closed_pool_gives_nothing_and_the_outer_reserve_still_serves() -> None:
    inner = Mempool.of("abc")
    outer: Mempool[Any] = Mempool(inner, min_count=1)
    with pytest.raises(PoolBusy):
        inner.close()
    assert outer.alloc() == "c"
    with pytest.raises(PoolClosed):
        outer.alloc()


def test_a_mask_and_a_time_limit_are_checked() -> None:
    pool = Mempool.of("x")
    pool.alloc()
    with pytest.raises(UsageError, match="timeout_s is -1"):
        pool.alloc(timeout_s=-1)
    with pytest.raises(UsageError, match="NOFAIL with timeout_s"):
        pool.alloc(Gfp.KERNEL | Gfp.NOFAIL, 1.0)
    with pytest.raises(UsageError, match="2 elements were asked for at once; it has 1"):
        pool.alloc_bulk(2)
    with pytest.raises(UsageError, match="-1 elements"):
        pool.alloc_bulk(-1)
    assert pool.alloc_bulk(0) == [] and pool.alloc_plan(Gfp.KERNEL, 0, "a", 1, 0.0) is not None
    assert step(pool.alloc_plan(Gfp.KERNEL, 0, "a", 1, 0.0)).to_park() is not None
