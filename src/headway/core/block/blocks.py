"""The blocks of a cache: which are in memory, who holds them, and which may go.

It moves no bytes (`transfer`), writes nothing back (`writeback`), and finds no memory (`attempts`).
A *hit* is a dictionary look-up and two atomic steps, outside the guard; see `buffer` for why that is
safe. Everything else is a step under the one guard, and no guard is held while memory is asked for, a
buffer is read or written, or anybody is waited for. (In the kernel's first versions one mutex was held
throughout: incident E-001.)

A buffer is clean (or being read) and on the clean clock, or dirty or being written and on the dirty one.
Held buffers stay on their clock and are never evicted. A buffer is in the cache before it is read, so that
two who miss the same block read it once. A block that could not be read is forgotten when the last
holder releases it; so is one that could not be written, after that error was noted for `write_dirty`.

Bound: `block_size` bytes for each buffer, out of the given memory; one bio for each transfer.

Source: Linux ``drivers/md/dm-bufio.c`` (6.12). Departures: hits take no lock; hand-over to who waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from headway.core.block.bioset import BioSet
from headway.core.block.buffer import UNHELD, Buffer
from headway.core.block.layer import Layer, combined, needs_stable
from headway.core.block.lru import EVICT, KEEP, STOP, Clock, Verdict
from headway.core.block.supply import Memory, Supply
from headway.core.plan import Runtime, Ticket
from headway.errors import PoolClosed, UsageError

WRITE_ALIGNMENT: Final = 4096  # less is not written at once: disks would read, change and write it
IN_FLIGHT: Final = 16


class Blocks:
    """The blocks of one device, and the steps on them; `bufio` makes a cache of them.

    All fields but the statistics and `stamp` change under `guard`. `quick` is what a hit looks in: the
    blocks themselves, or nothing where a hit must take the guard (free-threaded builds, the simulator).
    """

    __slots__ = (
        "attempt", "bios", "block_size", "blocks", "clean_clock", "closed", "dirty_clock", "errors",
        "evicted", "gather_bytes", "guard", "hits", "layer", "misses", "name", "offloads",
        "quick", "read_requests", "runtime", "size", "staging", "stamp", "supply",
        "write_alignment", "write_error", "write_requests", "written_blocks",
    )  # fmt: skip

    def __init__(
        self,
        layer: Layer,
        memory: Memory,
        block_size: int,
        *,
        runtime: Runtime,
        name: str = "cache",
        reserve_count: int = 1,
        staging: list[memoryview] | None = None,
        in_flight: int = IN_FLIGHT,
        offloads: bool = False,
    ) -> None:
        """Args: `staging`: page-aligned memory in which adjacent blocks are put together; `offloads`:
        moving bytes at once may take long, so a loop must not do it itself.

        Raises: UsageError if the device has no such blocks, or needs `stable_writes`; NoMemory if the
        reserve cannot be filled.
        """
        alignment = combined(layer).alignment
        if block_size < 512 or block_size % 512 or block_size % alignment:
            raise UsageError(
                f"cache {name!r}: blocks of {block_size} bytes on {layer.name}: a block must be a "
                f"multiple of 512 and of the device's {alignment}"
            )
        if needs_stable(layer):
            raise UsageError(
                f"cache {name!r}: {layer.name} needs memory that nobody changes while it is written, and whoever "
                "holds a block may change it: open the stack without private=True, or put bounce,reads=no on top"
            )
        self.runtime = runtime
        self.layer = layer
        self.name = name
        self.size = layer.size
        self.block_size = block_size
        self.write_alignment = max(WRITE_ALIGNMENT, alignment)
        self.offloads = offloads
        self.staging = staging or []
        self.gather_bytes = len(self.staging[0]) if staging else 0
        self.supply = Supply(runtime, memory, reserve_count, name)
        self.guard = self.supply.guard
        self.bios = BioSet(runtime, f"bios of {name}", min_count=in_flight)
        self.blocks: dict[int, Buffer] = {}
        self.quick = {} if runtime.locked else self.blocks
        self.clean_clock: Clock[Buffer] = Clock()
        self.dirty_clock: Clock[Buffer] = Clock()
        self.stamp = (
            runtime.now()
        )  # what a hit leaves; as fine as the keeper's ticks and the misses
        self.write_error: BaseException | None = None
        self.closed = False
        #: Told of each attempt to get memory, some of them under the guard: for tests and tools.
        self.attempt: Callable[[str], object] | None = None
        self.hits = self.misses = self.evicted = self.errors = 0
        self.read_requests = self.write_requests = self.written_blocks = 0

    # -- hits, which take no guard --------------------------------------------------------------------

    def hit(self, block: int) -> Buffer | None:
        """The buffer, held, if it is there and has its data; else None. Waits: never."""
        buffer = self.quick.get(block)
        if buffer is None:
            return None
        buffer.holds.append(False)
        if buffer.ready:
            buffer.touched = self.stamp
            self.hits += 1
            return buffer
        self.release(buffer)  # it was just going, or is not read yet
        return None

    def get(self, block: int) -> Buffer | None:
        """As `hit`, on every runtime: never waits, not even for a read that is under way."""
        buffer = self.hit(block)
        if buffer is None:
            with self.guard:
                buffer = self.blocks.get(block)
                if buffer is None or not buffer.valid or buffer.reading:
                    return None
                self._hold(buffer)
                self.hits += 1
        return buffer

    def release(self, buffer: Buffer) -> None:
        """Give up one hold. Waits: never. Raises: UsageError if nobody holds it."""
        if buffer.holds.pop():
            raise buffer.not_held()
        if self.supply.wanted:
            self.released(buffer)

    def released(self, buffer: Buffer) -> None:
        """What a release may have to do: forget a failed block, wake who waits for it or for any."""
        waking: list[Ticket] = []
        frame = None
        with self.guard:
            if not buffer.held:
                if buffer.alert:
                    waking, buffer.waiters = buffer.waiters, []
                    self.set_alert(buffer, buffer.error is not None and buffer.frame is not None)
                    if buffer.error is not None and not buffer.dirty and not buffer.busy:
                        frame = self.detach(buffer)
                if frame is None:
                    waking += self.offer(buffer)
        self.dispose(frame, waking)

    def mark_dirty(self, buffer: Buffer, start: int = 0, end: int | None = None) -> None:
        """See `bufio.BufferCache.mark_dirty`."""
        raise NotImplementedError

    # -- steps under the guard ------------------------------------------------------------------------

    def _hold(self, buffer: Buffer) -> None:
        buffer.holds.append(False)
        buffer.touched = self.stamp

    def insert(self, block: int, frame: Any, *, reading: bool) -> Buffer:
        """Put a new buffer in, not held yet."""
        self.stamp = self.runtime.now()
        buffer = self.blocks[block] = Buffer(self, block, frame, self.stamp)
        buffer.reading = buffer.queued = reading
        if not reading:
            buffer.valid = buffer.ready = True
        self.clean_clock.add(buffer)
        return buffer

    def detach(self, buffer: Buffer) -> Any:
        """Take a buffer's memory, if nobody holds it: the frame, or None."""
        ready, buffer.ready = buffer.ready, False
        if buffer.held or buffer.frame is None:
            buffer.ready = ready
            return None
        self.unlink(buffer)
        return self._strip(buffer)

    def _strip(self, buffer: Buffer) -> Any:
        frame, buffer.frame = buffer.frame, None
        self.set_alert(buffer, False)
        buffer.reading = buffer.queued = False  # whoever was to read it finds nothing to do
        self.evicted += 1
        return frame

    def unlink(self, buffer: Buffer) -> None:
        """Let its block be unknown; whoever holds it still does."""
        if self.blocks.get(buffer.block) is buffer:
            del self.blocks[buffer.block]
            clock = self.dirty_clock if buffer in self.dirty_clock else self.clean_clock
            clock.remove(buffer)

    def judge(self, buffer: Buffer) -> Verdict:
        # `busy` and `held`, written out: each miss of a full cache comes by here.
        if buffer.writing or (buffer.reading and not buffer.queued):
            return KEEP
        ready, buffer.ready = buffer.ready, False
        if len(buffer.holds) > UNHELD:
            buffer.ready = ready
            return KEEP
        return EVICT

    def take_clean(self, judge: Callable[[Buffer], Verdict] | None = None) -> Any:
        """The memory of the clean buffer whose turn it is; None if all are held, or in use."""
        buffer = self.clean_clock.evict(judge or self.judge)
        if buffer is None:
            return None
        del self.blocks[buffer.block]
        return self._strip(buffer)

    def claim_dirty(self) -> Buffer | None:
        """A dirty buffer that nobody holds, held for whoever will write it; the next in turn."""
        found: list[Buffer] = []

        def judge(buffer: Buffer) -> Verdict:
            if buffer.held:
                return KEEP
            buffer.holds.append(False)
            found.append(buffer)
            return STOP

        self.dirty_clock.evict(judge)
        return found[0] if found else None

    def offer(self, buffer: Buffer) -> list[Ticket]:
        """A buffer that nobody holds, for the first who waits for memory: whom to wake."""
        supply = self.supply
        if not supply.queue or buffer.held or buffer.busy or buffer.frame is None:
            return []
        if buffer.dirty:
            buffer.holds.append(False)
            return supply.give(buffer)
        frame = self.detach(buffer)
        return [] if frame is None else supply.give(frame)

    def set_alert(self, buffer: Buffer, on: bool) -> None:
        """Say whether its last release has something to do; while that is so of any, all releases look.

        Whoever wants to be told of the last release says so first, and looks then whether anybody holds it.
        """
        if buffer.alert is not on:
            buffer.alert = on
            self.supply.alerts += 1 if on else -1
            self.supply.look_around()

    def settle(self, buffer: Buffer) -> tuple[Any, list[Ticket]]:
        """A transfer of it has ended: what to free, and whom to wake."""
        waking, buffer.waiters = buffer.waiters, []
        if buffer.error is not None and buffer.frame is not None:
            self.set_alert(buffer, True)
        if buffer.held:
            return None, waking
        if buffer.error is not None and not buffer.dirty and not buffer.busy:
            frame = self.detach(buffer)
            if frame is not None:
                return frame, waking
        return None, waking + self.offer(buffer)

    def tell(self, attempt: str) -> None:
        """An attempt to get memory begins."""
        if self.attempt is not None:
            self.attempt(attempt)

    def closed_error(self) -> PoolClosed:
        return PoolClosed(f"cache {self.name!r} is closed")

    def dispose(self, frame: Any, waking: list[Ticket]) -> None:
        """Outside the guard: what the step before has decided."""
        if frame is not None:
            self.supply.put(frame)
        for ticket in waking:
            ticket.wake()
