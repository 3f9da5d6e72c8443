"""A stack used as a device: each call carries one request out, and waits until it is done.

It decides nothing. It is for code that moves bytes and does not know bios (a copy, a test, a file-like
face); a server that has many requests under way submits bios itself.

Source: own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, final

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Op
from headway.core.block.bottom import Bottom
from headway.core.block.device import Extent, Kind, check_range
from headway.core.block.layer import each, granularity, needs_stable
from headway.core.block.stack import Stack
from headway.core.plan import Ticket, park

_MADE: Final = (Kind.MEMORY, Kind.ZERO, Kind.NULL)


@final
class StackedDevice:
    """A started stack as a `Device`. `ending` is called when it is closed, after the stack.
    `memory_bytes` is what its layers' reserves hold of a limited memory; `uses` is the status of the files and
    block devices that are in it.

    Several threads may use it; each request waits for a bio of the stack, in order of arrival.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        kind: Kind = Kind.FILE,
        memory_bytes: int = 0,
        uses: Sequence[Any] = (),
        ending: Callable[[], object] | None = None,
    ) -> None:
        self.stack = stack
        self.name = stack.name
        self.kind = kind
        self.size = stack.size
        self.capacity: int | None = stack.size
        # What requests must be multiples of; a device of the edge only wishes it.
        self.grain = self.alignment = stack.limits.alignment
        self.starts_zeroed = all(layer.keeps_zeros for layer in each(stack.top))
        self.read_only = any(layer.read_only for layer in each(stack.top))
        self.discard_granularity = granularity(stack.top)
        self.stable_writes = needs_stable(stack.top)  # memory must not change while it is written
        self.memory_bytes, self.uses = memory_bytes, uses
        self._ending = ending
        self._guard = stack.runtime.guard()
        self._closing = self._closed = False  # and who came later, to close it too
        self._late: list[Ticket] = []

    @property
    def prompt(self) -> bool:
        """Whether `read_now` and `write_now` never wait: every device below says what is quick, or is
        in memory."""
        lowest = [layer for layer in each(self.stack.top) if not layer.below]
        return all(
            isinstance(layer, Bottom) and (not layer.inline or layer.device.kind in _MADE)
            for layer in lowest
        )

    @property
    def direct(self) -> bool:
        """Whether a device below goes past the page cache: then requests wait for a disk."""
        return any(
            layer.device.alignment > 1
            for layer in each(self.stack.top)
            if isinstance(layer, Bottom)
        )

    def extent(self, offset: int) -> Extent:
        """Data or hole at `offset`, as far as the layers tell. Waits: for reserves, for the devices below."""
        return self.stack.runtime.run(self.stack.top.extent(offset))

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill `view`. Raises: BlockError. Waits: for a bio, for reserves, for the devices below."""
        self._carry_out(READ, view, offset, len(view))

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write `view`. Raises: BlockError. Waits: as `pread_into`."""
        self._carry_out(WRITE, view, offset, len(view))

    def read_now(self, view: memoryview, offset: int) -> bool:
        """Fill `view` if no layer has to wait; False: nothing was done (it may hold rubbish).

        For whoever serves others meanwhile. Raises: BlockError. Waits: never, if the devices do not.
        """
        return self._now(READ, view, offset, len(view))

    def write_now(self, view: memoryview, offset: int) -> bool:
        """Write `view` if no layer has to wait; False: nothing was done."""
        return self._now(WRITE, view, offset, len(view))

    def discard(self, offset: int, length: int) -> None:
        """Say that a range is not needed any more. Raises: BlockError. Waits: as `pread_into`."""
        self._carry_out(DISCARD, None, offset, length)

    def zero(self, offset: int, length: int) -> bool:
        """Make a range read as zeros; True: it does. Raises: BlockError. Waits: as `pread_into`."""
        self._carry_out(ZERO, None, offset, length)
        return True

    def _now(self, op: Op, view: memoryview | None, offset: int, length: int) -> bool:
        check_range(self, offset, length, self.size)
        stack = self.stack
        bio = stack.bios.pool.take_now()
        if bio is None:
            return False
        try:
            done = stack.submit_now(bio.aim(op, offset, view, length))
            error = bio.error
        finally:  # also if a signal's exception comes while bytes are being moved
            stack.bios.free(bio)
        if error is not None:
            raise error
        return done

    def _carry_out(self, op: Op, view: memoryview | None, offset: int, length: int) -> None:
        if not self._now(op, view, offset, length):
            self.stack.runtime.run(self.stack.request(op, offset, view, length))

    def flush(self) -> None:
        """Return when all that was written is on stable storage, on every device below."""
        self.stack.runtime.run(self.stack.request(FLUSH, 0, None, 0))

    def abort(self) -> None:
        """Let what waits for a server below fail now; any thread. For whoever was told to end."""
        for layer in each(self.stack.top):
            abort = getattr(layer.device, "abort", None) if isinstance(layer, Bottom) else None
            if abort is not None:
                abort()

    def close(self) -> None:
        """Close the stack, and what was opened for it. Closing twice is once: the second waits for the first.

        Raises: what a layer could not finish; PoolBusy if something of the stack did not come home.
        """
        ticket = Ticket(f"the end of {self.name}")
        with self._guard:
            first, self._closing = not self._closing, True
            if not first and not self._closed:
                self._late.append(ticket)
            else:
                ticket.wake()
        if not first:
            self.stack.runtime.run(park(ticket))
            return
        try:
            self.stack.runtime.run(self.stack.close())
        finally:
            try:
                if self._ending is not None:
                    self._ending()
            finally:  # whoever comes later waits for this
                with self._guard:
                    self._closed = True
                for late in self._late:
                    late.wake()

    def __enter__(self) -> StackedDevice:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.abort()  # to end is what was asked for
        self.close()

    def __repr__(self) -> str:
        return f"<StackedDevice {self.name} {self.size} bytes>"
