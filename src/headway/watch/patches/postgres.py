"""psycopg_pool: connections, on threads and on asyncio."""

from __future__ import annotations

from typing import Any

from headway.watch.ledger import Ledger
from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take, take_async
from headway.watch.places import keep_quiet

MODULE = "psycopg_pool"


def install(patcher: Patcher) -> None:
    import psycopg_pool

    keep_quiet(psycopg_pool)
    kinds = {
        psycopg_pool.ConnectionPool: _threads(patcher.ledger),
        psycopg_pool.AsyncConnectionPool: _tasks(patcher.ledger),
    }
    for kind, (get, put) in kinds.items():
        patcher.replace(kind, "__init__", _init(patcher.ledger))
        patcher.replace(kind, "getconn", get)
        patcher.replace(kind, "putconn", put)


def _init(ledger: Ledger) -> Any:
    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "psycopg pool", self.max_size)

        return __init__

    return init


def _threads(ledger: Ledger) -> tuple[Any, Any]:
    """How a connection is taken and comes back."""

    def getconn(original: Any) -> Any:
        def getconn(self: Any, timeout: float | None = None) -> Any:
            pool = pool_of(self)
            if pool is None:
                return original(self, timeout)
            limit = self.timeout if timeout is None else timeout
            return take(ledger, pool, limit, lambda: original(self, timeout))

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

    return getconn, putconn


def _tasks(ledger: Ledger) -> tuple[Any, Any]:
    """The same, awaited."""

    def getconn_async(original: Any) -> Any:
        async def getconn(self: Any, timeout: float | None = None) -> Any:
            pool = pool_of(self)
            if pool is None:
                return await original(self, timeout)
            limit = self.timeout if timeout is None else timeout
            return await take_async(ledger, pool, limit, lambda: original(self, timeout))

        return getconn

    def putconn_async(original: Any) -> Any:
        async def putconn(self: Any, taken: Any) -> None:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool, taken)
            finally:
                await original(self, taken)

        return putconn

    return getconn_async, putconn_async
