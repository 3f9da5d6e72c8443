"""Who may have pages of a fixed total: watermarks, and floors that others cannot eat into.

It does not wait and does not reclaim: a request that is not allowed gets None, and whoever asked
decides what to do (`headway.core.mm.slowpath` makes room). It holds no memory: runs are numbers.

Every user has a *share*: runs of one order, and a floor of so many of them; caches have *charges*
(`headway.core.mm.charge`), pages of no particular place. What counts is ``claims = sum of max(held,
floor) + charges``; what nobody has a claim to is open to all, down to the mark
(`low` for a light try, `min` or what the mask may dip to for a heavy one). Below its floor a share
always gets a run. Floors are admitted only while their sum leaves `min`; MEMALLOC ignores the
marks, never a floor.

A floor is kept as runs, not as a sum: after a grant outside a floor, all unfilled floors must still
be servable at once. Otherwise that stays true by itself: a freed run brings back what its share's
floor grows by, and a grant inside a floor takes the smallest block that will do. (If that has order
s > k, then for each j in k+1..s the free blocks of order >= j exceed the floors of order >= j, both
in multiples of 2**j pages, and the split takes exactly 2**j from them.)

Freed runs stay with their share, and are merged when someone finds none of its own. A share may
take its own again without that test: what is held then is part of what was held at once after the
last merge, and the rest only serves its floor. So a steady state costs one list operation. `free`
takes no guard (one pop, one append, atomic each): a finaliser or a signal handler may call it.

Source: Linux ``mm/page_alloc.c`` (6.12) for marks and per-cpu lists; the floors are our own.
"""

from __future__ import annotations

from typing import final

from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageAllocator, PageRun
from headway.core.mm.refused import Refused
from headway.core.mm.room import CLEAN_FLOOR, Room, ZoneStats
from headway.core.mm.watermarks import Watermarks, is_refused, lowest_mark
from headway.core.plan import Runtime
from headway.core.units import format_size
from headway.errors import NoMemory, PoolBusy, PoolClosed, UsageError


