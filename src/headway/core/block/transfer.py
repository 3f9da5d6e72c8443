"""One block's bytes between a cache and its device; and waiting for that, or for the holders of a block.

It does not decide what is read or written when. A transfer's end is its bio's hook, which settles the
block whoever runs it: so a reader that is cancelled leaves a block that others can still use, and memory
that is being transferred is never given to anybody.

A block is read by whoever comes first: one that was only queued (a prefetch) is taken over by a reader.

Source: Linux ``drivers/md/dm-bufio.c`` (``submit_io``, ``read_endio``, 6.12).
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from headway.core.block.bio import FLUSH, READ, Bio, Withdrawn
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.block.sending import carry_out, send
from headway.core.plan import Plan, Ticket, park
from headway.core.zeros import clear


def is_cancelled(error: BaseException | None) -> bool:
    return isinstance(error, Withdrawn)


# -- reading -------------------------------------------------------------------------------------------


def fill(cache: Blocks, buffer: Buffer) -> Plan[None]:
    """Start to read a queued block, unless somebody else has; its end is `until` it is not reading."""
    with cache.guard:
        if not buffer.queued:
            return
        buffer.queued = False
    bio: Bio | None = cache.bios.pool.take_now()
    if bio is None:
        try:
            bio = yield from cache.bios.alloc()
        except BaseException:
            error = Withdrawn(errno.ECANCELED, f"cache {cache.name!r}: a read was cancelled")
            read_ended(cache, buffer, error)
            raise
    aim(cache, buffer, bio)
    bio.push(lambda bio: home(cache, buffer, bio))
    yield from send(cache, bio)


def aim(cache: Blocks, buffer: Buffer, bio: Bio) -> None:
    """Let `bio` read the block of a buffer: the device may end inside it."""
    start, length, view = buffer.block * cache.block_size, cache.block_size, buffer.view
    if start + length > cache.size:
        length = cache.size - start
        view = view[:length]
    bio.aim(READ, start, view, length)
    cache.read_requests += 1


def home(cache: Blocks, buffer: Buffer, bio: Bio) -> bool:
    """The end of a read: on whatever thread."""
    error, length = bio.error, bio.length
    cache.bios.free(bio)
    if error is None and length < cache.block_size:  # the device ends inside its last block
        clear(buffer.view[length:])
    read_ended(cache, buffer, error)
    return True


def read_ended(cache: Blocks, buffer: Buffer, error: BaseException | None) -> None:
    """Settle a block after its read."""
    with cache.guard:
        buffer.reading = False
        buffer.error = error
        if error is None:
            buffer.valid = buffer.ready = True
            if buffer.held and not buffer.waiters:
                return  # the usual one: its reader goes on with it
        else:
            cache.errors += 1
        frame, waking = cache.settle(buffer)
    cache.dispose(frame, waking)


def until(cache: Blocks, buffer: Buffer, settled: Callable[[], bool], who: str) -> Plan[None]:
    """Wait until `settled()`, which is looked at when a transfer or the holds of a buffer end."""
    while True:
        with cache.guard:
            if settled():
                return
            ticket = Ticket(who)
            buffer.waiters.append(ticket)
        yield from park(ticket)


def flush(cache: Blocks) -> Plan[None]:
    """All that was written is on stable storage. Raises: BlockError."""
    bio = yield from cache.bios.alloc()
    bio.aim(FLUSH, 0, None, 0)
    yield from carry_out(cache, bio, cache.bios.free, cache.runtime.owner())
