"""The face for asyncio: the same pools, awaited. One pool may serve threads and several loops at once.

It decides nothing: ``aio.Mempool(pool)`` gives an existing pool this face, any other argument makes
one. An allocator that may block runs on a worker thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar, final

from headway import caching, threaded
from headway.aio_buffers import BufferCache
from headway.aio_flow import Budget, BudgetExecutor, BudgetQueue, Together
from headway.aio_reservation import Reservations
from headway.core.mm import mempool as core
from headway.core.mm.cache import CacheStats
from headway.core.mm.cache import ShrinkableCache as CoreCache
from headway.core.mm.dirty import DirtyDevice
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp
from headway.core.mm.observed import PoolStats
from headway.runtimes import scopes, tasks

E = TypeVar("E")
K = TypeVar("K")
V = TypeVar("V")

KERNEL = Gfp.KERNEL

__all__ = [
    "Budget",
    "BudgetExecutor",
    "BudgetQueue",
    "BufferCache",
    "Lease",
    "Mempool",
    "Reservations",
    "ShrinkableCache",
    "Together",
    "dirtied",
]


@final
class Mempool(Generic[E]):
    """A pool whose waits suspend the task: `headway.Mempool` with ``await`` where it may wait."""

    __slots__ = (
        "_at_hand",
        "alloc_preallocated",
        "free",
        "free_bulk",
        "hand_over",
        "kick",
        "pool",
        "transfer",
        "try_alloc",
    )

    def __init__(self, pool: Any = None, **options: Any) -> None:
        self.pool: core.Mempool[E] = (
            pool if isinstance(pool, core.Mempool) else threaded.Mempool(pool, **options)
        )
        self._at_hand = self.pool.at_hand  # one list for ever
        # What never waits is the pool's own method.
        self.try_alloc = self.pool.try_alloc
        self.alloc_preallocated = self.pool.alloc_preallocated
        self.free = self.pool.free
        self.free_bulk = self.pool.free_bulk
        self.hand_over = self.pool.hand_over
        self.transfer = self.pool.transfer
        self.kick = self.pool.kick

    @classmethod
    def of(cls, elements: Iterable[E], **options: Any) -> Mempool[E]:
        """A pool of exactly these elements."""
        return cls(threaded.Mempool.of(elements, **options))

    async def alloc(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> Any:
        """Take one element; wait for it in FIFO order if the mask allows waiting, else None.

        Waits, raises: as `headway.Mempool.alloc`; a cancelled wait loses nothing.
        """
        # The pool's fast path, written out: a call costs a third.
        if gfp is KERNEL and not self.pool._gate:
            try:
                return self._at_hand.pop()
            except IndexError:
                pass
        taken = await _wait(self.pool, gfp, 1, timeout_s)
        return taken[0] if taken else None

    async def alloc_bulk(self, count: int, timeout_s: float | None = None) -> list[E]:
        """Take `count` elements, all or nothing."""
        self.pool.check_count(count)
        if count == 0:
            return []
        taken = await _wait(self.pool, KERNEL, count, timeout_s)
        assert taken is not None
        return taken

    def lease(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> Lease[E]:
        """An element for an ``async with`` block; freed however it ends."""
        lease: Lease[E] = Lease()  # filled in here: see `headway.core.mm.lease`
        lease._pool = self.pool
        lease._gfp = gfp
        lease._timeout_s = timeout_s
        return lease

    async def resize(self, count: int) -> int:
        """Change the reserve's size; the backend is asked on a worker thread."""
        return await tasks.in_worker(self.pool.resize, count)

    def close(self) -> None:
        """End the pool; see `headway.Mempool.close`."""
        self.pool.close()

    def stats(self) -> PoolStats:
        return self.pool.stats()

    def __repr__(self) -> str:
        return f"<aio {repr(self.pool)[1:]}"


def _wait(
    pool: core.Mempool[E], gfp: Gfp, count: int, timeout_s: float | None
) -> Awaitable[list[E] | None]:
    return tasks.run(pool.alloc_plan(gfp, scopes.current(), scopes.owner(), count, timeout_s))


@final
class Lease(Generic[E]):
    """What ``lease()`` gives; enter it with ``async with`` to get the element."""

    __slots__ = ("_gfp", "_pool", "_timeout_s", "element")

    _pool: core.Mempool[E]
    _gfp: Gfp
    _timeout_s: float | None
    element: Any

    async def __aenter__(self) -> Any:
        pool = self._pool
        if self._gfp is KERNEL and not pool._gate:
            try:
                self.element = element = pool.at_hand.pop()
                return element
            except IndexError:
                pass
        self.element = None
        taken = await _wait(pool, self._gfp, 1, self._timeout_s)
        self.element = taken[0] if taken else None
        return self.element

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        element = self.element
        if element is not None:
            self.element = None
            self._pool.free(element)

    def hand_over(self) -> Any:
        """The element is in flight: the block's end no longer frees it, its completion does."""
        element, self.element = self.element, None
        assert element is not None
        self._pool.hand_over(element)
        return element


@final
class ShrinkableCache(Generic[K, V]):
    """A cache that gives way, for tasks: `headway.ShrinkableCache` with ``await`` where it may wait.

    ``aio.ShrinkableCache(cache)`` gives an existing cache this face; a zone and other arguments make one. A
    hit never waits, and goes to the cache itself.
    """

    __slots__ = ("cache", "get", "pop")

    def __init__(self, cache: Any, **options: Any) -> None:
        if not isinstance(cache, CoreCache):
            cache = caching.ShrinkableCache(cache, **options)
        self.cache: CoreCache[K, V] = cache
        self.get = cache.get
        self.pop = cache.pop

    async def put(self, key: K, value: V, *, dirty: bool = False) -> bool:
        """Keep a value, if there is room for it; whether it is kept.

        Waits: for the writing of dirty data, on a worker thread, when too much of the zone is dirty.
        Raises: as `headway.ShrinkableCache.put`.
        """
        return await tasks.run(
            self.cache.put_plan(key, value, dirty, scopes.current(), scopes.owner())
        )

    async def flush(self) -> None:
        """Write back all that is dirty. Raises: what a write raised."""
        await tasks.run(self.cache.flush_plan(scopes.current()))

    def stats(self) -> CacheStats:
        return self.cache.stats()

    def __repr__(self) -> str:
        return f"<aio {repr(self.cache)[1:]}"


async def dirtied(
    device: DirtyDevice, size: int, group: Domain | None = None, *, local: bool = False
) -> None:
    """So many bytes are dirty: `DirtyDevice.dirtied`, for tasks. Waits: as that, in pauses."""
    await tasks.run(device.dirtied_plan(size, group, local, scopes.current(), scopes.owner()))
