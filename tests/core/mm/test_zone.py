"""The zone: marks kept to the page, floors that others cannot eat into, and frees from anywhere."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headway.core.mm.charge import Charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Share, Zone
from headway.core.plan import Ticket
from headway.errors import NoMemory, PoolBusy, PoolClosed, UsageError
from headway.runtimes.threads import THREADS

NONE_KEPT = Watermarks(0, 0, 0)


def make(page_count: int, marks: Watermarks = NONE_KEPT) -> Zone:
    return Zone(page_count, marks, runtime=THREADS, name="z")


def drain(share: Share, gfp: Gfp = Gfp.KERNEL) -> list[PageRun]:
    taken = []
    while (run := share.alloc(gfp)) is not None:
        taken.append(run)
    share.zone.check_invariants()
    return taken


def test_a_light_try_leaves_low_and_a_heavy_one_min_to_the_page() -> None:
    zone = make(64, Watermarks(8, 16, 24))
    share = zone.share(0)
    light = []
    while (run := share.light(Gfp.NOWAIT)) is not None:
        light.append(run)
    assert len(light) == 64 - 16
    assert len(drain(share, Gfp.NOWAIT)) == 8
    assert (zone.light_refusals, zone.heavy_refusals) == (1, 1)


@pytest.mark.parametrize(
    ("gfp", "left"),
    [
        (Gfp.KERNEL, 16),
        (Gfp.NOWAIT, 16),
        (Gfp.KERNEL | Gfp.HIGH, 8),
        (Gfp.ATOMIC, 6),
        (Gfp.ATOMIC | Gfp.NOMEMALLOC, 8),
        (Gfp.KERNEL | Gfp.MEMALLOC, 0),
        (Gfp.KERNEL | Gfp.MEMALLOC | Gfp.NOMEMALLOC, 16),
    ],
)
@pytest.mark.parametrize("order", [0, 1])
def test_what_a_mask_leaves(gfp: Gfp, left: int, order: int) -> None:
    zone = make(128, Watermarks(16, 20, 24))
    drain(zone.share(order), gfp)
    assert zone.page_count - zone.stats().held_pages == left


def test_others_cannot_eat_into_a_floor_and_its_holder_always_gets_it() -> None:
    zone = make(64, Watermarks(8, 16, 24))
    holder, greedy = zone.share(0, 10, "holder"), zone.share(0, name="greedy")
    assert len(drain(greedy, Gfp.KERNEL | Gfp.MEMALLOC)) == 54  # no mask goes below a floor
    assert zone.stats().floor_pages == 10
    for _ in range(10):
        assert holder.light(Gfp.NOWAIT) is not None
    assert holder.alloc(Gfp.KERNEL) is None
    assert zone.stats().held_pages == 64


def test_a_floor_in_use_is_the_holders_first_memory_and_idles_nothing() -> None:
    zone = make(64)
    holder, greedy = zone.share(0, 10), zone.share(0)
    held = [holder.alloc(Gfp.KERNEL) for _ in range(10)]
    taken = drain(greedy)
    assert len(taken) == 54
    assert held[0] is not None
    holder.free(held[0])  # its floor grows by one, and nobody else gets that page
    assert greedy.alloc(Gfp.KERNEL | Gfp.MEMALLOC) is None
    assert holder.alloc(Gfp.KERNEL) is not None


def test_a_floor_is_kept_as_whole_runs_and_not_as_a_sum_of_pages() -> None:
    zone = make(64)
    holder, small = zone.share(4, 2, "holder"), zone.share(0, name="small")
    taken = drain(small)
    assert len(taken) == 32
    for run in taken[::2]:
        small.free(run)
    drain(small)
    assert holder.light(Gfp.NOWAIT) is not None
    assert holder.light(Gfp.NOWAIT) is not None
    zone.check_invariants()


def test_a_grant_that_would_break_the_last_whole_run_of_a_floor_is_refused() -> None:
    zone = make(16)
    holder, small, medium = zone.share(3, 1, "holder"), zone.share(0), zone.share(1)
    for run in drain(small)[1::2]:
        small.free(run)
    assert zone.stats().held_pages == 4  # with the floor, 12 of 16 have an owner: 4 are open to all
    assert medium.alloc(Gfp.KERNEL | Gfp.MEMALLOC) is None  # but the only pairs are in the floor
    zone.check_invariants()
    assert small.alloc(Gfp.KERNEL) is not None
    assert holder.alloc(Gfp.KERNEL) is not None


def test_a_share_takes_its_own_freed_runs_again_and_no_floor_suffers() -> None:
    zone = make(7)  # 4 + 2 + 1
    small, holder = zone.share(0, 1, "small"), zone.share(1, 2, "holder")
    held = drain(small)
    assert len(held) == 3
    for run in held:
        small.free(run)
    assert small.alloc(Gfp.KERNEL) == held[-1]
    zone.check_invariants()
    assert len(drain(holder)) == 2


def test_a_scattered_zone_refuses_above_the_floor_where_the_sum_alone_would_allow() -> None:
    zone = make(16)
    small, holder = zone.share(0, name="small"), zone.share(3, 1, "holder")
    pages = drain(small)
    assert len(pages) == 8
    for run in pages[:-1]:
        small.free(run)
    assert holder.alloc(Gfp.KERNEL) is not None
    assert holder.alloc(Gfp.KERNEL) is None  # 7 pages are free, and no 8 in a row
    assert len(drain(small)) == 7


def test_freed_runs_are_merged_when_another_size_needs_them() -> None:
    zone = make(32)
    small, large = zone.share(0), zone.share(5)
    for run in drain(small):
        small.free(run)
    assert large.light(Gfp.NOWAIT) == PageRun(0, 5)


@pytest.mark.parametrize(
    ("order", "floor", "told"),
    [
        (7, 0, "can never be had"),
        (6, 0, "can never be had"),  # 64 pages, but 8 of them are kept back
        (0, 57, "can be handed out"),
        (5, 2, "can be handed out"),
        (-1, 0, "negative"),
        (0, -1, "negative"),
    ],
)
def test_the_impossible_is_refused_at_once(order: int, floor: int, told: str) -> None:
    zone = make(64, Watermarks(8, 16, 24))
    with pytest.raises(UsageError, match=told):
        zone.share(order, floor)
    assert zone.stats().share_count == 0


def test_a_floor_that_would_shut_another_user_out_is_refused() -> None:
    zone = make(64)
    zone.share(4, name="bystander")
    zone.share(0, 40, "first")
    with pytest.raises(UsageError, match="bystander"):
        zone.share(0, 10, "second")
    zone.share(0, 8, "second")


@pytest.mark.parametrize("page_count", [24, 31, 47, 63, 64])
def test_floors_that_fit_as_a_sum_fit_as_aligned_runs(page_count: int) -> None:
    zone = make(page_count)
    holders, left = [], page_count
    for order in (0, 4, 2, 3, 1):  # every order once, then as many single pages as are left
        if 1 << order <= left:
            holders.append(zone.share(order, 1))
            left -= 1 << order
    if left:
        holders.append(zone.share(0, left))
    for share in holders:
        assert len(drain(share)) == share.floor_count
    assert zone.stats().held_pages == page_count


def test_a_floor_that_fits_only_later_is_no_memory_and_then_fits() -> None:
    zone = make(64)
    early = zone.share(0, name="early")
    held = drain(early)
    with pytest.raises(NoMemory, match="fits only when others give back"):
        zone.share(2, 4, "late")
    for run in held:
        early.free(run)
    zone.share(2, 4, "late")
    zone.check_invariants()


def test_wrong_frees_are_refused_and_change_nothing() -> None:
    zone = make(16)
    mine, other = zone.share(1), zone.share(1)
    run = mine.alloc(Gfp.KERNEL)
    assert run is not None
    for share, wrong in [(other, run), (mine, PageRun(8, 1)), (mine, PageRun(run.first, 0))]:
        with pytest.raises(UsageError):
            share.free(wrong)
    mine.free(run)
    with pytest.raises(UsageError, match="freed before"):
        mine.free(run)
    zone.check_invariants()
    assert zone.stats().held_pages == 0


def test_closing_a_share_gives_its_floor_to_others_and_needs_all_runs_home() -> None:
    zone = make(16)
    holder, other = zone.share(0, 8), zone.share(0)
    run = holder.alloc(Gfp.KERNEL)
    assert run is not None
    assert len(drain(other)) == 8
    with pytest.raises(PoolBusy, match="1 runs held") as caught:
        holder.close()
    assert caught.value.count == 1
    holder.free(run)
    holder.close()
    holder.close()
    assert len(drain(other)) == 8
    with pytest.raises(PoolClosed):
        holder.alloc(Gfp.KERNEL)
    assert holder.light(Gfp.NOWAIT) is None


def test_who_was_refused_is_told_once_when_pages_come_back() -> None:
    zone = make(4)
    greedy, waiting = zone.share(0), zone.share(0)
    told: list[PageRun | None] = []
    waiting.on_room(lambda: told.append(waiting.alloc(Gfp.KERNEL)))  # no lock is held: may ask
    held = drain(greedy)
    greedy.free(held.pop())
    assert told == []  # it never asked
    held += drain(greedy)
    assert waiting.alloc(Gfp.KERNEL) is None
    freed = held.pop()
    greedy.free(freed)
    assert told == [freed]
    greedy.free(held.pop())
    assert told == [freed]


class InterruptedGuard:
    """A lock inside which something else runs: what a finaliser or a signal handler does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.interrupt: Any = None

    def acquire(self, blocking: bool = True) -> bool:
        return self.lock.acquire(blocking)

    def release(self) -> None:
        self.lock.release()

    def __enter__(self) -> None:
        assert self.lock.acquire(timeout=10), "the guard was asked for by who holds it"
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            interrupt()

    def __exit__(self, *exc: object) -> None:
        self.lock.release()


