"""What a held buffer has becomes the content of another block: its memory moves, nothing is copied.

It writes nothing but what must be on the device first. The new block is taken by a *stand-in* from the
first step to the last, so that nobody reads it while it changes hands; who asks for it waits, and looks
again. What was cached there is written and dropped. If the caller is the only holder the stand-in takes
the memory over, and is dirty; if others hold the buffer, they keep it, and its content is written to the new
block. (The kernel's gives the buffer another number; here a buffer is of one block for ever, see `buffer`.)

Bound: waits for the holders of the new block's buffer to release it, for at most two writes, and for
nothing else.

Source: ``dm_bufio_release_move`` of the 3.x kernels; it held the one lock throughout.
"""

from __future__ import annotations

import errno
from typing import Any

from headway.core.block import writeback
from headway.core.block.bio import WRITE, Bio, Withdrawn, untraced
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
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
    if not buffer.held or not buffer.valid:
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
                raise untraced(buffer.error)
        if not _hand_over(cache, buffer, stand_in):
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
                cache.set_alert(other, True)  # before we look: who releases it looks after
                if other.held or other.busy:
                    ticket = Ticket(who)
                    other.waiters.append(ticket)
                elif other.dirty:
                    other.holds.append(False)
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


def _hand_over(cache: Blocks, buffer: Buffer, stand_in: Buffer) -> bool:
    """Let the stand-in have its memory, all dirty, if the caller is the only one who holds it."""
    with cache.guard:
        ready, buffer.ready = buffer.ready, False
        if buffer.held != 1 or buffer.busy or cache.blocks.get(buffer.block) is not buffer:
            buffer.ready = ready
            return False
        cache.unlink(buffer)
        buffer.dirty_start = buffer.dirty_end = 0  # what was marked since it was written goes along
        stand_in.frame, buffer.frame = buffer.frame, None
        stand_in.view = stand_in.frame
        stand_in.soil(0, cache.block_size)
        cache.dirty_clock.add(stand_in)
        stand_in.reading = False
        stand_in.valid = stand_in.ready = True
        return True


def _write_copy(cache: Blocks, buffer: Buffer, block: int) -> Plan[None]:
    """Others keep the buffer: write what it has to the new place."""
    bio = yield from cache.bios.alloc()
    with cache.guard:
        buffer.holds.append(False)  # for as long as the device may look at its memory

    def home(bio: Bio) -> None:
        cache.bios.free(bio)
        cache.release(buffer)

    start = block * cache.block_size
    view = buffer.view[: min(cache.block_size, cache.size - start)]
    bio.aim(WRITE, start, view, len(view))
    try:
        yield from carry_out(cache, bio, home, cache.runtime.owner())
    except BlockError as error:
        raise untraced(error) from None


def _leave(cache: Blocks, stand_in: Buffer) -> None:
    """Let those who waited for the block have it, or look again."""
    with cache.guard:
        if stand_in.frame is None:
            if cache.blocks.get(stand_in.block) is stand_in:
                del cache.blocks[stand_in.block]
            stand_in.reading = False
            cache.set_alert(stand_in, False)  # it has nothing that a release could give
            stand_in.error = Withdrawn(errno.ECANCELED, f"block {stand_in.block} was moved to")
        _, waking = cache.settle(stand_in)  # its memory may be waited for as well
    cache.dispose(None, waking)
