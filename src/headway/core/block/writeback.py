"""What of a cache is written together, in which order, and where the error goes.

It does not decide when (`attempts` for memory, `ageing` by the share of dirty blocks, the user). What
was changed of a block is a range, the hull of all that was marked; it is widened to what disks write as
one. Dirty blocks beside each other, whose ranges touch, are put together in a staging buffer of the
cache's own and written as one request; where the staging buffer is in use, or there is none, blocks are
written one by one. A block that is written again while it is being written waits for the first write.

An error is kept in the cache, is returned by the next `write_dirty`, and by that one only. A write whose
writer was cancelled is none: its blocks are dirty again, and whoever waits for them writes them.

Bound: one bio and at most one staging buffer for each request; `write_dirty` writes what was dirty when
it began, each block at most twice, however fast new blocks become dirty.

Source: Linux ``drivers/md/dm-bufio.c`` (``write_dirty_buffer``, ``dm_bufio_write_dirty_buffers``, 6.12).
Departure: neighbours are put together here, where the kernel leaves that to the request queue.
"""

from __future__ import annotations

from typing import Any, final

from headway.core.block.bio import WRITE, Bio, untraced
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.block.sending import send
from headway.core.block.transfer import flush, is_cancelled, until
from headway.core.plan import Plan


@final
class Run:
    """Blocks that are written as one: each with the range of it that is."""

    __slots__ = ("parts", "staging")

    def __init__(self, staging: memoryview | None) -> None:
        self.parts: list[tuple[Buffer, int, int]] = []
        self.staging = staging


def clean(cache: Blocks, claimed: Buffer, who: str) -> Plan[Any]:
    """Write a claimed dirty buffer and take its memory: the frame; None if somebody holds it again."""
    try:
        yield from write(cache, claimed, who)
    except BaseException:
        cache.release(claimed)
        raise
    with cache.guard:
        claimed.holds.pop()  # the claim
        frame = None
        if not claimed.held and not claimed.dirty and not claimed.busy:
            frame = cache.detach(claimed)
    if frame is None:
        cache.released(claimed)
    return frame


def write(cache: Blocks, buffer: Buffer, who: str) -> Plan[None]:
    """Write what is dirty of a held buffer, and of its neighbours; wait until it has been written."""
    yield from until(cache, buffer, lambda: not buffer.writing, who)
    while True:
        yield from start(cache, buffer)
        yield from until(cache, buffer, lambda: not buffer.writing, who)
        if not is_cancelled(buffer.error):
            return  # else whoever began to write it was cancelled: it is dirty


def start(cache: Blocks, buffer: Buffer) -> Plan[None]:
    """Begin to write a dirty buffer, with its dirty neighbours; nothing if it is clean, or being written."""
    with cache.guard:
        if not buffer.dirty or buffer.writing:
            return
    bio: Bio | None = cache.bios.pool.take_now()
    if bio is None:
        bio = yield from cache.bios.alloc()
    with cache.guard:
        run = _gather(cache, buffer)
    if run is None:  # somebody else wrote it meanwhile
        cache.bios.free(bio)
        return
    first, low, _ = run.parts[0]
    last, _, high = run.parts[-1]
    offset = first.block * cache.block_size + low
    length = last.block * cache.block_size + high - offset
    if run.staging is None:
        view = first.view if high - low == cache.block_size else first.view[low:high]
    else:
        view = run.staging[:length]
        at = 0
        for part, begin, end in run.parts:
            view[at : at + end - begin] = part.view[begin:end]
            at += end - begin
    bio.aim(WRITE, offset, view, length)
    bio.push(lambda bio: _written(cache, run, bio))
    cache.write_requests += 1
    cache.written_blocks += len(run.parts)
    yield from send(cache, bio)


