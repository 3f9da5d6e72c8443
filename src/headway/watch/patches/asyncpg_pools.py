"""asyncpg: connections of its pools."""

from __future__ import annotations

from typing import Any, Final

from headway.watch.patches import Patcher
from headway.watch.patches.checkout import take_async
from headway.watch.places import keep_quiet

MODULE = "asyncpg"
_POOL: Final = "_headway_connections"  # on the pool's queue: the pool itself has slots, and no room


def install(patcher: Patcher) -> None:
    import asyncpg
    from asyncpg.pool import Pool

    keep_quiet(asyncpg)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        async def _initialize(self: Any) -> None:
            await original(self)
            pool = ledger.pool("connections", "asyncpg pool", self._maxsize, of=self._queue)
            setattr(self._queue, _POOL, pool)

        return _initialize

    def acquire(original: Any) -> Any:
        async def _acquire(self: Any, timeout: float | None) -> Any:
            pool = getattr(self._queue, _POOL, None)
            if pool is None:
                return await original(self, timeout)
            return await take_async(ledger, pool, timeout, lambda: original(self, timeout))

        return _acquire

    def release(original: Any) -> Any:
        async def release(self: Any, connection: Any, *, timeout: float | None = None) -> Any:
            pool = getattr(self._queue, _POOL, None)
            try:
                if pool is not None:
                    ledger.release(pool, connection)
            finally:
                given_back = await original(self, connection, timeout=timeout)
            return given_back

        return release

    patcher.replace(Pool, "_initialize", init)
    patcher.replace(Pool, "_acquire", acquire)
    patcher.replace(Pool, "release", release)
