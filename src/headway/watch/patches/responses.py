"""httpcore, and httpx on it: a response keeps its connection until it is read to the end or closed.

A pool that may speak HTTP/2 puts many requests on one connection, and is left alone.
"""

from __future__ import annotations

import sys
from typing import Any

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.checkout import made, take, take_async
from headway.watch.places import keep_quiet

MODULE = "httpcore"


def install(patcher: Patcher) -> None:
    import httpcore

    keep_quiet(httpcore)
    if "httpx" in sys.modules:
        keep_quiet(sys.modules["httpx"])
    for kind in (httpcore.ConnectionPool, httpcore.AsyncConnectionPool):
        patcher.replace(kind, "__init__", _init(patcher.ledger))
    _threads(patcher)
    _tasks(patcher)


def _init(ledger: Ledger) -> Any:
    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            if "httpx" in sys.modules:
                keep_quiet(sys.modules["httpx"])
            made(
                ledger, self, "HTTP connection pool", None if self._http2 else self._max_connections
            )

        return __init__

    return init


def _threads(patcher: Patcher) -> None:
    import httpcore
    from httpcore._sync import connection_pool

    ledger = patcher.ledger

    def handle(original: Any) -> Any:
        def handle_request(self: Any, request: Any) -> Any:
            pool, response = pool_of(self), None

            def get() -> Any:
                nonlocal response
                response = original(self, request)
                return response.stream

            if pool is None or pool.size is None:
                return original(self, request)
            setattr(take(ledger, pool, _limit(request), get), POOL, pool)
            return response

        return handle_request

    def close(original: Any) -> Any:
        def close(self: Any) -> None:
            try:
                _back(ledger, self)
            finally:
                original(self)

        return close

    patcher.replace(httpcore.ConnectionPool, "handle_request", handle)
    patcher.replace(connection_pool.PoolByteStream, "close", close)


def _tasks(patcher: Patcher) -> None:
    import httpcore
    from httpcore._async import connection_pool

    ledger = patcher.ledger

    def handle_async(original: Any) -> Any:
        async def handle_async_request(self: Any, request: Any) -> Any:
            pool, response = pool_of(self), None

            async def get() -> Any:
                nonlocal response
                response = await original(self, request)
                return response.stream

            if pool is None or pool.size is None:
                return await original(self, request)
            setattr(await take_async(ledger, pool, _limit(request), get), POOL, pool)
            return response

        return handle_async_request

    def aclose(original: Any) -> Any:
        async def aclose(self: Any) -> None:
            try:
                _back(ledger, self)
            finally:
                await original(self)

        return aclose

    patcher.replace(httpcore.AsyncConnectionPool, "handle_async_request", handle_async)
    patcher.replace(connection_pool.PoolByteStream, "aclose", aclose)


def _back(ledger: Ledger, self: Any) -> None:
    pool: Pool | None = pool_of(self)
    if pool is not None and not self._closed:
        ledger.release(pool, self)


def _limit(request: Any) -> float | None:
    limit = request.extensions.get("timeout", {}).get("pool")
    return None if limit is None else float(limit)
