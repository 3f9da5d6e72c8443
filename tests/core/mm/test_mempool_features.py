"""The rest of what a mempool promises: bulk, resize, poison, faults, composites, stacking, owners."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.composite import Composite
from headway.core.mm.faults import FailAlloc
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.ladder import Wake
from headway.core.plan import Park
from headway.errors import GfpConflict, PoolBusy, PoolTimeout, UsageError
from headway.runtimes import scopes
from headway.runtimes.threads import Threads
from headway.threaded import Mempool
from tests.core.mm.pools import Shelf, alloc, parked, shut_pool


class Listening:
    """The runtime of threads, which keeps what it is to report."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.clock_s = 0.0

    def report(self, message: str, *, once: bool = False) -> None:
        self.said.append(message)

    def now(self) -> float:
        return self.clock_s

    def __getattr__(self, name: str) -> Any:
        return getattr(Threads(), name)


def test_t1_9_shrinking_gives_the_surplus_to_the_backend() -> None:
    shelf = Shelf()
    pool: Mempool[str] = Mempool(shelf, min_count=4)
    assert pool.resize(1) == 1 and shelf.out == 1
    with pytest.raises(UsageError, match="resized to 0"):
        pool.resize(0)


def test_t1_9_growing_without_memory_is_underfilled_and_later_frees_fill_it() -> None:
    pool, shelf = shut_pool(1)
    shelf.room = shelf.out + 1
    assert pool.resize(4) == 2 and pool.min_count == 4
    held = [pool.alloc_preallocated(), pool.alloc_preallocated()]
    shelf.room = shelf.out + 2
    held += [pool.alloc(), pool.alloc()]
    for element in held:
        assert element is not None
        pool.free(element)
    assert pool.reserve_count == 4


def test_t1_9_growing_under_use_serves_the_waiter_first() -> None:
    pool, shelf = shut_pool(1)
    pool.alloc_preallocated()
    a, b = parked(pool, "a"), parked(pool, "b")
    shelf.room = shelf.out + 1
    assert pool.resize(2) == 0
    assert a.finish() == ["element 2"] and b.request is not None
    with scopes.noio():
        pool.resize(3)
    assert shelf.asked[-1] == ("heavy", Gfp.NOIO)  # what the scope forbids is gone here too


def test_two_trims_at_once_never_eat_into_the_reserve() -> None:
    shelf = Shelf()
    pool: Mempool[str] = Mempool(shelf, min_count=2)
    pool._reserve.append(shelf.alloc(Gfp.KERNEL) or "")  # overfilled by a race on the fast path
    plain_free, nested = shelf.free, []

    def free(element: str) -> None:
        nested.append(element)
        plain_free(element)
        if len(nested) < 5:
            pool._settle()

    shelf.free = free  # type: ignore[method-assign]
    pool._settle()
    assert pool.reserve_count == 2 and len(nested) == 1


def test_t1_10_bulk_takes_all_or_nothing() -> None:
    pool, _ = shut_pool(3)
    one = pool.alloc_preallocated()
    a = parked(pool, "a", 3)
    assert pool.reserve_count == 2  # nothing of it is held while waiting
    assert one is not None
    pool.free(one)
    assert len(a.finish()) == 3


def test_t1_10_bulk_is_not_starved_by_singles() -> None:
    pool = Mempool.of("xyz")
    held = pool.alloc_bulk(3)
    a = parked(pool, "bulk", 2)
    pool.free(held.pop())
    assert pool.reserve_count == 1 and pool.try_alloc() is None  # one lies there, and is spoken for
    single = parked(pool, "single")
    pool.free(held.pop())
    assert len(a.finish()) == 2
    assert isinstance(single.request, Park) and not single.request.ticket.woken


def test_t1_10_any_fit_lets_the_small_pass() -> None:
    pool = Mempool.of("xyz", wake=Wake.ANY_FIT)
    held = pool.alloc_bulk(3)
    bulk, single = parked(pool, "bulk", 3), parked(pool, "single")
    pool.free(held.pop())
    assert len(single.finish()) == 1
    assert pool.waiters == 1
    pool.free_bulk(held + single.result)
    assert len(bulk.finish()) == 3
    pool.check_invariants()


def test_t1_10_more_than_the_reserve_warns_once() -> None:
    listening = Listening()
    pool: Mempool[str] = Mempool(Shelf(), min_count=2, runtime=listening)
    pool.free_bulk(pool.alloc_bulk(3))
    assert len(listening.said) == 1 and "more than its reserve of 2" in listening.said[0]


