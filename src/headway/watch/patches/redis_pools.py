"""redis, on threads: connections of its pools. Only a `BlockingConnectionPool` makes anybody wait.

The other kind raises when it has no more; there, what never came back is all there is to see.
"""

from __future__ import annotations

from typing import Any

from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take
from headway.watch.places import keep_quiet

MODULE = "redis.connection"


def install(patcher: Patcher) -> None:
    import redis
    from redis import connection

    keep_quiet(redis)
    ledger = patcher.ledger
    waits = connection.BlockingConnectionPool

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "redis pool", self.max_connections)

        return __init__

    def get(original: Any) -> Any:
        def get_connection(self: Any, *args: Any, **options: Any) -> Any:
            pool = pool_of(self)
            if pool is None:
                return original(self, *args, **options)
            if isinstance(self, waits):
                limit = self.timeout
                return take(ledger, pool, limit, lambda: original(self, *args, **options))
            taken = original(self, *args, **options)
            ledger.grant(pool, taken)
            return taken

        return get_connection

    def release(original: Any) -> Any:
        def release(self: Any, taken: Any) -> Any:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool, taken)
            finally:
                given_back = original(self, taken)
            return given_back

        return release

    patcher.replace(connection.ConnectionPool, "__init__", init)
    for kind in (connection.ConnectionPool, waits):
        patcher.replace(kind, "get_connection", get)
        patcher.replace(kind, "release", release)
