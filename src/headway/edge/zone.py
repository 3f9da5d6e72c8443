"""A zone with memory in it: the core's decisions about pages, joined to an arena's bytes.

It decides nothing. `Zone.buffers` gives a backend for a mempool, whose elements are writable views
of the arena; NumPy, ``readinto``, ``preadv`` and sockets take them without a copy.

A buffer's view is cut once and kept, so the same memory is lent as the same object: a mapping by
its identity finds the run in O(1), and identities cannot be reused while the view is kept. In debug
mode every loan is a fresh view (`headway.edge.lending`).

Source: the page allocator's place in Linux, ``mm/page_alloc.c``: pages below, pools above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from headway.core.mm import zone as core
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun, order_for
from headway.core.mm.watermarks import Watermarks
from headway.core.plan import Runtime
from headway.core.units import format_size, parse_size
from headway.edge.arena import PAGE_BYTES, Arena
from headway.edge.lending import Lending, written_after_free
from headway.errors import PoolBusy, UsageError

_ZERO: Final = int(Gfp.ZERO)


@final
@dataclass(frozen=True, slots=True)
class ZoneStats:
    """A snapshot. Units: bytes, except the counts."""

    name: str
    size: int
    held: int
    kept_for_floors: int
    min: int
    low: int
    high: int
    huge: int  # on huge pages, as verified when the zone was made
    locked: bool
    user_count: int
    light_refusals: int
    heavy_refusals: int
    findings: int  # of debug mode: buffers written to after they were freed


class Zone:
    """One arena of `size`, shared by any number of users: a hard limit, and memory that is there.

    `min_free` is kept back from ordinary requests; None chooses it by the kernel's formula, 0 keeps
    nothing back. `lock` keeps the arena from being swapped out. `debug` catches use after free, at
    the price of a pass over each buffer when it is taken and when it is freed. A size that is no
    whole number of pages is rounded down.

    Raises: UsageError if the size or `min_free` make no zone; NoMemory if the memory cannot be had
    now, or cannot be locked.
    """

    __slots__ = ("_arena", "_core", "_findings", "_lending", "_runtime", "_users", "name")

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
        self._runtime = runtime
        self._core = core.Zone(page_count, marks, runtime=runtime, name=name, page_bytes=PAGE_BYTES)
        self._arena = Arena(page_count * PAGE_BYTES, huge=huge, lock=lock)
        self._lending = Lending(self._arena) if debug else None
        self._findings = 0
        self._users: tuple[Buffers | WatchedBuffers, ...] = ()

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
        share = self._core.share(order, floor_count, name)
        user: Buffers | WatchedBuffers
        if self._lending is None:
            user = Buffers(share, self._arena, size_bytes)
        else:
            user = WatchedBuffers(share, self._lending, size_bytes, self._found)
        self._users = (*(other for other in self._users if not other.closed), user)
        return user

    def _found(self, what: str) -> None:
        self._findings += 1
        self._runtime.report(f"zone {self.name!r}: memory was {what}")

    @property
    def size(self) -> int:
        """Bytes of the arena."""
        return self._arena.size_bytes

    def stats(self) -> ZoneStats:
        pages, arena = self._core.stats(), self._arena
        marks = pages.watermarks
        return ZoneStats(
            name=self.name,
            size=arena.size_bytes,
            held=pages.held_pages * PAGE_BYTES,
            kept_for_floors=pages.floor_pages * PAGE_BYTES,
            min=marks.min * PAGE_BYTES,
            low=marks.low * PAGE_BYTES,
            high=marks.high * PAGE_BYTES,
            huge=arena.huge_bytes,
            locked=arena.locked,
            user_count=pages.share_count,
            light_refusals=pages.light_refusals,
            heavy_refusals=pages.heavy_refusals,
            findings=self._findings,
        )

    def close(self) -> None:
        """Give the memory back to the system. Closing twice is once.

        Raises: PoolBusy if buffers are out, or something still uses the memory of one.
        """
        held = sum(user.held_count for user in self._users)
        if held:
            raise PoolBusy(
                f"zone {self.name!r} closed with {held} buffers out; free them (and close the "
                "pools over it) first",
                pool=self.name,
                count=held,
            )
        for user in self._users:
            user.close()
        if self._lending is not None and self._users:
            finding = written_after_free(self._arena.view(0, self._arena.size_bytes), 0)
            if finding is not None:
                self._found(finding)
        self._users = ()
        self._arena.close()

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
            f"{format_size(stats.kept_for_floors)} kept for floors, {stats.user_count} users, "
            f"{format_size(stats.huge)} on huge pages>"
        )


@final
class Buffers:
    """A backend of equal buffers: views of the arena, each cut once and kept."""

    __slots__ = ("_arena", "_light", "_runs", "_share", "_views", "size_bytes")

    def __init__(self, share: core.Share, arena: Arena, size_bytes: int) -> None:
        self._share = share
        self._light = share.light
        self._arena = arena
        self._views: dict[int, memoryview] = {}  # first page -> view; written by the run's holder
        self._runs: dict[int, PageRun] = {}  # identity of a view in `_views` -> its run
        self.size_bytes = size_bytes

    def light(self, gfp: Gfp) -> memoryview | None:
        """The first, light try: a buffer if that leaves `low` in the zone, or is in the floor.

        Waits: never. Raises: nothing.
        """
        run = self._light(gfp)
        if run is None:
            return None
        try:
            view = self._views[run.first]
            if view:  # ValueError if somebody released it
                return view
        except (KeyError, ValueError):
            pass
        return self._cut(run)

    def alloc(self, gfp: Gfp = Gfp.KERNEL) -> memoryview | None:
        """The heavy try: a buffer if that leaves what the mask may not dip below; else None.

        Waits: never (a mempool does). ZERO gives it cleared, else its content is whatever was left.
        Shape: writable, contiguous, format 'B', `size_bytes` long, page-aligned; yours till `free`.
        """
        run = self._share.alloc(gfp)
        if run is None:
            return None
        view = self._views.get(run.first)
        if view is None or _is_released(view):
            view = self._cut(run)
        if int(gfp) & _ZERO:
            view[:] = bytes(self.size_bytes)
        return view

    def free(self, element: memoryview) -> None:
        """Give a buffer back: the very object that was taken, not a slice of it.

        Waits: never; may be called from a finaliser. Raises: UsageError if it is not out from here.
        """
        run = self._runs.get(id(element))
        if run is None:
            raise UsageError(_foreign(self._share, element))
        self._share.free(run)

    def _cut(self, run: PageRun) -> memoryview:
        old = self._views.pop(run.first, None)
        if old is not None:
            del self._runs[id(old)]
        view = self._arena.view(run.first * PAGE_BYTES, self.size_bytes)
        self._runs[id(view)] = run
        self._views[run.first] = view
        return view

    @property
    def held_count(self) -> int:
        return self._share.held_count

    @property
    def closed(self) -> bool:
        return self._share.closed

    def on_room(self, call: Callable[[], object] | None) -> None:
        """Have `call` (a pool's `kick`) called, without any lock, when refused memory came back."""
        self._share.on_room = call

    def close(self) -> None:
        """Leave the zone. Raises: PoolBusy if buffers are out."""
        self._share.close()
        self._runs.clear()
        while self._views:
            _, view = self._views.popitem()
            try:
                view.release()
            except BufferError:
                pass  # an array made from it is alive; the zone's close will say so

    def __repr__(self) -> str:
        return _look(self)


@final
class WatchedBuffers:
    """`Buffers` in debug mode: every loan is a fresh view, and use after free is caught."""

    __slots__ = ("_found", "_lending", "_out", "_share", "size_bytes")

    def __init__(
        self, share: core.Share, lending: Lending, size_bytes: int, found: Callable[[str], None]
    ) -> None:
        self._share = share
        self._lending = lending
        self._out: dict[int, tuple[memoryview, PageRun]] = {}  # identity -> what is out
        self._found = found
        self.size_bytes = size_bytes

    def light(self, gfp: Gfp) -> memoryview | None:
        return self._lend(self._share.light(gfp))

    def alloc(self, gfp: Gfp = Gfp.KERNEL) -> memoryview | None:
        view = self._lend(self._share.alloc(gfp))
        if view is not None and int(gfp) & _ZERO:
            view[:] = bytes(self.size_bytes)
        return view

    def free(self, element: memoryview) -> None:
        """As `Buffers.free`. Raises: UsageError also if slices or arrays of it are in use."""
        out = self._out.get(id(element))
        if out is None:
            raise UsageError(_foreign(self._share, element))
        run = out[1]
        self._lending.take_back(run.first * PAGE_BYTES)
        del self._out[id(element)]
        self._share.free(run)

    def _lend(self, run: PageRun | None) -> memoryview | None:
        if run is None:
            return None
        view, finding = self._lending.lend(run.first * PAGE_BYTES, self.size_bytes)
        self._out[id(view)] = (view, run)
        if finding is not None:
            self._found(finding)
        return view

    @property
    def held_count(self) -> int:
        return self._share.held_count

    @property
    def closed(self) -> bool:
        return self._share.closed

    def on_room(self, call: Callable[[], object] | None) -> None:
        self._share.on_room = call

    def close(self) -> None:
        self._share.close()

    def __repr__(self) -> str:
        return _look(self)


def _is_released(view: memoryview) -> bool:
    try:
        return not len(view)
    except ValueError:
        return True


def _foreign(share: core.Share, element: object) -> str:
    return (
        f"free of {element!r} to {share.name!r}, which did not give it; free the very object that "
        "was taken, once, and not a slice or an array made from it"
    )


def _look(user: Buffers | WatchedBuffers) -> str:
    share = user._share
    return (
        f"<Buffers {share.name!r} of zone {share.zone.name!r}: {share.held_count} of "
        f"{format_size(user.size_bytes)} out, floor {share.floor_count}>"
    )