def test_t1_11_poison_names_the_offset_and_delivers() -> None:
    listening = Listening()
    buffer = bytearray(32)
    pool = Mempool.of([buffer], poison=True, runtime=listening)
    assert pool.alloc() is buffer and listening.said == []  # marked free from the beginning
    assert buffer == b"\x5a" * 32
    pool.free(buffer)
    assert buffer == b"\x6b" * 31 + b"\xa5"
    buffer[20] = 7
    assert pool.alloc() is buffer
    assert "written after free at offset 20 of 32 bytes: 6b" in listening.said[0]
    assert pool.stats().poison_hits == 1


def test_t1_11_poison_is_looked_for_only_in_what_comes_from_the_reserve() -> None:
    listening = Listening()
    pool: Mempool[bytearray] = Mempool(
        alloc=lambda gfp: bytearray(8), min_count=1, poison=True, runtime=listening
    )
    held = [pool.alloc() for _ in range(3)]
    pool.free_bulk(held)
    assert pool.alloc_preallocated() is not None
    assert listening.said == [] and pool.stats().poison_hits == 0


def test_t1_11_poison_is_looked_for_in_what_is_handed_over() -> None:
    listening = Listening()
    pool = Mempool.of([bytearray(4)], poison=True, runtime=listening)
    held = pool.alloc()
    a = parked(pool)
    pool.free(held)
    held[0] = 0
    assert a.finish() == [held] and "offset 0 of 4" in listening.said[0]


def test_t1_12_forced_failures_go_through_the_reserve_without_a_failure() -> None:
    shelf = Shelf()
    pool: Mempool[str] = Mempool(shelf, min_count=2)
    fault = FailAlloc()
    pool.inject(fault)
    for _ in range(10):
        pool.free_bulk([pool.alloc(), pool.alloc()])
    assert pool.stats().reserve_uses == 20 and shelf.made == 2 and fault.hits >= 20
    pool.inject(None)
    pool.free(pool.alloc())
    assert shelf.made == 3


def test_t1_12_faults_by_interval_space_times_and_chance() -> None:
    def hits(fault: FailAlloc) -> str:
        return "".join("x" if fault() else "." for _ in range(8))

    assert hits(FailAlloc(3)) == "..x..x.."
    assert hits(FailAlloc(space=5)) == ".....xxx"
    assert hits(FailAlloc(2, times=2)) == ".x.x...."
    chances = iter([0.1, 0.9] * 4)
    assert hits(FailAlloc(probability=0.5, chance=lambda: next(chances))) == "x.x.x.x."
    with pytest.raises(UsageError, match="interval is 0"):
        FailAlloc(0)


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("how", ["none", "raise"])
def test_composite_unwinds_whichever_part_fails(failing: int, how: str) -> None:
    parts = [Shelf() for _ in range(3)]
    pool: Mempool[tuple[str, ...]] = Mempool(Composite(*parts), min_count=1)
    parts[failing].shut()
    if how == "raise":
        parts[failing].error = OSError("no")
    assert pool.alloc() == ("element 1",) * 3  # the reserve has a whole one
    assert [part.out for part in parts] == [1, 1, 1]
    a = alloc(pool, gfp=Gfp.KERNEL | Gfp.NORETRY)
    if how == "raise":
        with pytest.raises(OSError, match="no"):
            a.finish()
    else:
        assert a.finish() is None
    assert [part.out for part in parts] == [1, 1, 1]


def test_composite_frees_every_part_even_if_one_raises() -> None:
    parts = [Shelf(), Shelf(), Shelf()]
    whole = Composite(*parts)
    element = whole.alloc(Gfp.KERNEL)
    assert element is not None
    parts[1].out = 0  # the second complains of what it gets
    with pytest.raises(AssertionError):
        whole.free(element)
    assert (parts[0].out, parts[2].out) == (0, 0)


@pytest.mark.parametrize("more", [Gfp(0), Gfp.NOFAIL, Gfp.RETRY_MAYFAIL, Gfp.MEMALLOC])
def test_pools_over_pools_wait_in_the_outer_one_only(more: Gfp) -> None:
    listening = Listening()
    inner = Mempool.of("ab", name="inner", runtime=listening)
    outer: Mempool[str] = Mempool(inner, min_count=1, name="outer", runtime=listening)
    held = [outer.alloc(), outer.alloc()]
    a = alloc(outer, gfp=Gfp.KERNEL | more, scope=Scope.NORECLAIM)
    a.to_park()  # a heavy try on the inner pool came back: its mask says NORETRY
    assert inner.waiters == 0 and outer.waiters == 1
    outer.free(held.pop())
    assert a.finish() is not None and listening.said == []  # masks a pool derives are not judged


