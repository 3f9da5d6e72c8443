"""Admission: a promise of so many buffers, given or put off at once; what is promised and idle is lent.

It does not reclaim or hand out pages by itself; `headway.core.mm.zone` keeps a floor for each set of
reservations, and this moves the floor. A request is answered at once: *yes*, if the zone can keep the
promise whoever else asks for what, or *wait*, in order of arrival. A buffer drawn on a promise
cannot fail.

What is promised and not drawn lies idle, most of it for ever. So clean cache may lie in it meanwhile
(`Charge.take` counts only what is held of such a floor), and a draw that finds no free page drops
clean data, without I/O. Dirty data cannot be dropped, so it is kept out: `Charge.soil` refuses what
would leave less than was promised, and the cache writes it through instead. In the sum::

    held + dirty + promised + min <= total

Reserves form trees: each node has a need of its own, and the root promises the sum of all. So a part
that is added later (a socket's buffers under a device's) is admitted before it is used.

Bound: a request waits until enough was released by those before it. A draw waits for no I/O and no
holder; only for a cache's guard, which another thread may have for a moment.

Source: B. LaHaise's reservations in "mempool-2.5.1-D2" (2001); P. Zijlstra's ``mem_reserve`` trees
of the swap-over-network series (2008).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Generic, TypeVar, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.reclaim import TICK_S, Patience
from headway.core.mm.slab_page import Memory
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.zone import Share, unfilled
from headway.core.plan import Plan, Runtime, Ticket, now, park
from headway.core.units import format_size
from headway.errors import NoMemory, PoolBusy, PoolTimeout, UsageError

E = TypeVar("E")

_CLEAN: Final = Gfp(0)  # a draw may drop what is clean: no I/O, no code above us, no waiting


class Reservations(Generic[E]):
    """Promises of buffers of 2**order pages of one zone. Thread-safe.

    `_line` and the nodes' counts change under the zone's guard.
    """

    __slots__ = ("_line", "_memory", "_runtime", "_views", "lent_back", "name", "path",
                 "share", "size_bytes", "waits")  # fmt: skip

    def __init__(
        self,
        path: SlowPath,
        *,
        runtime: Runtime,
        memory: Memory,
        order: int = 0,
        size_bytes: int | None = None,
        name: str = "reservations",
    ) -> None:
        self.name = name
        self.path = path
        self.share: Share = path.zone.share(order, name=name, lends=True)
        self.size_bytes = size_bytes or path.zone.page_bytes << order
        self.lent_back = 0  # draws that had to drop clean data
        self.waits = 0
        self._runtime = runtime
        self._memory = memory
        self._line: deque[Ticket] = deque()  # who waits for an admission, first come first
        self._views: dict[int, tuple[E, PageRun]] = {}  # by key: what is drawn

    # -- admission -------------------------------------------------------------------------------

    def try_reserve(
        self, count: int, name: str = "reserve", parent: Reserve[E] | None = None
    ) -> Reserve[E] | None:
        """The promise of `count` buffers, or None: an order to wait. Answers at once.

        Raises: UsageError if the zone could never promise so many.
        """
        self._check(count, name)
        with self.path.zone._step:
            if self._line or not self._admit(count):
                return None
            return Reserve(self, count, name, parent)

    def reserve(
        self,
        count: int,
        name: str = "reserve",
        parent: Reserve[E] | None = None,
        timeout_s: float | None = None,
    ) -> Reserve[E]:
        """The promise of `count` buffers; waits for it in order of arrival.

        Raises: PoolTimeout; UsageError if the zone could never promise so many.
        """
        runtime = self._runtime
        return runtime.run(self.reserve_plan(count, name, runtime.owner(), parent, timeout_s))

    def reserve_plan(
        self,
        count: int,
        name: str,
        who: str,
        parent: Reserve[E] | None = None,
        timeout_s: float | None = None,
    ) -> Plan[Reserve[E]]:
        """`reserve` as a plan. Asks: Now, Park."""
        self._check(count, name)
        zone = self.path.zone
        place = Ticket(f"{who} for {name} of {self.name}")  # says only where we are in the line
        with zone._step:
            if not self._line and self._admit(count):
                return Reserve(self, count, name, parent)
            self._line.append(place)
            self.waits += 1
        began_s = yield from now()
        left_s = timeout_s
        try:
            while True:
                ticket = Ticket(place.who)
                zone.expect_room(ticket)
                try:
                    with zone._step:
                        if self._line[0] is place and self._admit(count):
                            return Reserve(self, count, name, parent)
                    if left_s is not None and left_s <= 0:
                        raise PoolTimeout(
                            f"{self.name!r}: {count} for {name!r} were not promised in "
                            f"{timeout_s} s; {self._say()}",
                            pool=self.name,
                            waited_s=timeout_s or 0.0,
                        )
                    yield from park(ticket, left_s)
                finally:
                    zone.forget(ticket)
                if timeout_s is not None:
                    left_s = timeout_s - ((yield from now()) - began_s)
        finally:
            with zone._step:
                self._line.remove(place)
            self._tell()  # the next is the first now

    def _check(self, count: int, name: str) -> None:
        zone, share = self.path.zone, self.share
        others = sum(
            one.floor_count << one.order for one in zone._shares if one not in zone._lenders
        )
        most = (zone.page_count - zone.marks.min - others) >> share.order
        if not 0 <= count <= most:
            raise UsageError(
                f"{self.name!r}: {count} buffers of {format_size(self.size_bytes)} for {name!r} can "
                f"never be promised; the zone can promise {most}"
            )

    def _admit(self, count: int) -> bool:
        """Under the zone's guard: raise the floor by `count`, if that can be kept whatever happens."""
        zone, share = self.path.zone, self.share
        share.floor_count += count
        zone._merge()
        if zone.firm_room() >= zone.marks.min and zone._pages.can_serve(unfilled(zone._shares)):
            return True
        share.floor_count -= count
        return False

    def _tell(self) -> None:
        """Something was released: those who wait look again."""
        self.path.zone._hungry = True
        self.path.zone._tell_room()

    # -- drawing ---------------------------------------------------------------------------------

    def draw_plan(self, node: Reserve[E], scope: int, who: str) -> Plan[E]:
        """One buffer of what `node` was promised. Asks: what dropping clean data asks, and Park."""
        node.book()
        patience = Patience()
        try:
            run = self._take()
            while run is None:
                self.lent_back += 1
                pages = self.share.page_count
                freed = yield from self.path.reclaim.direct(
                    _CLEAN, scope, who, pages, self._is_open
                )
                run = self._take()
                if run is None:
                    if not patience.bears(freed):
                        raise NoMemory(
                            f"{self.name!r}: the promise to {node.name!r} cannot be kept: something "
                            f"that is charged as clean was not dropped; {self._say()}"
                        )
                    yield from self._pause(who)
        except BaseException:
            node.unbook()
            raise
        return self._lend(run)

    def draw_now(self, node: Reserve[E]) -> E | None:
        """A buffer if a page is free; None if clean data has to be dropped first. Waits: never."""
        node.book()
        run = self._take()
        if run is None:
            node.unbook()
            return None
        return self._lend(run)

    def _take(self) -> PageRun | None:
        zone, share = self.path.zone, self.share
        with zone._step:
            if not self._is_open():
                return None
            run = zone._grant(share, 0)
            assert run is not None, "a floor was not honoured"
            share._out[run.first] = run
            return run

    def _is_open(self) -> bool:
        """Whether a page is free in fact, with nothing lying in it, and in no floor but ours."""
        return self.path.zone._room_for_clean() >= self.share.page_count

    def _pause(self, who: str) -> Plan[None]:
        zone = self.path.zone
        ticket = Ticket(f"{who} for a cache's guard")
        zone.expect_room(ticket)
        try:
            yield from park(ticket, TICK_S)
        finally:
            zone.forget(ticket)

    def _lend(self, run: PageRun) -> E:
        self._memory.lend(run)
        view: E = self._memory.cut(run.first * self.path.zone.page_bytes, self.size_bytes)
        self._views[self._runtime.key(view)] = (view, run)
        return view

    def _take_back(self, element: E) -> None:
        found = self._views.pop(self._runtime.key(element), None)
        if found is None:
            raise UsageError(f"{self.name!r}: free of {element!r}, which was not drawn from here")
        self._memory.drop(element)
        self._memory.take_back(found[1])
        self.share.free(found[1])

    def _say(self) -> str:
        zone, share = self.path.zone, self.share
        stats = zone.stats()
        sizes = {
            "promised": share.floor_count << share.order,
            "held": stats.held_pages,
            "dirty": stats.dirty_pages,
        }
        told = ", ".join(f"{format_size(n * zone.page_bytes)} {what}" for what, n in sizes.items())
        return f"of {format_size(zone.page_count * zone.page_bytes)}, {told}"

    def close(self) -> None:
        """Leave the zone. Raises: PoolBusy if promises are open."""
        if self.share.floor_count:
            raise PoolBusy(
                f"{self.name!r} closed with {self.share.floor_count} buffers promised; release them "
                "first",
                pool=self.name,
                count=self.share.floor_count,
            )
        self.share.close()

    @property
    def closed(self) -> bool:
        return self.share.closed

    def __repr__(self) -> str:
        return (
            f"<Reservations {self.name!r}: {self.share.floor_count} x "
            f"{format_size(self.size_bytes)} promised, {self.share.held_count} drawn, "
            f"{len(self._line)} waiting>"
        )