def test_free_may_interrupt_a_step_that_holds_the_guard() -> None:
    zone = make(4)
    guard = zone._guard = InterruptedGuard()
    share = zone.share(0)
    held = drain(share)
    guard.interrupt = lambda: share.free(held[0])
    assert share.alloc(Gfp.KERNEL) == held[0]
    zone.check_invariants()


def test_threads_share_a_zone_and_every_page_comes_home() -> None:
    zone = make(64, Watermarks(4, 6, 8))
    users = [zone.share(order, floor) for order, floor in [(0, 8), (0, 0), (2, 2), (3, 1)]]
    owners: dict[int, int] = {}
    faults: list[str] = []

    def work(number: int, share: Share) -> None:
        for turn in range(400):
            held = []
            for _ in range(1 + turn % 4):
                run = share.light(Gfp.NOWAIT) or share.alloc(Gfp.NOWAIT)
                if run is None:
                    continue
                for page in range(run.first, run.first + run.page_count):
                    if owners.setdefault(page, number) != number:
                        faults.append(f"page {page} is held twice")
                held.append(run)
            for run in held:
                for page in range(run.first, run.first + run.page_count):
                    del owners[page]
                share.free(run)

    threads = [threading.Thread(target=work, args=(n, share)) for n, share in enumerate(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert zone.stats().held_pages == 0
    zone.check_invariants()


def test_look() -> None:
    zone = make(64, Watermarks(8, 10, 12))
    share = zone.share(2, 3, "frames")
    share.alloc(Gfp.KERNEL)
    assert repr(zone) == (
        "<Zone 'z': 4 of 64 pages held, 0 clean, 0 dirty, 8 kept for floors, 1 shares>"
    )
    assert repr(share) == "<Share 'frames' of 'z': 1 runs of 4 pages held, floor 3>"
    with pytest.raises(UsageError, match="do not fit"):
        make(8, Watermarks(8, 16, 24))


class Interrupted:
    """A guard that runs something while it is held: a finaliser, or a thread that comes just then."""

    def __init__(self, guard: Any, act: Any) -> None:
        self.guard, self.act = guard, act

    def acquire(self, blocking: bool = True) -> bool:
        got = bool(self.guard.acquire(blocking))
        if got and self.act is not None:
            act, self.act = self.act, None
            act()
        return got

    def release(self) -> None:
        self.guard.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


@pytest.mark.parametrize(
    "inside",
    ["refused light", "refused heavy", "granted", "stats", "room", "soil", "take", "share"],
)
def test_a_charge_given_back_while_somebody_is_inside_reaches_who_waits(inside: str) -> None:
    zone = make(16)
    charge, other = Charge(zone, "c"), Charge(zone, "o")
    waiting, small = zone.share(3, name="waiting"), zone.share(0, name="small")
    assert charge.take(0, 10) and other.take(0, 1)
    told: list[PageRun | None] = []
    waiting.on_room(lambda: told.append(waiting.alloc(Gfp.KERNEL)))
    assert waiting.alloc(Gfp.KERNEL) is None
    ticket = Ticket("somebody")
    zone.expect_room(ticket)
    zone._guard = Interrupted(zone._guard, lambda: charge.give(10))
    match inside:
        case "refused light":
            assert zone.share(4).light(Gfp.NOWAIT) is None
        case "refused heavy":
            assert zone.share(4).alloc(Gfp.KERNEL) is None
        case "granted":
            run = small.alloc(Gfp.KERNEL)
            assert run is not None
            small.free(run)
        case "stats":
            zone.stats()
        case "room":
            zone.room()
        case "soil":
            other.soil(1)
        case "take":
            other.take(0, 9)
        case "share":
            zone.share(0)
    assert any(told), "it was not told that there is room"
    assert ticket.woken
    zone.check_invariants()
