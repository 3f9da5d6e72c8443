"""Equal buffers of a zone, as a backend for a mempool or by themselves: views of the arena.

It decides nothing: a share says which run is lent, the zone's slow path makes room. A buffer's view
is cut once and kept, so the same memory is lent as the same object: a mapping by its identity finds
the run in O(1), and identities cannot be reused while the view is kept. In debug mode every loan is
a fresh view (`headway.edge.lending`).

Source: the page allocator's place in Linux, ``mm/page_alloc.c``: pages below, pools above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from headway.core.mm import zone as core
from headway.core.mm.gfp import Gfp
from headway.core.mm.oom import Oom
from headway.core.mm.pages import PageRun
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Runtime
from headway.core.units import format_size
from headway.core.zeros import clear
from headway.edge.arena import PAGE_BYTES, Arena
from headway.edge.lending import Lending
from headway.errors import UsageError

_ZERO: Final = int(Gfp.ZERO)
_NOFAIL: Final = int(Gfp.NOFAIL)


@final
class Obtaining:
    """The slow path of one share. It is taken where it could do more than the share's own try."""

    __slots__ = ("_path", "_runtime", "_share")

    def __init__(self, share: core.Share, path: SlowPath, runtime: Runtime) -> None:
        self._share = share
        self._path = path
        self._runtime = runtime

    def door(self, something_gives_way: bool) -> Callable[[Gfp], PageRun | None]:
        """What an allocation calls: bound, and chosen beforehand, as it is the fast path."""
        judged = self._path.oom is not Oom.FAIL  # there is a policy to be asked
        return self.run if something_gives_way or judged else self._share.alloc

    def run(self, gfp: Gfp) -> PageRun | None:
        runtime = self._runtime
        run = runtime.run(self._path.alloc(self._share, gfp, runtime.scope(), runtime.owner()))
        if run is None:
            return self._share.alloc(gfp)  # publishes the refusal, so that a pool is told of room
        return run


@final
class Buffers:
    """A backend of equal buffers: views of the arena, each cut once and kept."""

    __slots__ = (
        "_arena", "_door", "_light", "_obtain", "_runs", "_share", "_views", "size_bytes",
    )  # fmt: skip

    def __init__(self, share: core.Share, obtain: Obtaining, arena: Arena, size_bytes: int) -> None:
        self._share = share
        self._obtain = obtain
        self._door: Callable[[Gfp], PageRun | None] = share.alloc
        self._light = share.light
        self._arena = arena
        self._views: dict[int, memoryview] = {}  # first page -> view; written by the run's holder
        self._runs: dict[int, PageRun] = {}  # identity of a view in `_views` -> its run
        self.size_bytes = size_bytes

    def choose_door(self, something_gives_way: bool) -> None:
        """Take the slow path or not, from now on."""
        self._door = self._obtain.door(something_gives_way)

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

        Where something has been registered that gives way, or an `oom` policy set, this is the whole
        slow path (`headway.core.mm.slowpath`): it wakes the background reclaimer, reclaims, retries.
        Waits: never, else for reclaim; for ever with NOFAIL alone. ZERO gives it cleared, else its
        content is whatever was left.
        Shape: writable, contiguous, format 'B', `size_bytes` long, page-aligned; yours till `free`.
        Raises: PoolClosed; NoMemory if that is the policy.
        """
        run = self._door(gfp)
        if run is None:
            if not int(gfp) & _NOFAIL or (run := self._obtain.run(gfp)) is None:
                return None
        view = self._views.get(run.first)
        if view is None or _is_released(view):
            view = self._cut(run)
        if int(gfp) & _ZERO:
            clear(view)
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

    def on_room(self, call: Callable[[], object]) -> None:
        """Have `call` made, without any lock, when refused memory came back. A mempool does it itself."""
        self._share.on_room(call)

    def off_room(self, call: Callable[[], object]) -> None:
        """Undo `on_room`."""
        self._share.off_room(call)

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

    __slots__ = ("_door", "_found", "_lending", "_obtain", "_out", "_share", "size_bytes")

    def __init__(
        self,
        share: core.Share,
        obtain: Obtaining,
        lending: Lending,
        size_bytes: int,
        found: Callable[[str], None],
    ) -> None:
        self._share = share
        self._obtain = obtain
        self._door: Callable[[Gfp], PageRun | None] = share.alloc
        self._lending = lending
        self._out: dict[int, tuple[memoryview, PageRun]] = {}  # identity -> what is out
        self._found = found
        self.size_bytes = size_bytes

    def choose_door(self, something_gives_way: bool) -> None:
        """Take the slow path or not, from now on."""
        self._door = self._obtain.door(something_gives_way)

    def light(self, gfp: Gfp) -> memoryview | None:
        return self._lend(self._share.light(gfp))

    def alloc(self, gfp: Gfp = Gfp.KERNEL) -> memoryview | None:
        view = self._lend(self._obtain.run(gfp) if int(gfp) & _NOFAIL else self._door(gfp))
        if view is not None and int(gfp) & _ZERO:
            clear(view)
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

    def on_room(self, call: Callable[[], object]) -> None:
        self._share.on_room(call)

    def off_room(self, call: Callable[[], object]) -> None:
        self._share.off_room(call)

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
