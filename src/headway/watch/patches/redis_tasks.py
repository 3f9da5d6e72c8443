"""redis, on asyncio: as `redis_pools`, awaited."""

from __future__ import annotations

from typing import Any

from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take_async
from headway.watch.places import keep_quiet

MODULE = "redis.asyncio.connection"


def install(patcher: Patcher) -> None:
    import redis
    from redis.asyncio import connection

    keep_quiet(redis)
    ledger = patcher.ledger
    waits = connection.BlockingConnectionPool

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "redis asyncio pool", self.max_connections)

        return __init__

    def get(original: Any) -> Any:
        async def get_connection(self: Any, *args: Any, **options: Any) -> Any:
            pool = pool_of(self)
            if pool is None:
                return await original(self, *args, **options)
            if isinstance(self, waits):
                return await take_async(
                    ledger, pool, self.timeout, lambda: original(self, *args, **options)
                )
            taken = await original(self, *args, **options)
            if not any(holding.element is taken for holding in pool.out):
                ledger.grant(pool, taken)
            return taken

        return get_connection

    def release(original: Any) -> Any:
        async def release(self: Any, taken: Any) -> Any:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool, taken)
            finally:
                given_back = await original(self, taken)
            return given_back

        return release

    patcher.replace(connection.ConnectionPool, "__init__", init)
    patcher.replace(connection.ConnectionPool, "get_connection", get)
    patcher.replace(connection.ConnectionPool, "release", release)
    if "get_connection" in vars(waits):
        patcher.replace(waits, "get_connection", get)
    if "release" in vars(waits):
        patcher.replace(waits, "release", release)