def _gather(cache: Blocks, buffer: Buffer) -> Run | None:
    """The run that a dirty buffer is part of, all of it being written from now on. Under the guard."""
    if not buffer.dirty or buffer.writing:
        return None
    size, room = cache.block_size, cache.gather_bytes
    low, high = _widened(cache, buffer)
    before: list[tuple[Buffer, int, int]] = []
    after: list[tuple[Buffer, int, int]] = []
    staging = None
    if room >= 2 * size and cache.staging:
        room -= high - low
        while low == 0:
            beside = _writable(cache, (before[-1][0] if before else buffer).block - 1)
            if beside is None or beside[2] != size or room < beside[2] - beside[1]:
                break
            room -= beside[2] - beside[1]
            before.append(beside)
            low = beside[1]
        while high == size:
            beside = _writable(cache, (after[-1][0] if after else buffer).block + 1)
            if beside is None or beside[1] or room < beside[2]:
                break
            room -= beside[2]
            after.append(beside)
            high = beside[2]
        if before or after:
            staging = cache.staging.pop()
    run = Run(staging)
    run.parts = [*reversed(before), (buffer, *_widened(cache, buffer)), *after]
    for part, _, _ in run.parts:
        part.dirty_start = part.dirty_end = 0
        part.writing = True
        part.error = None
    return run


def _writable(cache: Blocks, block: int) -> tuple[Buffer, int, int] | None:
    buffer = cache.blocks.get(block)
    if buffer is None or not buffer.dirty or buffer.writing:
        return None
    return (buffer, *_widened(cache, buffer))


def _widened(cache: Blocks, buffer: Buffer) -> tuple[int, int]:
    """The range to write: whole units of what a disk writes, inside the block and the device."""
    unit, start = cache.write_alignment, buffer.block * cache.block_size
    low = (start + buffer.dirty_start) // unit * unit - start
    high = -(-(start + buffer.dirty_end) // unit) * unit - start
    return max(low, 0), min(high, cache.block_size, cache.size - start)


def _written(cache: Blocks, run: Run, bio: Bio) -> bool:
    """A run's end: on whatever thread."""
    error = bio.error
    anew = is_cancelled(error)  # nobody knows what was written: it is dirty as before
    cache.bios.free(bio)
    if run.staging is not None:
        cache.staging.append(run.staging)
    waking: list[Any] = []
    frames: list[Any] = []
    with cache.guard:
        if error is not None and not anew:
            cache.errors += 1
            cache.write_error = cache.write_error or untraced(error)
        for buffer, low, high in run.parts:
            buffer.writing = False
            buffer.error = error
            if anew:
                buffer.soil(low, high)
            if error is None:
                buffer.ready = buffer.frame is not None
            if not buffer.dirty and buffer in cache.dirty_clock:
                cache.dirty_clock.remove(buffer)
                cache.clean_clock.add(buffer)
            frame, woken = cache.settle(buffer)
            waking += woken
            if frame is not None:
                frames.append(frame)
    if frames:
        cache.supply.put_all(frames)
    cache.dispose(None, waking)
    return True


def start_all(cache: Blocks) -> Plan[list[Buffer]]:
    """Begin to write all that is dirty, in the order of the blocks; they are returned, held."""
    with cache.guard:
        dirty = sorted(cache.dirty_clock, key=lambda buffer: buffer.block)
        for buffer in dirty:
            buffer.holds.append(False)
    try:
        for buffer in dirty:
            if buffer.dirty and not buffer.writing:  # else it went with a neighbour
                yield from start(cache, buffer)
    except BaseException:
        for buffer in dirty:
            cache.release(buffer)
        raise
    return dirty


def write_dirty(cache: Blocks) -> Plan[None]:
    """Write what is dirty now, wait for it, and flush. Raises: the error of a write since the last time."""
    who = cache.runtime.owner()
    dirty = yield from start_all(cache)
    try:
        while dirty:
            buffer = dirty[-1]
            # It may have been under way before, with older data: then it is written once more.
            if buffer.dirty or buffer.writing:
                yield from write(cache, buffer, who)
            dirty.pop()
            cache.release(buffer)
    finally:
        for held in dirty:
            cache.release(held)
    with cache.guard:
        error, cache.write_error = cache.write_error, None
    try:
        yield from flush(cache)
    finally:
        if error is not None:
            raise error
