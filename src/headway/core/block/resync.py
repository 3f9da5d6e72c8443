"""Filling a leg from the others while writes go on: window by window, with a barrier around each.

It does not decide which legs there are (`legs` does). Writes go to the leg that is being filled as to
every other; only where a window is being copied could an old read overtake a new write. So the window
is closed first: writes into it are held back, those under way are waited for, then it is copied, and
what was held back goes on. Nothing is held back for longer than one read and one write.

Its memory is its own: elements of a descriptor, two bios and a buffer, all or nothing. One is enough.

Bound: a window is copied once; a write waits for at most one window.

Source: Linux ``drivers/md/raid1.c`` (``raise_barrier``, ``raid1_sync_request``, 6.12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.legs import ACTIVE, DROPPED, SYNCING, Leg, Legs
from headway.core.block.line import NOIO, carry_out
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.plan import Guard, Plan, Ticket, park
from headway.errors import UsageError

Element: TypeAlias = "tuple[Bio, Bio, memoryview]"


@final
class Barrier:
    """The writes under way, and the window they may not enter; all under the guard."""

    __slots__ = ("_drained", "_guard", "_held", "_next", "_under_way", "_window")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._under_way: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._window: tuple[int, int] | None = None
        self._held: list[Bio] = []
        self._drained: Ticket | None = None

    def enter(self, bio: Bio) -> int | None:
        """A write begins: its number, or None if it is held back now."""
        with self._guard:
            window = self._window
            if window is not None and bio.offset < window[1] and bio.end > window[0]:
                self._held.append(bio)
                return None
            self._next += 1
            self._under_way[self._next] = (bio.offset, bio.end)
            return self._next

    def leave(self, number: int) -> None:
        """A write has ended."""
        with self._guard:
            del self._under_way[number]
            ticket = None
            if self._drained is not None and not self._inside():
                ticket, self._drained = self._drained, None
        if ticket is not None:
            ticket.wake()

    def _inside(self) -> bool:
        assert self._window is not None
        first, last = self._window
        return any(start < last and end > first for start, end in self._under_way.values())

    def close(self, start: int, end: int) -> Plan[None]:
        """Close a window. Waits: until the writes inside it have ended."""
        ticket = Ticket("resync window")
        with self._guard:
            assert self._window is None
            self._window = (start, end)
            if not self._inside():
                return
            self._drained = ticket
        yield from park(ticket)

    def open(self) -> list[Bio]:
        """Open it; what was held back, in order."""
        with self._guard:
            self._window = self._drained = None
            held, self._held = self._held, []
        return held


@final
class Resync:
    """Fills one leg after the other."""

    __slots__ = (
        "_pool",
        "_release",
        "_running",
        "_size",
        "barrier",
        "legs",
        "stopping",
        "synced_bytes",
    )

    def __init__(
        self,
        legs: Legs,
        barrier: Barrier,
        size: int,
        pool: Mempool[Element],
        release: Callable[[list[Bio]], object],
    ) -> None:
        self.legs = legs
        self.barrier = barrier
        self._size = size
        self._pool = pool
        self._release = release  # passes on what was held back; never waits
        self.stopping = False
        self._running = False
        self.synced_bytes = 0

    def run(self, leg: Leg) -> Plan[bool]:
        """Fill a dropped leg; True if it is active at the end, False if it failed again.

        Waits: for its own element and for the devices. Raises: UsageError while another leg is filled.
        """
        if self._running:
            raise UsageError("a leg is being filled already; fill them one after the other")
        if not self.legs.become(leg, DROPPED, SYNCING):
            return leg.state is ACTIVE
        offset = 0
        self._running = True
        try:
            while offset < self._size and leg.state is SYNCING and not self.stopping:
                offset = yield from self._window(leg, offset)
        except BaseException:
            self.legs.become(leg, SYNCING, DROPPED)
            raise
        finally:
            self._running = False
        whole = offset >= self._size
        return self.legs.become(leg, SYNCING, ACTIVE if whole else DROPPED) and whole

    def _window(self, leg: Leg, offset: int) -> Plan[int]:
        """Copy one window; the offset after it."""
        taken = yield from self._pool.alloc_plan(Gfp.NOIO, NOIO, self._pool.name, 1, None)
        assert taken is not None
        reader, writer, buffer = taken[0]
        length = min(len(buffer), self._size - offset)
        try:
            yield from self.barrier.close(offset, offset + length)
            part = buffer[:length]
            if (yield from self._read(reader, part, offset)):
                _aim(writer, WRITE, offset, part)
                yield from carry_out(leg.layer, writer)
                if writer.error is not None:
                    self.legs.failed(leg, writer.error)
                    self.legs.become(leg, SYNCING, DROPPED)
            else:
                self.legs.become(leg, SYNCING, DROPPED)
        finally:
            self._release(self.barrier.open())
            reader.view = writer.view = None
            self._pool.free(taken[0])
        self.synced_bytes += length
        return offset + length

    def _read(self, bio: Bio, part: memoryview, offset: int) -> Plan[bool]:
        """From a leg that is good; False if the last one cannot."""
        while True:
            _aim(bio, READ, offset, part)
            source = self.legs.reader(bio)
            yield from carry_out(source.layer, bio)
            if bio.error is None:
                return True
            if not self.legs.failed(source, bio.error):
                return False


def _aim(bio: Bio, op: Any, offset: int, view: memoryview) -> None:
    bio.error = None
    bio.aim(op, offset, view, len(view))
