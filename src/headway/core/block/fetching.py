"""A block that is not cached, read in one go; and the wait for a block that somebody reads.

It does not decide where memory comes from: `fetch` makes the first attempt of `attempts` alone, which is
an allocation that neither waits nor makes others give back. Where that fails, or the block has appeared
meanwhile, nothing was done, and the plan of `bufio` goes through all attempts in their order.

Why it is here beside that plan: generator, driver, requests and the bio's hook cost as much as a fast
device takes for the block. So a miss that meets nothing to wait for but the device is made of the same
steps, called one after the other. It is for those who may wait for the device where they are: a thread,
not a loop. A layer that has to wait for more than that gets the rest as a plan.

Source: own; the two doors of a layer (`headway.core.block.layer`), one floor up.
"""

from __future__ import annotations

import errno

from headway.core.block import line, transfer
from headway.core.block.bio import Bio, Withdrawn, untraced
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.plan import Plan


def fetch(cache: Blocks, block: int) -> Buffer | None:
    """The buffer of a block that was not cached, held and with its data; None: nothing was done.

    Waits: for the device; for more only if a layer does. Raises: BlockError if it cannot be read.
    """
    supply = cache.supply
    if supply.locked or block in cache.blocks:
        return None  # where each step is another's chance, only plans are run
    frame = supply.try_light()
    if frame is None:
        return None
    bio: Bio | None = cache.bios.pool.take_now()
    buffer = None
    if bio is not None:
        with cache.guard:
            inside = 0 <= block * cache.block_size < cache.size and not cache.closed
            if inside and block not in cache.blocks:
                buffer = cache.insert(block, frame, reading=True)
                buffer.queued = False  # it is being read, here
                buffer.holds.append(False)
    if bio is None or buffer is None:
        if bio is not None:
            cache.bios.free(bio)
        supply.put(frame)
        return None
    cache.misses += 1
    cache.tell("nowait")
    try:
        transfer.aim(cache, buffer, bio)
        done = cache.layer.submit_now(bio)
    except Exception as error:
        bio.error = bio.error or error
        done = True
    except BaseException:
        bio.error = Withdrawn(errno.ECANCELED, f"cache {cache.name!r}: a read was cancelled")
        transfer.home(cache, buffer, bio)
        cache.release(buffer)
        raise
    if not done:
        return cache.runtime.run(_carry_on(cache, buffer, bio))
    failure = bio.error
    transfer.home(cache, buffer, bio)
    if failure is None:
        return buffer
    cache.release(buffer)
    raise untraced(failure)


def _carry_on(cache: Blocks, buffer: Buffer, bio: Bio) -> Plan[Buffer | None]:
    """Read it by the plan of a layer that has to wait."""
    bio.push(lambda bio: transfer.home(cache, buffer, bio))
    try:
        yield from line.submit(cache.layer, bio)
    except BaseException:
        cache.release(buffer)
        raise
    return buffer if (yield from ready(cache, buffer)) else None


def ready(cache: Blocks, buffer: Buffer) -> Plan[bool]:
    """Wait for a held buffer's data; False: its reader was cancelled, or it was moved; look again.

    Where it is False, or raises, the hold is given up. Raises: BlockError if it could not be read.
    """
    try:
        yield from transfer.fill(cache, buffer)
        if buffer.reading:
            who = cache.runtime.owner()
            yield from transfer.until(cache, buffer, lambda: not buffer.reading, who)
    except BaseException:
        cache.release(buffer)
        raise
    if buffer.has_data():
        return True
    error = buffer.error
    cache.release(buffer)
    if error is not None and not transfer.is_cancelled(error):
        raise untraced(error)
    return False
