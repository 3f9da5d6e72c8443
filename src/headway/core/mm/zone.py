"""Who may have pages of a fixed total: watermarks, and floors that others cannot eat into.

It does not wait and does not reclaim: a request that is not allowed gets None, and whoever asked
decides what to do (a mempool uses its reserve, then parks). It holds no memory: runs are numbers.

Every user has a *share*: runs of one order, and a floor of so many of them. What counts is
``claims = sum of max(held, floor)``; what nobody has a claim to is open to all, down to the mark
(`low` for a light try, `min` or what the mask may dip to for a heavy one). Below its floor a share
always gets a run. So an unused floor is the only memory that idles, and floors are admitted only
while their sum leaves `min`. MEMALLOC ignores the marks, never a floor.

A floor is kept as runs, not as a sum: with every grant outside a floor, all unfilled floors must
still be servable at once (`PageAllocator.can_serve`). That stays true by itself otherwise: a freed
run brings back what its share's floor grows by; and a grant inside a floor takes the smallest block
that will do, which never costs a larger floor its block (if no block of order k..s-1 is free, the
free blocks of order >= j in k+1..s come to more than the floors of order >= j, both in whole 2**j,
and splitting one of order s takes exactly 2**j from them).

Freed runs are kept by their share as they are, and merged only when someone needs them merged: a
steady state costs one list operation each way. `free` takes no guard at all (one pop, one append,
atomic each), so a finaliser or a signal handler may free while it interrupts anything.

Source: Linux ``mm/page_alloc.c`` (6.12) for marks and per-cpu lists; the floors are our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageAllocator, PageRun
from headway.core.mm.watermarks import Watermarks, is_refused, lowest_mark
from headway.core.plan import Runtime
from headway.errors import NoMemory, PoolBusy, PoolClosed, UsageError


@final
@dataclass(frozen=True, slots=True)
class ZoneStats:
    """A snapshot. Units: pages, except the two counts of refused tries."""

    name: str
    page_count: int
    held_pages: int
    floor_pages: int  # kept free for shares that are below their floor
    watermarks: Watermarks
    share_count: int
    light_refusals: int
    heavy_refusals: int


@final
class Zone:
    """`page_count` pages, shared by users with floors. Thread-safe; nothing here waits for memory.

    `_pages`, `_shares`, `_uniform` change only under `_guard`; the refusals are statistics.
    """

    __slots__ = (
        "_guard",
        "_hungry",
        "_pages",
        "_shares",
        "_uniform",
        "heavy_refusals",
        "light_refusals",
        "marks",
        "name",
        "page_count",
    )

    def __init__(self, page_count: int, marks: Watermarks, *, name: str, runtime: Runtime) -> None:
        if marks.high > page_count:
            raise UsageError(f"zone {name!r}: {marks} do not fit into {page_count} pages")
        self.name = name
        self.page_count = page_count
        self.marks = marks
        self.light_refusals = 0
        self.heavy_refusals = 0
        self._guard = runtime.guard()
        self._pages = PageAllocator(page_count)
        self._shares: tuple[Share, ...] = ()
        self._uniform = True  # all shares have runs of one order
        self._hungry = False  # some share with an `on_room` was refused since the last free

    def share(self, order: int, floor_count: int = 0, name: str = "share") -> Share:
        """Admit a user of runs of 2**order pages that can always have `floor_count` of them.

        Raises: UsageError if the zone could never give it, whoever gives back what; NoMemory if the
        floor fits, but not beside what others hold just now.
        """
        share = Share(self, order, floor_count, name)
        with self._guard:
            shares = (*self._shares, share)
            self._check_possible(share, shares)
            self._merge()
            if floor_count and not self._pages.can_serve(_unfilled(shares)):
                raise NoMemory(
                    f"zone {self.name!r}: a floor of {floor_count} x {1 << order} pages for "
                    f"{name!r} fits only when others give back: {self._pages.free_pages} of "
                    f"{self.page_count} pages are free; admit floors before the zone is in use"
                )
            self._shares = shares
            self._uniform = len({other.order for other in shares}) == 1
        return share

    def _check_possible(self, new: Share, shares: tuple[Share, ...]) -> None:
        """Refuse a share that an empty zone could not serve, or that would shut another out."""
        most = self.page_count - self.marks.min
        what = f"zone {self.name!r} of {self.page_count} pages (min {self.marks.min})"
        if new.order < 0 or new.floor_count < 0:
            raise UsageError(f"{what}: order {new.order} and floor {new.floor_count} must be >= 0")
        if new.order > self._pages.max_order or 1 << new.order > most:
            raise UsageError(f"{what}: a run of {1 << new.order} pages can never be had")
        floors = sum(share.floor_count << share.order for share in shares)
        for share in shares:
            own = share.floor_count << share.order
            if floors - own + max(own, 1 << share.order) > most:
                raise UsageError(
                    f"{what}: floors of {floors} pages with {new.name!r} would leave "
                    f"{share.name!r} without a single run; {most} pages can be promised in all"
                )
        demand: dict[int, int] = {}
        for share in shares:
            count = max(share.floor_count, share is new)
            demand[share.order] = demand.get(share.order, 0) + count
        if not PageAllocator(self.page_count).can_serve(demand):
            raise UsageError(f"{what}: the floors with {new.name!r} do not fit as aligned runs")

    # -- under the guard -----------------------------------------------------------------------

    def _grant(self, share: Share, mark: int) -> PageRun | None:
        """A run for `share`, if it is inside its floor or leaves `mark` that nobody has claims to."""
        order = share.order
        room = self.page_count
        others_unfilled = False
        for other in self._shares:
            held = len(other._out)
            if held < other.floor_count:
                held = other.floor_count
                others_unfilled = others_unfilled or other is not share
            room -= held << other.order
        inside = len(share._out) < share.floor_count
        if not inside and is_refused(room, order, mark):
            return None
        if share._stock:
            tail = self.page_count & ((1 << order) - 1)  # pages that no run of this order has
            if not others_unfilled or (
                self._uniform and (inside or not is_refused(room - tail, order, 0))
            ):
                return share._stock.pop()
        return self._search(share, inside)

    def _search(self, share: Share, inside: bool) -> PageRun | None:
        """The smallest block that will do, with all that is free merged, and all floors kept."""
        self._merge()
        run = self._pages.alloc(share.order)
        if run is None or inside:
            return run
        if not self._pages.can_serve(_unfilled(self._shares)):
            self._pages.free(run)
            return None
        return run

    def _merge(self) -> None:
        """Give every share's stock back to the allocator, which merges it."""
        for share in self._shares:
            stock = share._stock
            while stock:
                self._pages.free(stock.pop())

    def _leave(self, share: Share) -> None:
        with self._guard:
            if share._out:
                raise PoolBusy(
                    f"share {share.name!r} of zone {self.name!r} closed with {len(share._out)} "
                    "runs held; free them first",
                    pool=share.name,
                    count=len(share._out),
                )
            self._merge()
            self._shares = tuple(other for other in self._shares if other is not share)
            self._uniform = len({other.order for other in self._shares}) <= 1
        self._tell_room()

    # -- outside the guard ---------------------------------------------------------------------

    def _tell_room(self) -> None:
        """Tell each share that was refused that it may ask again."""
        if not self._hungry:
            return
        self._hungry = False
        for share in self._shares:
            if share._refused and share.on_room is not None:
                share._refused = False
                share.on_room()

    def stats(self) -> ZoneStats:
        with self._guard:
            floors = sum(count << order for order, count in _unfilled(self._shares).items())
            held = sum(len(share._out) << share.order for share in self._shares)
            count = len(self._shares)
        return ZoneStats(
            self.name,
            self.page_count,
            held,
            floors,
            self.marks,
            count,
            self.light_refusals,
            self.heavy_refusals,
        )

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Zone {self.name!r} {stats.held_pages} of {self.page_count} pages held, "
            f"{stats.floor_pages} kept for floors, {stats.share_count} shares, min {self.marks.min}>"
        )

    def check_invariants(self) -> None:
        """All pages are held, in a stock, or free, once each; and all floors can be filled at once."""
        with self._guard:
            in_use = self.page_count - self._pages.free_pages
            ours = sum(
                (len(share._out) + len(share._stock)) << share.order for share in self._shares
            )
            assert in_use == ours, "pages are neither free nor with a share"
            self._merge()
            self._pages.check_invariants()
            assert self._pages.can_serve(_unfilled(self._shares)), "a floor was eaten into"


