"""A cache of a device's blocks: read, get, new, release, mark_dirty, write_dirty, prefetch, forget, move.

It decides what each of those does to a block; the steps are `blocks`', the order of tries for memory
`attempts`', the bytes `transfer`'s and `writeback`'s, the time `ageing`'s. What may wait is a plan; the
faces run it.

A block is in the cache before it is read, so two who miss the same block read it once; whoever comes back
with memory for a block that has appeared meanwhile gives the memory back and uses what is there.

Bound: who waits for memory waits for the first release, see `attempts`; for a block, for one transfer.
The reserve guarantees progress to users that hold one buffer at a time.

Source: Linux ``drivers/md/dm-bufio.c`` (``new_read``, ``dm_bufio_prefetch``, ``dm_bufio_forget``, 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from headway.core.block import attempts, fetching, moving, transfer, writeback
from headway.core.block.ageing import Keeper
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.block.layer import Layer
from headway.core.block.supply import Memory
from headway.core.plan import Plan, Runtime
from headway.errors import HeadwayError, PoolBusy, UsageError


@final
@dataclass(frozen=True, slots=True)
class BufferCacheStats:
    """A snapshot. `clean` and `dirty` count buffers; `frames` is all memory that was taken, in blocks.

    `written_blocks` over `write_requests` says how many blocks were written as one, on average.
    """

    name: str
    block_size: int
    clean: int
    dirty: int
    frames: int
    reserve: int
    reserve_lacking: int
    waiting: int
    waits: int
    hits: int
    misses: int
    evicted: int
    read_requests: int
    write_requests: int
    written_blocks: int
    errors: int


class BufferCache(Blocks):
    """The cache as plans and steps. `keeper` does what is nobody's turn; it runs from `start` to `close`."""

    __slots__ = ("keeper",)

    def __init__(
        self,
        layer: Layer,
        memory: Memory,
        block_size: int,
        *,
        runtime: Runtime,
        keeping: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Args: `keeping` are the options of `ageing.Keeper`; the others are those of `Blocks`."""
        super().__init__(layer, memory, block_size, runtime=runtime, **options)
        self.keeper = Keeper(self, **(keeping or {}))

    def start(self) -> Plan[None]:
        """Start the keeper. Asks: Spawn."""
        yield from self.keeper.start()

    def _check(self, block: int) -> None:
        if block < 0 or block * self.block_size >= self.size:
            raise UsageError(
                f"cache {self.name!r}: block {block} of {self.layer.name}: it has "
                f"{-(-self.size // self.block_size)} blocks of {self.block_size} bytes, from 0 on"
            )
        if self.closed:
            raise self.closed_error()

    # -- to have a block -----------------------------------------------------------------------------

    def read_plan(self, block: int, *, fresh: bool = False) -> Plan[Buffer]:
        """The buffer of a block, held and with its data; `fresh`: without reading, if it is not there.

        Waits: for memory, as `attempts` says; for the device. Raises: BlockError if it cannot be read;
        UsageError if there is no such block; PoolClosed.
        """
        frame: Any = None
        try:
            while True:
                with self.guard:
                    self._check(block)
                    buffer = self._found(block)
                    if buffer is None and frame is not None:
                        buffer = self.insert(block, frame, reading=not fresh)
                        frame = None
                    if buffer is not None:
                        buffer.holds.append(False)
                        buffer.touched = self.stamp
                        if fresh and buffer.queued:  # what would be read is not wanted
                            buffer.queued = buffer.reading = False
                            buffer.valid = buffer.ready = True
                if buffer is None:
                    self.misses += 1
                    frame = yield from attempts.take(self)
                    continue
                if frame is not None:  # the block has appeared meanwhile
                    self.supply.put(frame)
                    frame = None
                self.keeper.look(self)
                if buffer.valid or (yield from fetching.ready(self, buffer)):
                    return buffer
        except BaseException:
            if frame is not None:
                self.supply.put(frame)
            raise

    def fetch(self, block: int) -> Buffer | None:
        """A miss without a plan, see `fetching`; None: nothing was done, and `read_plan` is to be run."""
        buffer = fetching.fetch(self, block)
        if buffer is not None:
            self.keeper.look(self)
        return buffer

    def _found(self, block: int) -> Buffer | None:
        buffer = self.blocks.get(block)
        if buffer is not None and not buffer.valid and not buffer.reading:
            self.unlink(buffer)  # it could not be read; those who asked for it are about to hear
            return None
        return buffer

    def prefetch_plan(self, block: int, count: int = 1) -> Plan[None]:
        """Have blocks read that will be needed soon, as far as there is memory at once.

        Waits: never, for memory or the device; an error is kept for nobody. Raises: UsageError.
        """
        for number in range(block, block + count):
            with self.guard:
                self._check(number)
                if self._found(number) is not None:
                    continue
            frame = yield from attempts.take(self, prefetch=True)
            if frame is None:
                break
            with self.guard:
                if not self.closed and number not in self.blocks:
                    self.keeper.enqueue(self.insert(number, frame, reading=True))
                    continue
            self.supply.put(frame)
        self.keeper.wake()

    # -- what becomes of it ----------------------------------------------------------------------------

    def mark_dirty(self, buffer: Buffer, start: int = 0, end: int | None = None) -> None:
        """Say that bytes `start` to `end` (exclusive) of a held buffer were changed; the range grows to
        the hull of all that was said since it was last written.

        Waits: never. Raises: UsageError if the range is not in the block, or nobody holds the buffer.
        """
        if end is None:
            end = self.block_size
        if not 0 <= start < end <= self.block_size:
            raise UsageError(
                f"cache {self.name!r}: bytes {start} to {end} of block {buffer.block} are no range in "
                f"a block of {self.block_size} bytes"
            )
        with self.guard:
            if not buffer.held or not buffer.valid or buffer.cache is not self:
                raise UsageError(
                    f"cache {self.name!r}: block {buffer.block} was marked dirty by somebody who does "
                    "not hold it; mark it between read (or new) and release"
                )
            fresh = not buffer.dirty and not buffer.writing
            if fresh:
                self.clean_clock.remove(buffer)
                self.dirty_clock.add(buffer)
            buffer.soil(start, end)
        if fresh:
            self.keeper.look(self)

    def write_dirty_plan(self) -> Plan[None]:
        """See `writeback.write_dirty`."""
        return writeback.write_dirty(self)

    def flush_plan(self) -> Plan[None]:
        """See `transfer.flush`."""
        return transfer.flush(self)

    def forget(self, block: int, count: int = 1) -> None:
        """Drop blocks that nobody holds and that are clean and idle; a hint. Waits: never."""
        frames = []
        with self.guard:
            for number in range(block, block + count):
                buffer = self.blocks.get(number)
                if buffer is not None and not buffer.dirty and not buffer.busy:
                    frames.append(self.detach(buffer))
        self.supply.put_all([frame for frame in frames if frame is not None])

    def move_plan(self, buffer: Buffer, block: int) -> Plan[None]:
        """See `moving.move`."""
        with self.guard:
            self._check(block)
        return (yield from moving.move(self, buffer, block))

    # -- its end ---------------------------------------------------------------------------------------

    def close_plan(self) -> Plan[None]:
        """Write everything, give all memory back. Closing twice is once.

        Raises: BlockError if something could not be written (it is lost); PoolBusy if buffers are held.
        """
        if self.closed:
            return
        failure: HeadwayError | None = None
        yield from self.keeper.close()
        try:
            yield from writeback.write_dirty(self)
        except HeadwayError as error:
            failure = error
        with self.guard:
            self.closed = True
            waiting = list(self.supply.queue)
            for ticket in waiting:
                self.supply.queue.leave(ticket)
            for (
                buffer
            ) in self.blocks.values():  # if it is held, its memory goes with the last release
                buffer.error = self.closed_error()
                self.set_alert(buffer, True)
            frames = [
                frame for buffer in list(self.blocks.values()) if (frame := self.detach(buffer))
            ]
            held = len(self.blocks)
        for ticket in waiting:
            if not ticket.claim():
                ticket.wake()
        self.supply.put_all(frames)
        self.supply.close()
        if failure is not None:
            raise failure
        if held:
            raise PoolBusy(
                f"cache {self.name!r}: closed with {held} buffers held; release them first",
                pool=self.name,
                count=held,
            )
        self.bios.close()

    def stats(self) -> BufferCacheStats:
        supply = self.supply
        return BufferCacheStats(
            self.name, self.block_size, len(self.clean_clock), len(self.dirty_clock), supply.frames,
            len(supply.reserve), supply.lacking, len(supply.queue), supply.waits, self.hits,
            self.misses, self.evicted, self.read_requests, self.write_requests, self.written_blocks,
            self.errors,
        )  # fmt: skip

    def check_invariants(self) -> None:
        """After every simulated step."""
        with self.guard:
            for number, buffer in self.blocks.items():
                if buffer.frame is None:
                    continue  # it keeps the place of one that is being moved
                assert buffer.block == number
                dirty = buffer.dirty or buffer.writing
                assert (buffer in self.dirty_clock) == dirty, f"{buffer!r} is on the wrong clock"
                assert (buffer in self.clean_clock) != dirty
                assert buffer.valid or not buffer.ready
                assert not (buffer.reading and buffer.valid)
            assert len(self.clean_clock) + len(self.dirty_clock) <= len(self.blocks)
            supply, alerts = self.supply, sum(buffer.alert for buffer in self.blocks.values())
            assert supply.alerts >= alerts, "more are told of than counted"
            assert supply.wanted == (bool(supply.queue or supply.alerts) or self.runtime.locked)

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<BufferCache {self.name!r}: {stats.clean} clean and {stats.dirty} dirty blocks of "
            f"{stats.block_size}, {stats.hits} hits, {stats.misses} misses, {stats.waiting} waiting>"
        )
