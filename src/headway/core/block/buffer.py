"""One cached block: its memory, who holds it, and which of its bytes the device does not have yet.

It decides nothing: `bufio` does, under its guard. What may change outside that guard is `holds` and
`touched`, each by one atomic step. The protocol between a hit, which takes no guard, and whoever wants
the memory: the hit *appends its hold, then looks* at `ready`; the other *clears `ready`, then looks* at
`holds`. One of them sees the other, and steps back. A release likewise pops its hold, then looks whether
it is wanted; who wants something of the last release says so (`Blocks.set_alert`), then looks at `holds`.
A buffer is of one block as long as it lives, so
`ready` need not say of which.

Source: Linux ``drivers/md/dm-bufio.c`` (``struct dm_buffer``, 6.12).
"""

from __future__ import annotations

from typing import Any, Final, Protocol, final

from headway.core.plan import Ticket
from headway.errors import UsageError

#: Entries of `holds` that stay: a list that empties gives its memory back, and each hold takes it again.
UNHELD: Final = 4


class Wanting(Protocol):
    """Where those wait who want memory; `wanted`: a release has something to do."""

    wanted: bool


class Owner(Protocol):
    """A cache, as its buffers see it."""

    @property
    def supply(self) -> Wanting: ...
    def released(self, buffer: Buffer, /) -> None: ...
    def mark_dirty(self, buffer: Buffer, start: int, end: int | None, /) -> None: ...


@final
class Buffer:
    """A block that is held: use `view`, then release it (or hold it in a ``with`` block).

    `view` is writable and one block long; it is the caller's until the release. Who writes to it says
    so with `mark_dirty`. Holders share it: who must not see another's change takes turns by other means.
    """

    __slots__ = (
        "aged", "alert", "block", "cache", "dirty_end", "dirty_start", "error", "frame", "holds", "queued",
        "reading", "ready", "supply", "touched", "valid", "view", "waiters", "writing",
    )  # fmt: skip

    def __init__(self, cache: Owner, block: int, frame: Any, aged: float) -> None:
        self.cache = cache
        self.supply = cache.supply  # looked at by each release
        self.block = block
        self.frame = frame  # as the memory gave it; what is given back
        self.view: memoryview = frame
        self.holds: list[bool] = [True] * UNHELD  # and one, False, for each who holds it
        self.ready = False  # a hit may use it
        self.valid = False  # it has the block's data, or what the caller of `new` puts there
        self.reading = False
        self.queued = False  # reading is due, and whoever comes first does it
        self.writing = False
        self.dirty_start = self.dirty_end = 0  # what was changed since a write of it began
        self.error: BaseException | None = None
        self.alert = False  # its last release has work: it failed, or somebody waits for that
        self.touched: float | None = None
        self.aged = aged
        self.waiters: list[Ticket] = []  # for the end of its I/O, or of its holds

    @property
    def held(self) -> int:
        """How many hold it."""
        return len(self.holds) - UNHELD

    def not_held(self) -> UsageError:
        """What is raised by whoever popped an entry that stays; it is put back."""
        self.holds.insert(0, True)
        return UsageError(
            f"block {self.block} was released more often than it was held; release a buffer once for each "
            "read, get or new"
        )

    @property
    def dirty(self) -> bool:
        return self.dirty_end > 0

    @property
    def busy(self) -> bool:
        """Its memory is in use by a transfer; a read that is only queued is none."""
        return self.writing or (self.reading and not self.queued)

    def has_data(self) -> bool:
        """After a wait: it was read."""
        return self.valid

    def soil(self, start: int, end: int) -> None:
        """Add a range to what is dirty: it grows to the hull."""
        if self.dirty_end:
            start, end = min(start, self.dirty_start), max(end, self.dirty_end)
        self.dirty_start, self.dirty_end = start, end

    def mark_dirty(self, start: int = 0, end: int | None = None) -> None:
        """Say that bytes `start` to `end` (exclusive; None: to the block's end) were changed.

        Waits: never. Raises: UsageError if the range is not in the block.
        """
        self.cache.mark_dirty(self, start, end)

    def release(self) -> None:
        """Give up one hold. Waits: never. Raises: UsageError if nobody holds it."""
        if self.holds.pop():  # `cache.release`, written out: this is the other half of a hit
            raise self.not_held()
        if self.supply.wanted:
            self.cache.released(self)

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self.holds.pop():  # `release`, written out
            raise self.not_held()
        if self.supply.wanted:
            self.cache.released(self)

    def __repr__(self) -> str:
        bits = [bit for bit in ("reading", "writing", "dirty") if getattr(self, bit)]
        return f"<Buffer {self.block}: {self.held} holds{''.join(', ' + bit for bit in bits)}>"
