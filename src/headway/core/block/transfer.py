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

from headway.core.block import line
from headway.core.block.bio import FLUSH, READ, Bio, refused
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.plan import Call, Offload, Plan, Ticket, park
from headway.errors import BlockError


def send(cache: Blocks, bio: Bio) -> Plan[None]:
    """Pass a bio on; its hook hears of its end, which may be before this returns.

    At once where the device can; on asyncio a device that may take long is asked in a worker.
    """
    try:
        if cache.offloads:
            done = yield Offload(_at_once, (cache, bio), 0, lambda done: _unsent(cache, bio, done))
        else:
            done = yield Call(_at_once, (cache, bio))
    except Exception as error:  # no worker could be started
        bio.complete(error)
        return
    if not done:
        yield from line.submit(cache.layer, bio)


def _at_once(cache: Blocks, bio: Bio) -> bool:
    try:
        if not cache.layer.submit_now(bio):
            return False
    except Exception as error:
        bio.error = bio.error or error
    except BaseException:
        bio.complete(_cancelled(cache, bio))
        raise
    bio.complete()
    return True


def _unsent(cache: Blocks, bio: Bio, done: bool) -> None:
    if not done:
        bio.complete(_cancelled(cache, bio))


def _cancelled(cache: Blocks, bio: Bio) -> BlockError:
    return refused(bio, cache.name, "it was cancelled", errno.ECANCELED)


def again(error: BaseException) -> BaseException:
    """The same error, to be raised by one more of those who wait: each has its own traceback."""
    if isinstance(error, BlockError):
        fresh = BlockError(error.errno or errno.EIO, str(error.args[-1]), offset=error.offset)
        fresh.__cause__ = error
        return fresh
    return error


def is_cancelled(error: BaseException | None) -> bool:
    return isinstance(error, BlockError) and error.errno == errno.ECANCELED


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
            error = BlockError(errno.ECANCELED, f"cache {cache.name!r}: a read was cancelled")
            read_ended(cache, buffer, error)
            raise
    start = buffer.block * cache.block_size
    length = min(cache.block_size, cache.size - start)
    view = buffer.view if length == cache.block_size else buffer.view[:length]
    bio.aim(READ, start, view, length)
    bio.push(lambda bio: _home(cache, buffer, bio))
    cache.read_requests += 1
    yield from send(cache, bio)


def _home(cache: Blocks, buffer: Buffer, bio: Bio) -> bool:
    error, length = bio.error, bio.length
    cache.bios.free(bio)
    if error is None and length < cache.block_size:  # the device ends inside its last block
        buffer.view[length:] = bytes(cache.block_size - length)
    read_ended(cache, buffer, error)
    return True


def read_ended(cache: Blocks, buffer: Buffer, error: BaseException | None) -> None:
    """Settle a block after its read."""
    with cache.guard:
        buffer.reading = False
        buffer.error = error
        if error is None:
            buffer.valid, buffer.ready = True, buffer.block
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
    ended: list[BaseException | None] = []
    ticket = Ticket(cache.runtime.owner())

    def home(bio: Bio) -> bool:
        ended.append(bio.error)
        cache.bios.free(bio)
        ticket.wake()
        return True

    bio.aim(FLUSH, 0, None, 0).push(home)
    yield from send(cache, bio)
    yield from park(ticket)
    if ended[0] is not None:
        raise ended[0]
