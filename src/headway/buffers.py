"""The face of buffer caches for threads: a device's blocks in a zone's memory.

It decides nothing: `headway.core.block.bufio` does. Each method is the plan of that name, run; a hit is
written out, since a call costs as much as the hit.
"""

from __future__ import annotations

from typing import Any, final

from headway.core.block import bufio as core
from headway.core.block.ageing import MAX_AGE_S, RETAIN_BYTES, BufferLimit
from headway.core.block.blocks import IN_FLIGHT
from headway.core.block.bottom import Bottom
from headway.core.block.buffer import Buffer
from headway.core.block.device import Device, Kind
from headway.core.block.stacked import StackedDevice
from headway.core.mm.gfp import Gfp
from headway.core.plan import Runtime
from headway.core.units import parse_size
from headway.errors import UsageError
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS
from headway.threaded import Zone

__all__ = ["Buffer", "BufferCache", "BufferLimit"]

_GATHER = 1 << 20  # most bytes written as one
_GATHER_PART = 16  # but no more than this part of the zone


@final
class BufferCache(core.BufferCache):
    """Blocks of a device, kept in `memory`; hold one, use it, release it.

    `reserve` buffers are the cache's for ever, so whoever holds one buffer at a time always gets it; all
    other memory is taken while the zone has some, and comes from the cache's own clean and dirty blocks
    when it has none. `gather` is how much is written as one request (0: a block each; None: 1 MiB or a
    sixteenth of the zone). Clean blocks not used for `max_age_s` go, down to `retain`. `limit`, in bytes
    or a `BufferLimit` shared by several caches, bounds them below what the zone would give.

    >>> from headway import Zone, open_device
    >>> zone = Zone("1MiB", min_free=0)
    >>> cache = BufferCache(open_device("memory:1MiB"), memory=zone, block_size="64KiB")
    >>> with cache.read(3) as buffer:
    ...     buffer.view[:5] = b"hello"
    ...     buffer.mark_dirty(0, 5)
    >>> cache.write_dirty()
    >>> cache.stats().written_blocks
    1
    >>> cache.close()

    Raises: UsageError if the arguments make no cache; NoMemory if the reserve cannot be had now.
    """

    __slots__ = ("_device", "_gather", "_registered", "_share")

    def __init__(
        self,
        device: Device,
        *,
        memory: Zone,
        block_size: int | str = "64KiB",
        name: str | None = None,
        reserve: int = 1,
        gather: int | str | None = None,
        max_age_s: float = MAX_AGE_S,
        retain: int | str = RETAIN_BYTES,
        limit: BufferLimit | int | str | None = None,
        in_flight: int = IN_FLIGHT,
        runtime: Runtime | None = None,
    ) -> None:
        name = name or f"cache of {device.name}"
        size = parse_size(block_size, f"block_size of {name!r}")
        if reserve < 1 or not size:
            raise UsageError(
                f"cache {name!r}: block_size {size}, reserve {reserve}: at least 1 each"
            )
        if limit is not None and not isinstance(limit, BufferLimit):
            limit = BufferLimit(parse_size(limit, f"limit of {name!r}"))
        self._device = device
        self._share: Any = memory.buffers(size, floor=reserve * size, name=name)
        self._gather: Any = None
        staging = self._staging(memory, size, gather)
        try:
            super().__init__(
                Bottom(device),
                self._share,
                size,
                runtime=runtime or ambient() or THREADS,
                name=name,
                reserve_count=reserve,
                staging=staging,
                in_flight=in_flight,
                offloads=device.kind is not Kind.MEMORY or isinstance(device, StackedDevice),
                keeping={
                    "max_age_s": max_age_s,
                    "retain_bytes": parse_size(retain, f"retain of {name!r}"),
                    "limit": limit,
                },
            )
        except BaseException:
            self._give_back(staging, busy=False)
            raise
        self._share.on_room(self.supply.kick)
        self._registered = memory.register_shrinker(
            self.keeper, name=name, object_size=size, needs=Gfp(0)
        )
        self.runtime.run(self.start())

    def _staging(self, memory: Zone, size: int, gather: int | str | None) -> list[memoryview]:
        """A buffer of the zone to put neighbours together in, or none where it would hold no two."""
        if gather is None:
            most = min(_GATHER, memory.size // _GATHER_PART)
        else:
            most = parse_size(gather, "gather")
        if most < 2 * size:
            return []
        self._gather = memory.buffers(1 << (most.bit_length() - 1), name="gather")
        buffer = self._gather.alloc(Gfp.KERNEL)
        return [] if buffer is None else [buffer]

    def _give_back(self, staging: list[memoryview], *, busy: bool) -> None:
        """`busy`: somebody still holds a buffer; the zone's close will say so."""
        if self._gather is not None:
            while staging:
                self._gather.free(staging.pop())
            self._gather.close()
        if not busy:
            self._share.close()

    # -- blocks --------------------------------------------------------------------------------------

    def read(self, block: int) -> Buffer:
        """The buffer of a block, with its data, held: `release` it, or use it as ``with cache.read(n)``.

        Waits: for memory, in order of arrival, as long as every buffer is held; for the device.
        Raises: BlockError if it cannot be read; UsageError if there is no such block; PoolClosed.
        """
        try:
            buffer = self.quick[block]
        except KeyError:
            found = self.fetch(block)
            return self.runtime.run(self.read_plan(block)) if found is None else found
        buffer.holds.append(False)
        if buffer.ready:
            buffer.touched = self.stamp
            self.hits += 1
            return buffer
        self.release(buffer)
        return self.runtime.run(self.read_plan(block))

    def new(self, block: int) -> Buffer:
        """As `read`, but what is not cached is not read: the caller fills the block and marks it dirty."""
        buffer = self.hit(block)
        return self.runtime.run(self.read_plan(block, fresh=True)) if buffer is None else buffer

    def prefetch(self, block: int, count: int = 1) -> None:
        """Have blocks read in the background, as far as there is memory at once. Waits: never."""
        self.runtime.run(self.prefetch_plan(block, count))

    def move(self, buffer: Buffer, block: int) -> None:
        """Give a held buffer's content another block number, and release the buffer, however it ends.

        Waits: for holders of that block to release it, and for at most two writes. Raises: BlockError.
        """
        self.runtime.run(self.move_plan(buffer, block))

    # -- the device ----------------------------------------------------------------------------------

    def write_dirty(self) -> None:
        """Write all that is dirty now, and flush the device.

        Waits: for the device. Raises: BlockError for any write that failed since the last call, once; what
        failed is not kept.
        """
        self.runtime.run(self.write_dirty_plan())

    def flush(self) -> None:
        """Make what was written durable; dirty blocks are not written. Raises: BlockError."""
        self.runtime.run(self.flush_plan())

    def close(self) -> None:
        """Write everything and give the memory back; the device stays open. Closing twice is once.

        Raises: BlockError if something could not be written; PoolBusy if buffers are held.
        """
        if self.closed:
            return
        self._registered.unregister()
        try:
            self.runtime.run(self.close_plan())
        finally:
            self._give_back(self.staging, busy=bool(self.blocks))

    def __enter__(self) -> BufferCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
