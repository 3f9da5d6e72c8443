"""Equal objects carved from pages of a zone: which page gives the next, and to whom.

It knows objects by their place (bytes from the start of the zone) and holds no memory; what users
see of it is `headway.core.mm.slab`. Several users whose objects are of one size may share a cache
(`headway.core.mm.slab_merge`).

Each page remembers its *level*: the mark that the zone kept when it was obtained. At `min` or above
it is ordinary, its objects are for all. Below, it came out of what is kept back for urgent requests,
and with `Entitlement.WATERMARK` its objects go only to who may dip as deep. Who may not, asks for a
page of his own, though there are free objects. If he gets one, the zone is whole again down to his
mark: all levels are raised to that. So the property is: *an object of an emergency page never goes to
who could not have had that page himself*. `Entitlement.PFMEMALLOC` is what Linux has now: only pages
taken regardless of all marks are tagged, until they are freed; `NONE` lets everybody have everything.

An emergency page goes back to the zone as soon as it is empty; of ordinary ones one is kept.

Bound: with WATERMARK at most one page is obtained, while objects are free, for each one that a
request could have had; `extra` counts them.

Source: P. Zijlstra's robustified SLAB (2008); Linux ``mm/slub.c``, ``pfmemalloc_match`` (6.12).
Departures: who is entitled takes from emergency pages first, so that ordinary objects are left for
the others; a page obtained inside the cache's own floor is ordinary and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.oom import Oom
from headway.core.mm.pages import PageRun
from headway.core.mm.slab_merge import Entitlement, SlabSpec
from headway.core.mm.slab_page import Memory, SlabPage, Taker, choose_order
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import lowest_mark
from headway.core.mm.zone import Share
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size

_NOFAIL = int(Gfp.NOFAIL)


class User(Protocol):
    """Who has objects of a cache: `headway.core.mm.slab.Slab`."""

    name: str

    @property
    def at_hand_count(self) -> int:
        """Free objects that it keeps ready, and would give up."""

    def starving(self, hungry: bool, /) -> None:
        """Whether somebody was refused, so that who gives back sees to it. Called under the guard."""

    def fed(self) -> None:
        """Objects or pages came back: whoever was refused may ask again. Called without any lock."""

    def drain(self) -> int:
        """Give back what is kept at hand; how many objects."""

    def carved(self, slots: list[int]) -> None:
        """There are new objects. May raise; then their page goes back."""

    def dropped(self, slots: list[int]) -> None:
        """A page is about to leave: forget its objects."""


@final
class SlabCache:
    """Objects of one size. `_pages` and the two lists change only under `_guard`; counts are statistics.

    A page that has free objects is in `_ordinary` or in `_emergency`, by its level.
    """

    __slots__ = (
        "_emergency", "_guard", "_ordinary", "_pages", "_runtime", "_spare", "_users", "extra",
        "grown", "hungry", "memory", "observe", "path", "per_page", "raised",
        "refused_beside_free", "share", "spec", "stride",
    )  # fmt: skip

    def __init__(
        self,
        path: SlowPath,
        runtime: Runtime,
        memory: Memory,
        spec: SlabSpec,
        order: int | None = None,
    ) -> None:
        zone = path.zone
        self.memory = memory
        self.spec = spec
        self.stride = spec.stride
        if order is None:
            order = choose_order(self.stride, zone.page_bytes, zone.page_count)
        self.per_page = (zone.page_bytes << order) // self.stride
        floor_objects = -(-spec.floor // spec.size)
        self.share: Share = zone.share(order, -(-floor_objects // max(self.per_page, 1)), spec.name)
        self.share.on_room(self.tell)
        self.path = path
        self._runtime = runtime
        self._guard = runtime.guard()
        self._users: tuple[User, ...] = ()
        self._pages: dict[int, SlabPage] = {}  # by number of their run
        self._ordinary: dict[int, SlabPage] = {}  # with free objects, newest last
        self._emergency: dict[int, SlabPage] = {}
        self._spare: SlabPage | None = None  # the ordinary one that is kept though it is empty
        self.hungry = False  # somebody was refused, and wants to hear of what comes back
        self.grown = self.extra = self.raised = self.refused_beside_free = 0
        #: Told ``(what, slot, level, who)`` of each object that a page gives: for tools and tests.
        self.observe: Callable[[str, int, int, str], object] | None = None

    @property
    def least(self) -> int:
        """From this level on a page is ordinary. Units: pages."""
        least = self.path.zone.marks.min
        return min(1, least) if self.spec.entitlement is Entitlement.PFMEMALLOC else least

    # -- users -----------------------------------------------------------------------------------

    def join(self, user: User) -> None:
        with self._guard:
            self._users = (*self._users, user)

    def leave(self, user: User) -> None:
        """Nothing of it is out. The last one to leave ends the cache."""
        if self._users == (user,):
            self.shrink()
            self.share.close()
        with self._guard:
            self._users = tuple(other for other in self._users if other is not user)

    @property
    def users(self) -> tuple[User, ...]:
        return self._users

    # -- taking ----------------------------------------------------------------------------------

    def take(self, gfp: int, who: str = "") -> int | None:
        """A free object that this mask may have, or None. Waits: never."""
        entitled = lowest_mark(gfp, self.path.zone.marks.min)
        with self._guard:
            page = next((p for p in self._emergency.values() if self._may(p, entitled)), None)
            if page is None:
                page = next(reversed(self._ordinary.values()), None)
            if page is None:
                return None
            slot = self._pop(page)
            level = page.level
        self._tell("take", slot, level, who)
        return slot

    def take_ordinary(self, count: int) -> list[int]:
        """Up to `count` objects that everybody may have. Waits: never."""
        taken: list[int] = []
        with self._guard:
            while len(taken) < count and self._ordinary:
                taken.append(self._pop(next(reversed(self._ordinary.values()))))
        return taken

    def _may(self, page: SlabPage, entitled: int) -> bool:
        match self.spec.entitlement:
            case Entitlement.NONE:
                return True
            case Entitlement.PFMEMALLOC:
                return entitled == 0
        return entitled <= page.level

    def _list(self, page: SlabPage) -> dict[int, SlabPage]:
        ordinary = page.level >= self.least or self.spec.entitlement is Entitlement.NONE
        return self._ordinary if ordinary else self._emergency

    def _pop(self, page: SlabPage) -> int:
        slot = page.free.pop()
        if not page.free:
            del self._list(page)[page.run.first]
        return slot

    # -- growing ---------------------------------------------------------------------------------

    def grow_lightly(self, who: str) -> int | None:
        """A page if that leaves `low`; its first object. Waits: never. Raises: what a constructor did."""
        taker = Taker(self.share)
        run = taker.take(self.path.zone.marks.low)
        return None if run is None else self._add(run, taker, who)

    def grow(self, gfp: Gfp, scope: int, who: str) -> Plan[int | None]:
        """A page, by the zone's whole slow path; its first object, or None.

        Asks: as `SlowPath.alloc`. Raises: as that; what a constructor raised.
        """
        taker = Taker(self.share)
        run = yield from self.path.alloc(taker, gfp, scope, who)
        return self._add_or_count(run, taker, who)

    def grow_now(self, gfp: Gfp, who: str) -> int | None:
        """`grow` where nothing gives way: there is nothing to wait for, and no plan to be run, so it may be
        called from inside one (as a driver's completion does, `headway.incidents.e_000`)."""
        taker = Taker(self.share)
        marks = self.path.zone.marks
        run = taker.take(marks.low) or taker.take(lowest_mark(int(gfp), marks.min))
        return self._add_or_count(run, taker, who)

    def must_wait(self, gfp: int) -> bool:
        """Whether the slow path could do more than look."""
        path = self.path
        return bool(len(path.reclaim.shrinkers) or path.oom is not Oom.FAIL or gfp & _NOFAIL)

    def _add_or_count(self, run: PageRun | None, taker: Taker, who: str) -> int | None:
        if run is not None:
            return self._add(run, taker, who)
        if self._emergency:
            self.refused_beside_free += 1
        return None

    def ask_again(self, gfp: Gfp, who: str) -> int | None:
        """After a refusal that is to be heard of when it can be mended: published, then looked once more."""
        with self._guard:
            self.hungry = True
            for user in self._users:
                user.starving(True)
        for user in self._users:
            user.drain()
        slot = self.take(gfp, who)
        if slot is None:
            run = self.share.alloc(gfp)
            if run is not None:
                taker = Taker(self.share)
                taker.mark = lowest_mark(int(gfp), self.path.zone.marks.min)
                slot = self._add(run, taker, who)
        return slot

    def tell(self) -> None:
        """Whoever was refused may ask again. Called without any lock."""
        with self._guard:
            self.hungry = False
            for user in self._users:
                user.starving(False)
        for user in self._users:
            user.fed()

    def _add(self, run: PageRun, taker: Taker, who: str) -> int:
        """Carve a run, and take its first object."""
        zone = self.path.zone
        first = run.first * zone.page_bytes
        slots = [first + number * self.stride for number in reversed(range(self.per_page))]
        self._carve(run, slots)
        level = zone.marks.min if taker.inside else min(taker.mark, zone.marks.min)
        page = SlabPage(run, level, slots)
        with self._guard:
            self.grown += 1
            if self._emergency or self._ordinary:
                self.extra += 1
            self._pages[run.first] = page
            self._list(page)[run.first] = page
            slot = self._pop(page)
            if not taker.inside and self.spec.entitlement is Entitlement.WATERMARK:
                self._raise_levels(level)
        self._tell("grow", slot, level, who)
        return slot

    def _carve(self, run: PageRun, slots: list[int]) -> None:
        carved: list[User] = []
        self.memory.lend(run)
        try:
            for user in self._users:
                carved.append(user)
                user.carved(slots)
        except BaseException:
            for user in carved:
                user.dropped(slots)
            self.memory.take_back(run)
            self.share.free(run)
            raise

    def _raise_levels(self, level: int) -> None:
        """The zone is whole again down to this mark: what was taken below it is an emergency no more."""
        for page in self._pages.values():
            if page.level < level:
                self._emergency.pop(page.run.first, None)
                page.level = level
                self.raised += 1
                if page.free:
                    self._list(page)[page.run.first] = page

    # -- giving back -----------------------------------------------------------------------------

    def give(self, slot: int) -> None:
        """An object is free. Waits: never."""
        page = self._pages[self._page_of(slot)]
        gone: SlabPage | None = None
        with self._guard:
            page.free.append(slot)
            self._list(page)[page.run.first] = page
            if len(page.free) == self.per_page and self._is_surplus(page):
                gone = page
                self._take_out(page)
        if gone is not None:
            self._release(gone)

    def _page_of(self, slot: int) -> int:
        pages = slot // self.path.zone.page_bytes
        return pages & -(1 << self.share.order)  # runs are aligned to their size

    def is_ordinary(self, slot: int) -> bool:
        page = self._pages[self._page_of(slot)]
        return page.level >= self.least or self.spec.entitlement is Entitlement.NONE

    def _is_surplus(self, page: SlabPage) -> bool:
        if page.level < self.path.zone.marks.min:
            return True  # the zone wants it back
        spare = self._spare
        if spare is None or spare is page or len(spare.free) < self.per_page:
            self._spare = page
            return False
        return True

    def _take_out(self, page: SlabPage) -> None:
        del self._pages[page.run.first]
        del self._list(page)[page.run.first]
        if self._spare is page:
            self._spare = None

    def _release(self, page: SlabPage) -> None:
        for user in self._users:
            user.dropped(page.free)
        self.memory.take_back(page.run)
        self.share.free(page.run)

    def shrink(self) -> int:
        """Give every empty page back to the zone; how many bytes that were. Waits: never."""
        with self._guard:
            empty = [page for page in self._pages.values() if len(page.free) == self.per_page]
            for page in empty:
                self._take_out(page)
        for page in empty:
            self._release(page)
        return len(empty) * self.path.zone.page_bytes << self.share.order

    # -- looking ---------------------------------------------------------------------------------

    def idle_pages(self) -> int:
        """Pages of the zone that `shrink` would give back, after users gave up what they have at hand."""
        at_hand = sum(user.at_hand_count for user in self._users)
        empty = sum(len(page.free) == self.per_page for page in self.pages())
        return (empty + at_hand // self.per_page) << self.share.order

    def pages(self) -> tuple[SlabPage, ...]:
        """As they are now, oldest first: for tools and tests."""
        with self._guard:
            return tuple(self._pages.values())

    @property
    def free_count(self) -> int:
        """Free objects of its pages, whoever may have them."""
        return sum(len(page.free) for page in self.pages())

    def _tell(self, what: str, slot: int, level: int, who: str) -> None:
        if self.observe is not None:
            self.observe(what, slot, level, who or self._runtime.owner())

    def __repr__(self) -> str:
        pages = self.pages()
        return (
            f"<SlabCache {self.spec.name!r}: {len(pages)} pages of {self.per_page} x "
            f"{format_size(self.stride)}, {sum(len(page.free) for page in pages)} objects free>"
        )

    def check_invariants(self, out_count: int) -> None:
        """Every object of every page is free once, or one of `out_count` that users have."""
        pages = self.pages()
        free = [slot for page in pages for slot in page.free]
        assert len(dict.fromkeys(free)) == len(free), "an object is free twice"
        assert len(free) + out_count == len(pages) * self.per_page, "an object was lost"
        for page in pages:
            key = page.run.first
            there = (key in self._ordinary) + (key in self._emergency)
            assert there == bool(page.free), f"{page} is in {there} lists"
            assert not page.free or key in self._list(page), f"{page} is in the wrong list"
            assert all(self._page_of(slot) == key for slot in page.free)
        assert self.share.held_count == len(pages)
