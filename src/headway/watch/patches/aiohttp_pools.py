"""aiohttp's client: a response keeps its connection until it is read to the end or closed.

A connector's `limit` is watched; its limit for each host is not.
"""

from __future__ import annotations

from typing import Any

from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take_async
from headway.watch.places import keep_quiet

MODULE = "aiohttp.connector"


def install(patcher: Patcher) -> None:
    import aiohttp
    from aiohttp.connector import BaseConnector

    keep_quiet(aiohttp)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "aiohttp connector", self.limit)

        return __init__

    def connect(original: Any) -> Any:
        async def connect(self: Any, request: Any, traces: Any, timeout: Any) -> Any:
            pool, connection = pool_of(self), None
            if pool is None or pool.size is None:
                return await original(self, request, traces, timeout)

            async def get() -> Any:
                nonlocal connection
                connection = await original(self, request, traces, timeout)
                return connection.protocol

            await take_async(ledger, pool, timeout.connect, get)
            return connection

        return connect

    def back(original: Any) -> Any:
        def _release_acquired(self: Any, key: Any, protocol: Any) -> None:
            pool = pool_of(self)
            if pool is not None and any(h.element is protocol for h in list(pool.out)):
                ledger.release(pool, protocol)
            original(self, key, protocol)

        return _release_acquired

    patcher.replace(BaseConnector, "__init__", init)
    patcher.replace(BaseConnector, "connect", connect)
    patcher.replace(BaseConnector, "_release_acquired", back)