@final
class Share:
    """One user's part in a zone: runs of one order, of which `floor_count` can always be had.

    `_out` grows and `_stock` shrinks only under the zone's guard; `free` does the opposite outside
    it, in this order: for a moment the run is in neither, and so is nobody's to take.
    """

    __slots__ = ("_closed", "_out", "_refused", "_stock", "floor_count", "name", "on_room", "order", "zone")  # fmt: skip

    def __init__(self, zone: Zone, order: int, floor_count: int, name: str) -> None:
        self.zone = zone
        self.order = order
        self.floor_count = floor_count
        self.name = name
        #: Called, without any lock, when pages came back after `alloc` had been refused.
        self.on_room: Callable[[], object] | None = None
        self._out: dict[int, PageRun] = {}  # first page -> run, of what is held
        self._stock: list[PageRun] = []  # freed and not merged yet
        self._refused = False
        self._closed = False

    @property
    def held_count(self) -> int:
        return len(self._out)

    def light(self, gfp: Gfp) -> PageRun | None:
        """The light try: a run if that leaves `low`, or is inside the floor; else None.

        Waits: never. The mask is not looked at: nobody dips below `low` on a first try.
        """
        zone = self.zone
        with zone._guard:
            if self._closed:
                return None
            run = zone._grant(self, zone.marks.low)
            if run is None:
                zone.light_refusals += 1
            else:
                self._out[run.first] = run
        return run

    def alloc(self, gfp: Gfp) -> PageRun | None:
        """The heavy try: a run if that leaves what the mask may not dip below; else None.

        Waits: never. If it is refused, `on_room` is called once when pages come back: the refusal
        is published before the last look, so no return in between is missed.
        Raises: PoolClosed.
        """
        zone = self.zone
        mark = lowest_mark(int(gfp), zone.marks.min)
        with zone._guard:
            if self._closed:
                raise PoolClosed(f"share {self.name!r} of zone {zone.name!r} is closed")
            run = zone._grant(self, mark)
            if run is None and self.on_room is not None:
                self._refused = zone._hungry = True
                run = zone._grant(self, mark)
            if run is None:
                zone.heavy_refusals += 1
            else:
                self._out[run.first] = run
        return run

    def free(self, run: PageRun) -> None:
        """Give a run back. Waits: never; may be called from a finaliser or a signal handler.

        Raises: UsageError if this share does not hold it (freed twice, or foreign).
        """
        held = self._out.pop(run.first, None)
        if held is None:
            raise UsageError(
                f"share {self.name!r} of zone {self.zone.name!r}: free of the run at page "
                f"{run.first}, which it does not hold; it was freed before, or is another's"
            )
        if held != run:
            self._out[run.first] = held
            raise UsageError(
                f"share {self.name!r} of zone {self.zone.name!r}: free of {run.page_count} pages "
                f"at page {run.first}; the run taken there has {held.page_count}"
            )
        self._stock.append(held)
        if self.zone._hungry:
            self.zone._tell_room()

    def close(self) -> None:
        """Leave the zone: the floor is open to others again.

        Raises: PoolBusy if runs are still held (the share stays as it was).
        """
        if not self._closed:
            self.zone._leave(self)
            self._closed = True

    def __repr__(self) -> str:
        return (
            f"<Share {self.name!r} of {self.zone.name!r}: {len(self._out)} runs of "
            f"{1 << self.order} pages held, floor {self.floor_count}>"
        )


def _unfilled(shares: tuple[Share, ...]) -> dict[int, int]:
    """How many runs of each order the floors still lack."""
    demand: dict[int, int] = {}
    for share in shares:
        lacking = share.floor_count - len(share._out)
        if lacking > 0:
            demand[share.order] = demand.get(share.order, 0) + lacking
    return demand