@final
class Reserve(Generic[E]):
    """One promise, a node of a tree. `limit` and `drawn` change under the zone's guard."""

    __slots__ = ("children", "drawn", "limit", "name", "of", "parent")

    def __init__(
        self, of: Reservations[E], limit: int, name: str, parent: Reserve[E] | None
    ) -> None:
        self.of = of
        self.limit = limit  # of its own, without its children
        self.name = name
        self.parent = parent
        self.drawn = 0
        self.children: tuple[Reserve[E], ...] = ()
        if parent is not None:
            parent.children = (*parent.children, self)

    @property
    def total(self) -> int:
        """What it and all below it were promised: what its root has to hold."""
        return self.limit + sum(child.total for child in self.children)

    def child(self, count: int, name: str, timeout_s: float | None = None) -> Reserve[E]:
        """A part of this reserve, admitted as `Reservations.reserve`."""
        return self.of.reserve(count, name, self, timeout_s)

    def try_child(self, count: int, name: str) -> Reserve[E] | None:
        """A part of this reserve, or None: an order to wait."""
        return self.of.try_reserve(count, name, self)

    def draw(self) -> E:
        """One of the buffers that were promised. Waits: for no I/O and no holder.

        Shape: writable, contiguous, of the size asked for; yours till `free`.
        Raises: UsageError if all that was promised is drawn.
        """
        drawn = self.of.draw_now(self)
        if drawn is not None:
            return drawn
        runtime = self.of._runtime
        return runtime.run(self.of.draw_plan(self, runtime.scope(), runtime.owner()))

    def draw_plan(self, scope: int, who: str) -> Plan[E]:
        """`draw` as a plan."""
        return (yield from self.of.draw_plan(self, scope, who))

    def alloc(self, gfp: Gfp) -> E | None:
        """For a mempool over this reserve: None where all that was promised is drawn."""
        try:
            return self.draw()
        except UsageError:
            return None

    def free(self, element: E) -> None:
        """Give a buffer back: it is promised again. Waits: never."""
        self.of._take_back(element)
        self.unbook()

    def release(self) -> None:
        """Give up what is not drawn; what is comes home later, and is released by calling this again.

        Those who wait for an admission look again, in order. Parts are released first.
        Raises: PoolBusy if parts of it are open.
        """
        if self.children:
            names = ", ".join(repr(child.name) for child in self.children)
            raise PoolBusy(
                f"reserve {self.name!r} released with parts open: {names}; release them first",
                pool=self.name,
                count=len(self.children),
            )
        with self.of.path.zone._step:
            idle = self.limit - self.drawn
            self.limit -= idle
            self.of.share.floor_count -= idle
            parent = self.parent
            if parent is not None and not self.limit and self in parent.children:
                parent.children = tuple(one for one in parent.children if one is not self)
        self.of._tell()

    def book(self) -> None:
        with self.of.path.zone._step:
            if self.drawn >= self.limit:
                raise UsageError(
                    f"reserve {self.name!r}: all {self.limit} buffers that were promised are drawn; "
                    "reserve as many as the worst case holds at once"
                )
            self.drawn += 1

    def unbook(self) -> None:
        with self.of.path.zone._step:
            self.drawn -= 1

    def __enter__(self) -> Reserve[E]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Reserve {self.name!r}: {self.drawn} of {self.limit} drawn, {self.total} in all>"

    def check_invariants(self) -> None:
        assert 0 <= self.drawn <= self.limit
        for child in self.children:
            child.check_invariants()


def check_sum(of: Reservations[Any], roots: list[Reserve[Any]]) -> None:
    """The floor is the sum of all trees, and what is drawn is what the zone has out for them."""

    def drawn(node: Reserve[Any]) -> int:
        return node.drawn + sum(drawn(child) for child in node.children)

    for root in roots:
        root.check_invariants()
    assert of.share.floor_count == sum(root.total for root in roots)
    assert of.share.held_count == sum(drawn(root) for root in roots) == len(of._views)
