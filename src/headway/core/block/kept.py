"""Blocks of a table that were read and are kept, if memory was there for them: the oldest goes first.

It reads nothing, and gives nothing back for others before it is closed: `most` is small. A buffer stays only
if it came from beyond its pool's reserve, so that whoever must have one gets it from there.

Bound: `most` buffers beyond the reserve.

Source: own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

from headway.core.mm.mempool import Mempool

K = TypeVar("K")
T = TypeVar("T")


@final
class Kept(Generic[K]):
    """Buffers of `pool` by key. Any thread."""

    __slots__ = ("_blocks", "_guard", "_pool", "most")

    def __init__(self, pool: Mempool[memoryview], most: int) -> None:
        self._pool = pool
        self._guard = pool.runtime.guard()
        self._blocks: dict[K, memoryview] = {}  # the oldest first
        self.most = most

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: K) -> bool:
        return key in self._blocks

    def look(self, key: K, use: Callable[[memoryview], T]) -> T | None:
        """``use(block)``, while it cannot be given away; None if it is not at hand."""
        with self._guard:
            block = self._blocks.get(key)
            return None if block is None else use(block)

    def keep(self, key: K, buffer: memoryview) -> bool:
        """Take over a buffer that holds the block; False: it is still the caller's."""
        pool, old = self._pool, None
        with self._guard:
            if not self.most or pool.reserve_count < pool.min_count or key in self._blocks:
                return False
            if len(self._blocks) >= self.most:
                old = self._blocks.pop(next(iter(self._blocks)))
            self._blocks[key] = buffer
        if old is not None:
            pool.free(old)
        return True

    def close(self) -> None:
        """Give all of them back."""
        while self._blocks:
            self._pool.free(self._blocks.popitem()[1])