@final
class Zone(Room):
    """`page_count` pages, shared by users with floors. Thread-safe; nothing here waits for memory.

    `_pages` and `_shares` change only under `_guard`; the refusals are statistics.
    """

    __slots__ = (
        "_pages", "heavy_refusals", "light_refusals", "marks", "name", "page_bytes",
        "page_count",
    )  # fmt: skip

    _shares: tuple[Share, ...]
    _lenders: tuple[Share, ...]

    def __init__(
        self,
        page_count: int,
        marks: Watermarks,
        *,
        runtime: Runtime,
        name: str = "zone",
        page_bytes: int = 4096,
    ) -> None:
        if marks.high > page_count:
            raise UsageError(f"zone {name!r}: {marks} do not fit into {page_count} pages")
        self.name = name
        self.page_count = page_count
        self.page_bytes = page_bytes  # for messages: users think in bytes
        self.marks = marks
        self.light_refusals = 0
        self.heavy_refusals = 0
        super().__init__(runtime, page_count)
        self._pages = PageAllocator(page_count)

    def share(
        self, order: int, floor_count: int = 0, name: str = "share", lends: bool = False
    ) -> Share:
        """Admit a user of runs of 2**order pages that can always have `floor_count` of them.

        `lends`: clean charges may lie in what is idle of its floor (`headway.core.mm.reservation`).

        Raises: UsageError if the zone could never give it, whoever gives back what; NoMemory if the
        floor fits, but not beside what others hold just now.
        """
        share = Share(self, order, floor_count, name)
        with self._step:
            shares = (*self._shares, share)
            self._check_possible(share, shares)
            self._merge()
            if floor_count and (
                self._room(shares) < 0 or not self._pages.can_serve(unfilled(shares))
            ):
                raise NoMemory(
                    f"zone {self.name!r}: a floor of {floor_count} x {self._size(1 << order)} for "
                    f"{name!r} fits only when others give back: "
                    f"{self._size(self._pages.free_pages + self._open - self.page_count)} of "
                    f"{self._size(self.page_count)} are free; ask for floors before the zone is "
                    "in use"
                )
            self._shares = shares
            self._lenders = (*self._lenders, share) if lends else self._lenders
        return share

    def _check_possible(self, new: Share, shares: tuple[Share, ...]) -> None:
        """Refuse a share that an empty zone could not serve, or that would shut another out."""
        most = self.page_count - self.marks.min
        what = f"zone {self.name!r} of {self._size(self.page_count)}"
        if new.order < 0 or new.floor_count < 0:
            raise UsageError(
                f"{what}: order {new.order}, floor {new.floor_count}; neither may be negative"
            )
        if new.order > self._pages.max_order or 1 << new.order > most:
            raise UsageError(
                f"{what}: a run of {self._size(1 << new.order)} for {new.name!r} can never be had; "
                f"{self._size(most)} can be handed out, {self._size(1 << self._pages.max_order)} "
                "in one piece"
            )
        floors = sum(share.floor_count << share.order for share in shares)
        for share in shares:
            own = share.floor_count << share.order
            least = max(own, 1 << share.order)
            if floors - own + least > most:
                raise UsageError(
                    f"{what}: with {new.name!r}, the floors of others come to "
                    f"{self._size(floors - own)}, and {share.name!r} needs {self._size(least)}; "
                    f"{self._size(most)} can be handed out"
                )
        # In an empty zone the sum is all there is to look at: it has total // 2**j whole blocks of
        # order j, and floors of orders >= j, whole multiples of 2**j, that sum to no more fit.

    def _size(self, page_count: int) -> str:
        return format_size(page_count * self.page_bytes)

    # -- under the guard -----------------------------------------------------------------------

    def _grant(self, share: Share, mark: int) -> PageRun | None:
        """A run for `share`, if inside its floor, or if `mark` of what is unclaimed is left."""
        order = share.order
        room = self._open
        for other in self._shares:  # `_room`, written out: this is the fast path
            held = len(other._out)
            floor = other.floor_count
            room -= (held if held > floor else floor) << other.order
        inside = len(share._out) < share.floor_count
        if not inside and is_refused(room, order, mark):
            if not self._lenders or is_refused(room + self._lent(), order, mark):
                return None
        if share._stock:
            return share._stock.pop()
        return self._search(share, inside)

    def _search(self, share: Share, inside: bool) -> PageRun | None:
        """The smallest block that will do, with all that is free merged, and all floors kept."""
        self._merge()
        run = self._pages.alloc(share.order)
        if run is None or inside:
            return run
        if not self._pages.can_serve(unfilled(self._shares)):
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
        with self._step:
            if share._out:
                raise PoolBusy(
                    f"share {share.name!r} of zone {self.name!r} closed with {len(share._out)} "
                    "runs held; free them first",
                    pool=share.name,
                    count=len(share._out),
                )
            share.closed = True
            self._merge()
            self._shares = tuple(other for other in self._shares if other is not share)
            self._lenders = tuple(other for other in self._lenders if other is not share)
        self._tell_room()
        share._refused.tell()  # who waits for it hears that it is closed

    def _take_back(self, share: Share) -> None:
        """Collect a run whose `free` was overtaken by its share's close."""
        with self._step:
            while share._stock:
                self._pages.free(share._stock.pop())

    # -- outside the guard ---------------------------------------------------------------------

    def _tell_shares(self) -> None:
        for share in self._shares:
            share._refused.tell()

    def tell_clean(self) -> None:
        """Dirty data is clean: who waits for a reservation looks again. Called without any guard."""
        if self._lenders:
            self._tell_room()

    def swap_due(self) -> bool:
        """As `ZoneStats.swap_due`, a moment old. Waits: never; takes no lock."""
        return sum(charge.clean for charge in self._charges) * CLEAN_FLOOR < self.page_count

    def room(self) -> int:
        """What is open to everybody just now, before any mark. Units: pages."""
        if self._returned:
            self.settle()
        with self._step:
            return self._room(self._shares)

    def stats(self) -> ZoneStats:
        self.settle()
        with self._step:
            clean = sum(charge.clean for charge in self._charges)
            dirty = sum(charge.dirty for charge in self._charges)
            floors = sum(count << order for order, count in unfilled(self._shares).items())
            held = sum(len(share._out) << share.order for share in self._shares)
            count = len(self._shares)
        return ZoneStats(
            self.name, self.page_count, held, clean, dirty, floors, self.marks, count,
            self.light_refusals, self.heavy_refusals,
        )  # fmt: skip

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Zone {self.name!r}: {stats.held_pages} of {self.page_count} pages held, "
            f"{stats.clean_pages} clean, {stats.dirty_pages} dirty, "
            f"{stats.floor_pages} kept for floors, {stats.share_count} shares>"
        )

    def check_invariants(self) -> None:
        """All pages are held, in a stock, or free; and all floors can be filled at once."""
        self.settle()
        with self._step:
            in_use = self.page_count - self._pages.free_pages
            ours = sum(
                (len(share._out) + len(share._stock)) << share.order for share in self._shares
            )
            self._merge()
            self._pages.check_invariants()
            can_serve = self._pages.can_serve(unfilled(self._shares))
            counts = [count for charge in self._charges for count in (charge.clean, charge.dirty)]
            uncharged = self._open - self.page_count + sum(counts)
            clean, firm = self._room_for_clean(), self.firm_room()
        # With the guard given back: what says how an assertion failed may ask for our repr.
        assert in_use == ours, "pages are neither free nor with a share"
        assert can_serve, "a floor was eaten into"
        assert uncharged == 0, "a charge was lost, or counted twice"
        assert all(count >= 0 for count in counts)
        assert clean >= 0, "more is held than there is"
        assert firm >= 0, "more is claimed than there is"