def test_ownership_double_and_foreign_free_are_refused() -> None:
    told: list[str] = []
    pool = Mempool.of(["x", "y"], trace=True)
    pool.watch(lambda event: told.append(event.kind))
    x = pool.alloc()
    pool.free(x)
    told.clear()
    for wrong in (x, "z"):
        with pytest.raises(UsageError, match="freed twice, or of another pool"):
            pool.free(wrong)
    for refused in (lambda: pool.hand_over(x), lambda: pool.transfer(x, "b")):
        with pytest.raises(UsageError, match="handed on that is not out"):
            refused()
    assert told == [] and pool.reserve_count == 2  # it did not happen, and nobody was told so


def test_ownership_an_element_that_is_there_twice_may_be_out_twice() -> None:
    pool = Mempool.of(["slot"] * 2, trace=True)
    pool.free_bulk(pool.alloc_bulk(2))
    pool.alloc_bulk(2)
    assert len(pool.holders()) == 2
    pool.free_bulk(["slot"] * 2)
    with pytest.raises(UsageError):
        pool.free("slot")


def test_ownership_has_three_ends_and_overdue_names_who() -> None:
    listening = Listening()
    pool = Mempool.of("xyz", name="p", trace=True, runtime=listening)
    x, y = pool.alloc(), pool.alloc()
    listening.clock_s = 5.0
    z = pool.alloc()
    pool.hand_over(x)
    pool.transfer(y, "b")
    late = pool.overdue(3.0)
    assert [(h.owner, h.in_flight) for h in late] == [("MainThread", True), ("b", False)]
    assert late[0].describe(5.0).startswith("put in flight by MainThread for 5.000 s at ")
    pool.free_bulk([x, y, z])
    assert pool.holders() == ()
    with pytest.raises(UsageError, match="not traced"):
        Mempool.of("x").overdue(1.0)


def test_hooks_hear_of_each_event_in_order() -> None:
    told: list[tuple[str, str, int]] = []
    pool = Mempool.of("x")
    pool.watch(lambda event: told.append((event.kind, event.owner, pool.outstanding)))
    x = pool.alloc()
    a = parked(pool, "a", timeout_s=1.0)
    pool.hand_over(x)
    pool.free(x)
    a.finish()
    with pytest.raises(PoolTimeout):
        b = parked(pool, "b", timeout_s=1.0)
        b.answer(False)
        b.finish()
    me = "MainThread"
    assert told == [
        ("request", me, 0), ("grant", me, 1), ("request", "a", 1), ("hand_over", me, 1),
        ("release", me, 1), ("grant", "a", 1), ("request", "b", 1), ("give_up", "b", 1),
    ]  # fmt: skip


def test_a_lease_returns_its_element_however_it_ends() -> None:
    pool = Mempool.of("x", trace=True)
    with pytest.raises(ZeroDivisionError), pool.lease():
        raise ZeroDivisionError
    with (lease := pool.lease()) as x:
        assert lease.hand_over() == x
    assert pool.outstanding == 1 and pool.holders()[0].in_flight
    pool.free(x)
    pool.close()


def test_an_allocator_is_given_the_mask_only_if_it_asks_for_it() -> None:
    def connect(host: str = "localhost") -> str:
        return host

    def named(size: int = 1, gfp: Gfp = Gfp.KERNEL) -> object:
        return (size, gfp)

    def needed(mask: Gfp) -> object:
        return mask

    for function, element in ((connect, "localhost"), (dict, {}), (needed, Gfp.KERNEL)):
        assert Mempool(alloc=function, min_count=1).alloc_preallocated() == element
    with pytest.raises(GfpConflict):
        Mempool(alloc=needed, min_count=1).alloc(Gfp.KERNEL | Gfp.ZERO)
    assert Mempool(alloc=named, min_count=1).alloc_preallocated() is not None


def test_a_queue_of_dead_waiters_is_no_recursion() -> None:
    pool = Mempool.of("x")
    pool.alloc()
    for n in range(3000):  # parked in an event loop that was closed meanwhile
        parked(pool, str(n)).request.ticket.arm(lambda: False)  # type: ignore[union-attr]
    last = parked(pool, "last")
    pool.free("x")
    assert last.finish() == ["x"]
    with pytest.raises(PoolBusy):
        pool.close()
