"""Who may have a page: the ways proposed in 2001 for write-out to get the one that it writes with.

Each design is the few lines in which it differs from an allocator that tries again. What runs them, and
on what, is `bench.argument`. All stand on one zone of headway's; its page cache fills all that is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from headway.core.mm import reservation as core
from headway.core.mm.charge import Charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.pools import BackedMempool
from headway.core.mm.shrinker import ScanControl
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.core.plan import Park, Plan, Runtime, Ticket
from headway.runtimes.threads import THREADS

PAGES, PINNED = 64, 16
PROMISED = 2  # what a design sets aside: one page for each write-out
FLOOR = 3  # clean pages that stay: a twentieth
TICK_S = 0.005


def pause(seconds: float) -> Plan[None]:
    yield Park(Ticket("time"), seconds)


class World:
    """The zone, the page cache that fills all that is free, and what happened."""

    def __init__(self, runtime: Runtime, *, emergency: int = 0) -> None:
        self.runtime = runtime
        marks = Watermarks(emergency, emergency, emergency)
        self.zone = Zone(PAGES, marks, runtime=runtime)
        self.cache = Charge(self.zone, "page cache")
        self.share = self.zone.share(0, name="everybody")
        self.most_cached = PAGES
        self.written = self.made_dirty = 0
        self.waits: dict[str, float] = {"write-out": 0.0, "writer": 0.0}
        self.calm_idle = 0
        self.line: deque[str] = deque()  # writers who wait, in order

    def fill(self) -> None:
        """The cache reads ahead: free memory is wasted memory."""
        while self.cache.clean + self.cache.dirty < self.most_cached and self.cache.take(
            self.zone.marks.min
        ):
            pass

    def take(self, mark: int = 0, clean_left: int = 0) -> PageRun | None:
        """A free page, else the oldest clean one, dropped without I/O. Leaves `clean_left` of those."""
        run = self.share.take(mark)
        if run is None and self.cache.clean > clean_left:
            self.cache.give(1)
            run = self.share.take(mark)
            self.fill()  # if it was in vain: what was dropped is read again
        return run

    def free(self, run: PageRun) -> None:
        self.share.free(run)
        self.fill()

    @property
    def free_pages(self) -> int:
        return self.zone.room()


class Dropping:
    """The page cache as a shrinker: what is clean is dropped without I/O."""

    def __init__(self, world: World) -> None:
        self.world = world

    def count_objects(self, control: ScanControl) -> int:
        return self.world.cache.clean

    def scan_objects(self, control: ScanControl) -> int:
        dropped = min(control.scan_count, self.world.cache.clean)
        self.world.cache.give(dropped)
        return dropped


class Design:
    """An allocator that tries again: there is nothing else. The others say what they do differently."""

    name = "retrying allocator"
    emergency = 0
    most_cached = PAGES

    def set_up(self, world: World) -> None:
        self.world = world

    def may_dirty(self) -> bool:
        return self.world.cache.clean > 0

    def soil(self) -> bool:
        """Make a clean page dirty, if the design allows it."""
        return self.may_dirty() and self.world.cache.soil(1)

    def others_take(self) -> PageRun | None:
        return self.world.take(self.world.zone.marks.min)

    def page(self, who: str) -> Plan[Any]:
        while (run := self.world.take()) is None:
            yield from pause(TICK_S)
        return run

    def put(self, page: Any) -> None:
        self.world.free(page)

    def idle(self) -> int:
        """Pages that are set aside, and hold nothing for anybody."""
        return 0

    def pair(self) -> Callable[[], object]:
        """Taking and giving back one page, where there are enough: what everybody pays all the time."""
        share = self.world.share
        return lambda: share.free(share.take(0))  # type: ignore[arg-type]


class Emergency(Design):
    """What Linux adds to it: pages below `min` that only write-out may take (PF_MEMALLOC)."""

    name = "the same, memory below min for write-out"
    emergency = PROMISED

    def idle(self) -> int:
        return max(0, self.world.free_pages)


class Pool(Design):
    """Ingo Molnar: a closed circuit of elements, allocated beforehand."""

    name = "mempool"

    def set_up(self, world: World) -> None:
        super().set_up(world)
        self.pool: BackedMempool[Any] = BackedMempool(
            self, min_count=PROMISED, runtime=world.runtime, name="write-out"
        )

    def alloc(self, gfp: Gfp) -> PageRun | None:
        return self.world.take()

    light = alloc

    def free(self, run: PageRun) -> None:
        self.world.free(run)

    def page(self, who: str) -> Plan[Any]:
        taken = yield from self.pool.alloc_plan(Gfp.KERNEL, 0, who, 1, None)
        assert taken is not None
        return taken[0]

    def put(self, page: Any) -> None:
        self.pool.free(page)

    def idle(self) -> int:
        return self.pool.stats().reserve_count

    def pair(self) -> Callable[[], object]:
        share, made = self.world.share, (lambda gfp: self.world.share.take(0))
        backend = type("Backend", (), {"alloc": staticmethod(made), "light": staticmethod(made),
                                       "free": staticmethod(share.free)})()  # fmt: skip
        pool: BackedMempool[Any] = BackedMempool(
            backend, min_count=PROMISED, runtime=THREADS, name="p"
        )
        return lambda: pool.free(pool.alloc())


class _NoBytes:
    """What lies in a page does not matter here: a draw gives an object that stands for it."""

    def lend(self, run: PageRun) -> None: ...
    def take_back(self, run: PageRun) -> None: ...
    def drop(self, element: Any) -> None: ...
    def cut(self, offset: int, size: int) -> Any:
        return bytearray(1)


class Reservations(Design):
    """Ben LaHaise: admission. What is promised is lent to clean data, and kept from dirty data.

    It is headway's own (`headway.core.mm.reservation`): one promise, of a page for each write-out.
    """

    name = "reservations"

    def set_up(self, world: World) -> None:
        super().set_up(world)
        path = SlowPath(world.zone, world.runtime)
        path.reclaim.shrinkers.register(Dropping(world))
        self.of: core.Reservations[Any] = core.Reservations(
            path, runtime=world.runtime, memory=_NoBytes(), name="journal"
        )
        promise = self.of.try_reserve(PROMISED, "write-out")
        assert promise is not None, "it is asked for before memory is full"
        self.promise = promise

    def page(self, who: str) -> Plan[Any]:
        page = yield from self.promise.draw_plan(0, who)
        self.world.fill()  # more may have been dropped than was needed
        return page

    def put(self, page: Any) -> None:
        self.promise.free(page)
        self.world.fill()

    def idle(self) -> int:
        return max(0, PROMISED - self.promise.drawn - self.world.cache.clean)

    def draw(self) -> Callable[[], object]:
        """Drawing on the promise and giving back, where there are pages enough."""
        promise = self.promise
        return lambda: promise.free(promise.draw())


class Classes(Design):
    """Stephan von Krawczynski: clean pages dropped in their order, never fewer than a floor of them."""

    name = "page classes, clean floor"

    def may_dirty(self) -> bool:
        return self.world.cache.clean > FLOOR

    def others_take(self) -> PageRun | None:
        return self.world.take(clean_left=FLOOR)

    def pair(self) -> Callable[[], object]:
        share, cache = self.world.share, self.world.cache
        return lambda: share.free(share.take(0)) if cache.clean >= 0 else None  # type: ignore[arg-type]


class FixedCache(Design):
    """The variant he weighs and rejects: the page cache has a fixed size, the rest is left free."""

    name = "page classes, cache of a fixed size"
    most_cached = PAGES // 2

    def idle(self) -> int:
        return max(0, self.world.free_pages)


DESIGNS: tuple[type[Design], ...] = (Design, Emergency, Pool, Reservations, Classes, FixedCache)