@final
class Share:
    """One user's part in a zone: runs of one order, of which `floor_count` can always be had.

    `_out` grows and `_stock` shrinks only under the zone's guard; `free` does the opposite outside
    it, in this order: for a moment the run is in neither, and so is nobody's to take.
    """

    __slots__ = (
        "_out", "_refused", "_stock", "closed", "floor_count", "name", "off_room", "on_room",
        "order", "zone",
    )  # fmt: skip

    def __init__(self, zone: Zone, order: int, floor_count: int, name: str) -> None:
        self.zone = zone
        self.order = order
        self.floor_count = floor_count
        self.name = name
        self._out: dict[int, PageRun] = {}  # first page -> run, of what is held
        self._stock: list[PageRun] = []  # freed and not merged yet
        self._refused = Refused()
        #: Have a call made, without any lock, when pages come back after `alloc` was refused; or not.
        self.on_room, self.off_room = self._refused.add, self._refused.drop
        self.closed = False

    @property
    def held_count(self) -> int:
        return len(self._out)

    def light(self, gfp: Gfp) -> PageRun | None:
        """The light try: a run if that leaves `low`, or is inside the floor; else None.

        Waits: never. The mask is not looked at: nobody dips below `low` on a first try.
        """
        zone = self.zone
        with zone._guard:
            if self.closed:
                return None
            run = zone._grant(self, zone.marks.low)
            if run is not None:
                self._out[run.first] = run
                return run
            zone.light_refusals += 1
        if zone._returned:
            zone.settle()
        return None

    def alloc(self, gfp: Gfp) -> PageRun | None:
        """The heavy try: a run if that leaves what the mask may not dip below; else None.

        Waits: never. If it is refused, who registered with `on_room` is called once when pages come
        back: the refusal is published before the last look, so no return in between is missed.
        Raises: PoolClosed.
        """
        zone = self.zone
        mark = lowest_mark(int(gfp), zone.marks.min)
        with zone._guard:
            if self.closed:
                raise PoolClosed(f"share {self.name!r} of zone {zone.name!r} is closed")
            run = zone._grant(self, mark)
            if run is None:
                run = self._refused.look_again(self._look_again, mark)
            if run is not None:
                self._out[run.first] = run
                return run
            zone.heavy_refusals += 1
        if zone._returned:
            zone.settle()
        return None

    def _look_again(self, mark: int) -> PageRun | None:
        self.zone._hungry = True  # under the guard
        return self.zone._grant(self, mark)

    @property
    def page_count(self) -> int:
        """Pages of one run."""
        return 1 << self.order

    def take(self, mark: int) -> PageRun | None:
        """One try, of many that a slow path makes: a run if that leaves `mark`.

        Waits: never. Raises: PoolClosed.
        """
        zone = self.zone
        with zone._step:
            if self.closed:
                raise PoolClosed(f"share {self.name!r} of zone {zone.name!r} is closed")
            run = zone._grant(self, mark)
            if run is not None:
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
        if self.closed:
            self.zone._take_back(self)
        if self.zone._hungry:
            self.zone._tell_room()

    def close(self) -> None:
        """Leave the zone: the floor is open to others again.

        Raises: PoolBusy if runs are still held (the share stays as it was).
        """
        if not self.closed:
            self.zone._leave(self)

    def __repr__(self) -> str:
        return (
            f"<Share {self.name!r} of {self.zone.name!r}: {len(self._out)} runs of "
            f"{1 << self.order} pages held, floor {self.floor_count}>"
        )


def unfilled(shares: tuple[Share, ...]) -> dict[int, int]:
    """How many runs of each order the floors still lack."""
    demand: dict[int, int] = {}
    for share in shares:
        lacking = share.floor_count - len(share._out)
        if lacking > 0:
            demand[share.order] = demand.get(share.order, 0) + lacking
    return demand
