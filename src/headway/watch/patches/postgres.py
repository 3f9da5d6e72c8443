"""psycopg_pool: connections, on threads and on asyncio."""

from __future__ import annotations

from typing import Any

from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take, take_async
from headway.watch.places import keep_quiet

MODULE = "psycopg_pool"


def install(patcher: Patcher) -> None:
    import psycopg_pool

    keep_quiet(psycopg_pool)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "psycopg pool", self.max_size)

        return __init__

    def getconn(original: Any) -> Any:
        def getconn(self: Any, timeout: float | None = None) -> Any:
            pool = pool_of(self)
            if pool is None:
                return original(self, timeout)
            limit = self.timeout if timeout is None else timeout
            return take(ledger, pool, limit, lambda: original(self, timeout))

        return getconn

    def getconn_async(original: Any) -> Any:
        async def getconn(self: Any, timeout: float | None = None) -> Any:
            pool = pool_of(self)
            if pool is None:
                return await original(self, timeout)
            limit = self.timeout if timeout is None else timeout
            return await take_async(ledger, pool, limit, lambda: original(self, timeout))

        return getconn

    def putconn(original: Any) -> Any:
        def putconn(self: Any, taken: Any) -> None:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool, taken)
            finally:
                original(self, taken)

        return putconn

    def putconn_async(original: Any) -> Any:
        async def putconn(self: Any, taken: Any) -> None:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool, taken)
            finally:
                await original(self, taken)

        return putconn

    kinds = {
        psycopg_pool.ConnectionPool: (getconn, putconn),
        psycopg_pool.AsyncConnectionPool: (getconn_async, putconn_async),
    }
    for kind, (get, put) in kinds.items():
        patcher.replace(kind, "__init__", init)
        patcher.replace(kind, "getconn", get)
        patcher.replace(kind, "putconn", put)
