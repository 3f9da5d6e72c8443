"""A held buffer becomes the buffer of another block: its number changes, not its memory.

It writes nothing but what must be on the device first. The new number is taken by a *stand-in* from the
first step to the last, so that nobody reads the block while it changes hands; who asks for it waits, and
looks again. What was cached there is written and dropped. If the caller is the only holder the buffer is
renumbered and dirty; if others hold it, they keep their block, and the content is written to the new one.

Bound: waits for the holders of the new block's buffer to release it, for at most two writes, and for
nothing else.

Source: ``dm_bufio_release_move`` of the 3.x kernels; it held the one lock throughout.
"""

from __future__ import annotations

import errno
from typing import Any

from headway.core.block import transfer, writeback
from headway.core.block.bio import WRITE, Bio, Withdrawn
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import NEVER, Buffer
from headway.core.block.sending import carry_out
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError, UsageError


def move(cache: Blocks, buffer: Buffer, block: int) -> Plan[None]:
    """Give a held buffer's content the number `block`, and release the buffer, however it ends.

    Raises: BlockError if it could not be written; UsageError if the block is shorter (the last one), or
    nobody holds the buffer.
    """
    who = cache.runtime.owner()
    size, total = cache.block_size, cache.size
    if not buffer.holds or not buffer.valid:
        raise UsageError(
            f"cache {cache.name!r}: {buffer!r} is moved by somebody who does not hold it"
        )
    stand_in: Buffer | None = None
    try:
        if min(size, total - block * size) != min(size, total - buffer.block * size):
            raise UsageError(
                f"cache {cache.name!r}: block {block} is not as long as {buffer.block}"
            )
        if buffer.block == block:
            return
        stand_in = yield from _reserve(cache, block, who)
        if buffer.dirty or buffer.writing:
            yield from writeback.write(cache, buffer, who)
            if buffer.error is not None:
                raise transfer.again(buffer.error)
        if not _renumber(cache, buffer, block):
            yield from _write_copy(cache, buffer, block)
    finally:
        if stand_in is not None:
            _leave(cache, stand_in)
        cache.release(buffer)


def _reserve(cache: Blocks, block: int, who: str) -> Plan[Buffer]:
    """Put a stand-in at `block`, once nobody holds what is there, and it is clean."""
    while True:
        claimed: Buffer | None = None
        ticket: Ticket | None = None
        frame: Any = None
        with cache.guard:
            other = cache.blocks.get(block)
            if other is not None:
                if other.holds or other.busy:
                    ticket = Ticket(who)
                    other.waiters.append(ticket)
                    other.alert = True
                elif other.dirty:
                    other.holds.append(None)
                    claimed = other
                else:
                    frame = cache.detach(other)
                    if frame is not None:
                        other = None
            if other is None:
                stand_in = Buffer(cache, block, None, cache.stamp)
                stand_in.reading = True
                cache.blocks[block] = stand_in
        if frame is not None:
            cache.supply.put(frame)
        if other is None:
            return stand_in
        if claimed is not None:
            try:
                yield from writeback.write(cache, claimed, who)
            finally:
                cache.release(claimed)
        elif ticket is not None:
            yield from park(ticket)


def _renumber(cache: Blocks, buffer: Buffer, block: int) -> bool:
    """Make it the buffer of `block`, all dirty, if the caller is the only one who holds it."""
    with cache.guard:
        ready, buffer.ready = buffer.ready, NEVER
        if len(buffer.holds) != 1 or buffer.busy or cache.blocks.get(buffer.block) is not buffer:
            buffer.ready = ready
            return False
        del cache.blocks[buffer.block]
        if not buffer.dirty:
            cache.clean_clock.remove(buffer)
            cache.dirty_clock.add(buffer)
        buffer.block = block
        buffer.soil(0, cache.block_size)
        cache.blocks[block] = buffer
        buffer.ready = block
        return True


def _write_copy(cache: Blocks, buffer: Buffer, block: int) -> Plan[None]:
    """Others keep the buffer: write what it has to the new place."""
    bio = yield from cache.bios.alloc()
    with cache.guard:
        buffer.holds.append(None)  # for as long as the device may look at its memory

    def home(bio: Bio) -> None:
        cache.bios.free(bio)
        cache.release(buffer)

    start = block * cache.block_size
    view = buffer.view[: min(cache.block_size, cache.size - start)]
    bio.aim(WRITE, start, view, len(view))
    try:
        yield from carry_out(cache, bio, home, cache.runtime.owner())
    except BlockError as error:
        raise transfer.again(error) from None


def _leave(cache: Blocks, stand_in: Buffer) -> None:
    """Let those who waited for the block look again."""
    with cache.guard:
        if cache.blocks.get(stand_in.block) is stand_in:
            del cache.blocks[stand_in.block]
        stand_in.reading = False
        stand_in.error = Withdrawn(errno.ECANCELED, f"block {stand_in.block} was moved to")
        waking, stand_in.waiters = stand_in.waiters, []
    for ticket in waking:
        ticket.wake()
