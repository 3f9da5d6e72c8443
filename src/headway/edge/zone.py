"""A zone with memory in it: the core's decisions about pages, joined to an arena's bytes.

It decides nothing. `Zone.buffers` gives a backend for a mempool, whose elements are writable views
of the arena; NumPy, ``readinto``, ``preadv`` and sockets take them without a copy. Caches that give
way are charged to the zone (`headway.core.mm.cache`): their objects lie outside the arena, and count.

Source: the page allocator's place in Linux, ``mm/page_alloc.c``: pages below, pools above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from headway.core.mm import zone as core
from headway.core.mm.balloon import LAST, PRESSURE, Balloon
from headway.core.mm.gfp import Gfp
from headway.core.mm.kswapd import Kswapd
from headway.core.mm.oom import Oom, Victim
from headway.core.mm.pages import PageRun, order_for
from headway.core.mm.shrinker import SEEKS, PlanShrinker, Registration, Shrinker
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.plan import Runtime
from headway.core.units import format_size, parse_size
from headway.edge import ndarray
from headway.edge.arena import PAGE_BYTES, Arena
from headway.edge.buffers import Buffers, Obtaining, WatchedBuffers
from headway.edge.lending import Lending, written_after_free
from headway.edge.pressure import read_memory
from headway.errors import NoMemory, PoolBusy, UsageError

if TYPE_CHECKING:
    from headway.core.mm import dirty
    from headway.core.mm.slab_caches import SlabCaches
    from headway.core.mm.slab_page import Memory


@final
@dataclass(frozen=True, slots=True)
class ZoneStats:
    """A snapshot. Units: bytes, except the counts."""

    name: str
    size: int
    held: int  # by buffers that are out
    clean: int  # charged to caches, and can be dropped
    dirty: int  # charged to caches, and has to be written back first
    free: int
    given_back: int  # with the system, under pressure from outside
    kept_for_floors: int
    min: int
    low: int
    high: int
    huge: int  # on huge pages, as verified when the zone was made
    locked: bool
    user_count: int
    light_refusals: int
    heavy_refusals: int
    shrinker_count: int
    reclaimed: int  # in all, as the shrinkers told it
    direct_reclaims: int
    background_reclaims: int
    throttled: int
    oom_count: int
    raised_count: int  # errors of shrinkers and of the oom callback: the log has their words
    swap_due: bool  # clean cache is below a twentieth of the zone
    findings: int  # of debug mode: buffers written to after they were freed


class Zone:
    """One arena of `size`, shared by any number of users: a hard limit, and memory that is there.

    `min_free` is kept back from ordinary requests; None chooses it by the kernel's formula, 0 keeps
    nothing back. `lock` keeps the arena from being swapped out. `debug` catches use after free, at
    the price of a pass over each buffer when it is taken and when it is freed. `oom` is what happens
    to a request that may fail, when nothing is free and nothing can be reclaimed: a policy, or a
    callback that is told and says whether it made somebody give back. A size that is no whole
    number of pages is rounded down.

    Raises: UsageError if the size or `min_free` make no zone; NoMemory if the memory cannot be had
    now, or cannot be locked.
    """

    __slots__ = (
        "__weakref__", "_arena", "_balloon", "_caches", "_core", "_findings", "_kswapd", "_lending",
        "_path", "_runtime", "_slabs", "_users", "_warm", "closed", "name",
    )  # fmt: skip

    def __init__(
        self,
        size: int | str,
        *,
        runtime: Runtime,
        name: str = "zone",
        min_free: int | str | None = None,
        lock: bool = False,
        huge: bool = True,
        debug: bool = False,
        oom: Oom | Victim = Oom.FAIL,
    ) -> None:
        page_count = parse_size(size, f"size of zone {name!r}") // PAGE_BYTES
        if not page_count:
            raise UsageError(
                f"size of zone {name!r} is {size!r}; it must be a page ({PAGE_BYTES} bytes) or more"
            )
        min_pages = None
        if min_free is not None:
            min_pages = -(-parse_size(min_free, f"min_free of zone {name!r}") // PAGE_BYTES)
        marks = Watermarks.of(page_count, PAGE_BYTES, min_pages)
        self.name = name
        self.closed = False
        self._runtime = runtime
        self._core = core.Zone(page_count, marks, runtime=runtime, name=name, page_bytes=PAGE_BYTES)
        self._arena = Arena(page_count * PAGE_BYTES, huge=huge, lock=lock)
        self._lending = Lending(self._arena) if debug else None
        self._findings = 0
        self._path = SlowPath(self._core, runtime, oom)
        self._kswapd = Kswapd(self._core, self._path.reclaim, runtime)
        self._path.reclaim.background = self._kswapd
        self._path.reclaim.shrinkers.changed = self._choose_doors
        self._caches: tuple[Any, ...] = ()
        self._slabs: SlabCaches | None = None
        self._users: tuple[Buffers | WatchedBuffers, ...] = ()
        self._balloon: Balloon | None = None
        self._warm: dict[int, Buffers] = {}  # order -> buffers of arrays; grows by `setdefault`

    def buffers(
        self, size: int | str, *, floor: int | str = 0, name: str = "buffers"
    ) -> Buffers | WatchedBuffers:
        """A backend of buffers of `size`, for `Mempool` or to be used by itself.

        `floor`: so much of the zone this user can always have, even if others ask for everything.
        Memory is lent in runs of 2**k pages: a size just above one wastes up to half.

        Raises: UsageError if the zone could never give it, whoever gives back what; NoMemory if the
        floor fits, but not beside what others hold just now.
        """
        size_bytes = parse_size(size, f"size of {name!r}")
        if not size_bytes:
            raise UsageError(f"size of {name!r} is {size!r}; a buffer has at least 1 byte")
        floor_count = -(-parse_size(floor, f"floor of {name!r}") // size_bytes)
        order = order_for(-(-size_bytes // PAGE_BYTES))
        try:
            share = self._core.share(order, floor_count, name)
        except NoMemory:
            if not self.reclaim(floor_count * PAGE_BYTES << order):  # the balloon is asked too
                raise
            share = self._core.share(order, floor_count, name)
        obtain = Obtaining(share, self._path, self._runtime)
        user: Buffers | WatchedBuffers
        if self._lending is None:
            user = Buffers(share, obtain, self._arena, size_bytes)
        else:
            user = WatchedBuffers(share, obtain, self._lending, size_bytes, self._found)
        self._users = (*(other for other in self._users if not other.closed), user)
        user.choose_door(len(self._path.reclaim.shrinkers) > 0)
        return user

    def ndarray(
        self, shape: int | tuple[int, ...], dtype: Any = float, *, gfp: Gfp = Gfp.KERNEL
    ) -> Any:
        """A `numpy.ndarray` in the zone's memory, as ``numpy.empty``: warm, and aligned to pages.

        It is given back when the array, and all that was made from it, is gone. ZERO in `gfp` gives
        zeros. It takes the power of two of pages that it fits into. Waits: as `Buffers.alloc`.
        Raises: NoMemory if it cannot be had now; UsageError if the zone could never give it, is in
        debug mode, or the type has references; MissingExtra without numpy.
        """
        return ndarray.make(self._warm_buffers, shape, dtype, gfp, self.name)

    def _warm_buffers(self, size_bytes: int) -> Buffers:
        order = order_for(-(-size_bytes // PAGE_BYTES))
        found = self._warm.get(order)
        if found is not None:
            return found
        size = PAGE_BYTES << order
        made = self.buffers(size, name=f"arrays of {format_size(size)}")
        if not isinstance(made, Buffers):
            made.close()
            raise UsageError(
                f"zone {self.name!r} is in debug mode, where memory comes back only after what was made from "
                "it is gone; use buffers() and numpy.frombuffer there"
            )
        kept = self._warm.setdefault(order, made)
        if kept is not made:  # another thread was first
            made.close()
        return kept

    def _choose_doors(self, something_gives_way: bool) -> None:
        for user in self._users:
            user.choose_door(something_gives_way)

    def register_shrinker(
        self,
        shrinker: Shrinker | PlanShrinker,
        *,
        name: str = "shrinker",
        object_size: int | str = PAGE_BYTES,
        seeks: int = SEEKS,
        batch: int | None = None,
        needs: Gfp = Gfp.FS,
    ) -> Registration:
        """Have something asked to give back when the zone runs low: ``count_objects``, ``scan_objects``.

        What it gives back are buffers of this zone (or other things of `object_size` each, freed by
        the time it says so). The lower `seeks`, what it costs to have an object again, the sooner it
        is asked. `needs`: it is called only for requests whose mask has these bits; FS says that it
        is code above the allocation. Call ``unregister()`` on the answer to end it.
        Raises: UsageError if the numbers make no shrinker.
        """
        size_bytes = parse_size(object_size, f"object size of {name!r}")
        return self._path.reclaim.shrinkers.register(
            shrinker, name=name, seeks=seeks, batch=batch, needs=needs,
            object_pages=max(1, size_bytes // PAGE_BYTES),
        )  # fmt: skip

    def reclaim(self, size: int | str) -> int:
        """Have `size` bytes given back now, of what gives way; how many were, as told. Waits: for that."""
        pages = -(-parse_size(size, "size to reclaim") // PAGE_BYTES)
        scope, who = self._runtime.scope(), self._runtime.owner()
        plan = self._path.reclaim.direct(Gfp.KERNEL, scope, who, pages)
        return self._runtime.run(plan) * PAGE_BYTES

    def give_back(self, size: int | str) -> int:
        """Give `size` bytes of the arena to the system, or what there is; how many were given.

        Caches are asked first, if that much is not free. What others have a claim to stays: floors,
        and the mark `high`. The zone is smaller by it until `take_back`, or until one of its own
        requests would fail otherwise, and the system has room. From the first time on, a request
        that finds nothing takes the slow path. Nothing is given by a zone that is locked, or in
        debug mode. Waits: for the caches, as `reclaim`.
        """
        wanted = parse_size(size, "size to give back")
        if self._arena.locked or self._lending is not None:
            return 0
        balloon = self._balloon
        if balloon is None:
            balloon = self._balloon = Balloon(
                self._core, self._runtime, self._release_run, self._restore_run
            )
            self._path.reclaim.shrinkers.register(
                balloon, name="balloon", seeks=LAST, object_pages=balloon.run_pages
            )
        pages = -(-wanted // PAGE_BYTES)
        missing = pages - balloon.spare_pages()
        if missing > 0:
            plan = self._path.reclaim.direct(Gfp.KERNEL, self._runtime.scope(), PRESSURE, missing)
            self._runtime.run(plan)
        return balloon.inflate(pages) * PAGE_BYTES

    def take_back(self, size: int | str | None = None) -> int:
        """Take `size` bytes back from the system, or all; how many were. They are present again then.

        What the system has no room for stays there. Waits: never, but for the kernel.
        """
        if self._balloon is None:
            return 0
        wanted = self.size if size is None else parse_size(size, "size to take back")
        return self._balloon.deflate(-(-wanted // PAGE_BYTES)) * PAGE_BYTES

    @property
    def spare(self) -> int:
        """Bytes that could be given back as they are: free, in no floor, above `high`."""
        return max(0, self._core.room() - self._core.marks.high) * PAGE_BYTES

    def _release_run(self, run: PageRun) -> bool:
        return self._arena.release(run.first * PAGE_BYTES, run.page_count * PAGE_BYTES)

    def _restore_run(self, run: PageRun) -> bool:
        """Only where it fits twice: whoever is over its limit is killed, not refused."""
        size_bytes = run.page_count * PAGE_BYTES
        headroom = read_memory().headroom
        if headroom is not None and headroom < 2 * size_bytes:
            return False
        return self._arena.restore(run.first * PAGE_BYTES, size_bytes)

    def slow_path(self) -> SlowPath:
        """The decisions of this zone, for what is charged to it (`headway.ShrinkableCache`)."""
        return self._path

    def slab_caches(self, memory: Callable[[], Memory]) -> SlabCaches:
        """The slab caches of this zone, and what was decided about each (`headway.Slab`)."""
        from headway.core.mm.slab_caches import SlabCaches  # most zones have no slabs

        if self._slabs is None:
            self._slabs = SlabCaches(self._path, self._runtime, memory())
            self._path.reclaim.shrinkers.register(self._slabs, name="empty slabs", seeks=1)
        return self._slabs

    def dirty_limits(self) -> dirty.DirtyThrottle:
        """The limits on what caches of this zone may have dirty: a tenth, and a fifth of it.

        Who accepts data for a device of his own may count it there too: ``device(name)``.
        """
        from headway.core.mm.dirtied import throttle_of

        return throttle_of(self._path, self._runtime)

    def adopt(self, cache: Any) -> None:
        """Close `cache` when the zone is closed."""
        self._caches = (*(other for other in self._caches if not other.closed), cache)

    def _found(self, what: str) -> None:
        self._findings += 1
        self._runtime.report(f"zone {self.name!r}: memory was {what}")

    @property
    def size(self) -> int:
        """Bytes of the arena."""
        return self._arena.size_bytes

    def stats(self) -> ZoneStats:
        pages, arena, path = self._core.stats(), self._arena, self._path
        given = 0 if self._balloon is None else self._balloon.out_pages
        marks = pages.watermarks
        return ZoneStats(
            name=self.name,
            size=arena.size_bytes,
            held=(pages.held_pages - given) * PAGE_BYTES,
            clean=pages.clean_pages * PAGE_BYTES,
            dirty=pages.dirty_pages * PAGE_BYTES,
            free=pages.free_pages * PAGE_BYTES,
            given_back=given * PAGE_BYTES,
            kept_for_floors=pages.floor_pages * PAGE_BYTES,
            min=marks.min * PAGE_BYTES,
            low=marks.low * PAGE_BYTES,
            high=marks.high * PAGE_BYTES,
            huge=arena.huge_bytes,
            locked=arena.locked,
            user_count=pages.share_count,
            light_refusals=pages.light_refusals,
            heavy_refusals=pages.heavy_refusals,
            shrinker_count=len(path.reclaim.shrinkers),
            reclaimed=path.reclaim.freed_pages * PAGE_BYTES,
            direct_reclaims=path.reclaim.runs,
            background_reclaims=self._kswapd.runs,
            throttled=path.throttled,
            oom_count=path.oom_count,
            raised_count=path.reclaim.shrinkers.raised_count + path.raised.count,
            swap_due=pages.swap_due,
            findings=self._findings,
        )

    def close(self) -> None:
        """Close the caches, end what runs in the background, give the memory back to the system.

        Closing twice is once. Waits: until dirty objects of caches are written back.
        Raises: PoolBusy if buffers are out, or something still uses the memory of one; what a
        cache's write-back raised.
        """
        held = sum(user.held_count for user in self._users)
        if held:
            raise PoolBusy(
                f"zone {self.name!r} closed with {held} buffers out; free them (and close the "
                "pools over it) first",
                pool=self.name,
                count=held,
            )
        while self._caches:
            self._caches[0].close()
            self._caches = self._caches[1:]
        self._kswapd.stop()
        if self._balloon is not None:
            self._balloon.end()
        for user in self._users:
            user.close()
        if self._lending is not None and self._users:
            finding = written_after_free(self._arena.view(0, self._arena.size_bytes), 0)
            if finding is not None:
                self._found(finding)
        self._users = ()
        self._arena.close()
        self.closed = True

    def __enter__(self) -> Zone:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except PoolBusy:
            if kind is None:  # else the block's own error says more
                raise

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<Zone {self.name!r}: {format_size(stats.held)} of {format_size(stats.size)} held, "
            f"{format_size(stats.clean)} clean, {format_size(stats.dirty)} dirty, "
            f"{format_size(stats.kept_for_floors)} kept for floors, {stats.user_count} users, "
            f"{format_size(stats.huge)} on huge pages>"
        )
