"""The face of buffer caches for asyncio: the same caches, awaited. One cache may serve threads and loops.

It decides nothing. A device that may take long is asked in worker threads; the cache's keeper is a thread.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, final

from headway import buffers
from headway.core.block.buffer import Buffer
from headway.runtimes import tasks

__all__ = ["BufferCache"]


@final
class _Held:
    """A buffer for a block of code. (Made of a generator, it would cost as much as four hits.)"""

    __slots__ = ("_block", "_buffer", "_cache", "_fresh")

    def __init__(self, cache: buffers.BufferCache, block: int, fresh: bool) -> None:
        self._cache, self._block, self._fresh = cache, block, fresh
        self._buffer: Buffer

    async def __aenter__(self) -> Buffer:
        cache, block = self._cache, self._block
        buffer = cache.hit(block)
        if buffer is None:
            buffer = await tasks.run(cache.read_plan(block, fresh=self._fresh))
        self._buffer = buffer
        return buffer

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._buffer.release()


@final
class BufferCache:
    """A cache whose waits suspend the task: `headway.BufferCache` with ``await`` where it may wait.

    ``aio.BufferCache(cache)`` gives an existing cache this face; other arguments make one.
    """

    __slots__ = ("cache", "forget", "get", "mark_dirty", "release", "stats")

    def __init__(self, cache: Any, **options: Any) -> None:
        if not isinstance(cache, buffers.BufferCache):
            cache = buffers.BufferCache(cache, **options)
        self.cache: buffers.BufferCache = cache
        # What never waits is the cache's own method.
        self.get = self.cache.get
        self.release = self.cache.release
        self.mark_dirty = self.cache.mark_dirty
        self.forget = self.cache.forget
        self.stats = self.cache.stats

    async def read(self, block: int) -> Buffer:
        """The buffer of a block, with its data, held until `release`; see `held` for a block of code.

        Waits, raises: as `headway.BufferCache.read`; a cancelled wait leaves nothing behind.
        """
        buffer = self.cache.hit(block)
        return await tasks.run(self.cache.read_plan(block)) if buffer is None else buffer

    async def new(self, block: int) -> Buffer:
        """As `read`, but what is not cached is not read: the caller fills the block and marks it dirty."""
        buffer = self.cache.hit(block)
        if buffer is None:
            buffer = await tasks.run(self.cache.read_plan(block, fresh=True))
        return buffer

    def held(self, block: int, *, fresh: bool = False) -> AbstractAsyncContextManager[Buffer]:
        """``async with cache.held(7) as buffer``: `read` (or `new`, if `fresh`), and release at the end."""
        return _Held(self.cache, block, fresh)

    async def prefetch(self, block: int, count: int = 1) -> None:
        """Have blocks read in the background, as far as there is memory at once."""
        await tasks.run(self.cache.prefetch_plan(block, count))

    async def move(self, buffer: Buffer, block: int) -> None:
        """Give a held buffer's content another block number, and release the buffer."""
        await tasks.run(self.cache.move_plan(buffer, block))

    async def write_dirty(self) -> None:
        """Write all that is dirty now, and flush. Raises: BlockError of any write since the last, once."""
        await tasks.run(self.cache.write_dirty_plan())

    async def flush(self) -> None:
        """Make what was written durable. Raises: BlockError."""
        await tasks.run(self.cache.flush_plan())

    async def close(self) -> None:
        """Write everything and give the memory back; see `headway.BufferCache.close`."""
        await tasks.in_worker(self.cache.close)

    async def __aenter__(self) -> BufferCache:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<aio {self.cache!r}>"
