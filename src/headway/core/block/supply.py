"""A buffer cache's memory: a backend, a reserve of a few buffers, and a queue of those who wait for one.

It does not evict (`attempts` does, between the reserve and the queue). Memory that comes back goes to
the first who waits, else to the reserve while that is short, else to the backend. So a waiter receives
what was freed for it, and nobody who comes later takes it (kernel: it wakes all, and the first wins).

Bound: with a reserve of one and any number of tasks that hold one buffer each and release it, each is
served in order of arrival. A task that waits for a second buffer while it holds a first can wait for
itself: that is the caller's to avoid (R3).

Source: Linux ``drivers/md/dm-bufio.c`` (``reserved_buffers``, ``need_reserved_buffers``, 6.12).
"""

from __future__ import annotations

from typing import Any, Protocol, final

from headway.core.mm import gfp as masks
from headway.core.mm.gfp import Gfp, Scope
from headway.core.plan import Call, Offload, Runtime, Ticket
from headway.core.waitqueue import WaitQueue
from headway.errors import NoMemory

_NOIO = int(Scope.NOIO)
_LIGHT = masks.light(Gfp.NOIO)
_HEAVY = masks.heavy(Gfp.NOIO, _NOIO)


class Memory(Protocol):
    """What a backend of a zone is (``zone.buffers(size)``): equal buffers, or None."""

    def light(self, gfp: Gfp) -> memoryview | None: ...
    def alloc(self, gfp: Gfp) -> memoryview | None: ...
    def free(self, element: memoryview) -> object: ...


@final
class Supply:
    """All but `frames` and the statistics changes under `guard`, which is the cache's."""

    __slots__ = (
        "alerts", "frames", "guard", "heavy_try", "lacking", "light_try", "locked", "memory", "queue", "reserve",
        "waits", "wanted",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, memory: Memory, reserve_count: int, name: str) -> None:
        self.guard = runtime.guard()
        self.memory = memory
        self.light_try = Call(memory.light, (_LIGHT,))
        self.heavy_try = Offload(memory.alloc, (_HEAVY,), _NOIO, self._undo)
        self.queue = WaitQueue()
        self.reserve: list[Any] = []
        self.lacking = 0  # how many of the reserve are in use (Linux: need_reserved_buffers)
        self.frames = 0  # statistics: taken from the memory and not given back
        self.waits = 0  # statistics
        self.locked = runtime.locked
        self.alerts = 0  # buffers whose last release has something to do
        self.wanted = (
            self.locked
        )  # that, or somebody may wait; whoever releases a buffer looks at it
        for _ in range(reserve_count):
            frame = memory.alloc(Gfp.KERNEL)
            if frame is None:
                self.close()
                raise NoMemory(
                    f"cache {name!r}: its reserve of {reserve_count} buffers cannot be filled; "
                    "give it more memory, or make it before the memory is in use"
                )
            self.frames += 1
            self.reserve.append(frame)

    def try_light(self) -> Any:
        """A frame, if that needs neither wait nor reclaim; for those who are in no plan."""
        frame = self.memory.light(_LIGHT)
        if frame is not None:
            self.frames += 1
        return frame

    # -- requests, made once -------------------------------------------------------------------------

    # `light_try` neither waits nor starts anything; `heavy_try` may make others give back, but does no
    # I/O. Both are asked for with no guard held; whoever got a frame says so with `took`.

    def took(self, frame: Any) -> Any:
        if frame is not None:
            self.frames += 1
        return frame

    def _undo(self, frame: Any) -> None:
        if frame is not None:
            self.frames += 1
            self.put(frame)

    # -- under the guard -----------------------------------------------------------------------------

    def take_reserve(self) -> Any:
        """A buffer of the reserve, which is owed one from now on; None if it is empty."""
        if not self.reserve:
            return None
        self.lacking += 1
        return self.reserve.pop()

    def give(self, found: Any) -> list[Ticket]:
        """Hand a frame, or a claimed buffer, to the first who waits; whom to wake."""
        ticket = self.queue.first()
        assert ticket is not None, "nobody waits"
        self.queue.give(ticket, [found])
        self.look_around()
        return [] if ticket.claim() else [ticket]  # else it was kicked, and will see

    def look_around(self) -> None:
        """After a change of the queue or the alerts: what a release looks at."""
        self.wanted = self.locked or self.alerts > 0 or bool(self.queue)

    # -- outside the guard ---------------------------------------------------------------------------

    def put(self, frame: Any) -> None:
        """Give a frame to whoever needs it most. Waits: never."""
        waking: list[Ticket] | None = None
        with self.guard:
            if self.queue:
                waking = self.give(frame)
            elif self.lacking:
                self.lacking -= 1
                self.reserve.append(frame)
                return
        if waking is not None:
            for ticket in waking:
                ticket.wake()
            return
        self.frames -= 1
        self.memory.free(frame)

    def put_all(self, frames: list[Any]) -> None:
        """`put` for each of them. Waits: never."""
        with self.guard:
            needed = self.lacking or self.queue
        if needed:
            for frame in frames:
                self.put(frame)
            return
        self.frames -= len(frames)
        for frame in frames:
            self.memory.free(frame)

    def kick(self) -> None:
        """The memory has some again: let the first who waits ask. Waits: never."""
        with self.guard:
            ticket = self.queue.first()
            if ticket is None or ticket.claim():
                return
        ticket.wake()

    def close(self) -> None:
        """Give the reserve back."""
        with self.guard:
            frames, self.reserve = self.reserve, []
        for frame in frames:
            self.frames -= 1
            self.memory.free(frame)
