"""urllib3, and requests on it: connections of a pool made with ``block=True``; any other makes nobody wait."""

from __future__ import annotations

from typing import Any

from headway.errors import Deadlock
from headway.watch.patches import Patcher, pool_of
from headway.watch.patches.checkout import made, take
from headway.watch.places import keep_quiet

MODULE = "urllib3"


def install(patcher: Patcher) -> None:
    import urllib3
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import EmptyPoolError

    keep_quiet(urllib3)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            if self.block:
                made(ledger, self, "urllib3 pool", self.pool.maxsize)

        return __init__

    def get(original: Any) -> Any:
        def _get_conn(self: Any, timeout: float | None = None) -> Any:
            pool = pool_of(self)
            if pool is None:
                return original(self, timeout)
            try:
                return take(ledger, pool, timeout, lambda: original(self, timeout))
            except (
                Deadlock
            ) as error:  # of any other exception urllib3 thinks that it had a connection
                raise EmptyPoolError(self, str(error)) from error

        return _get_conn

    def put(original: Any) -> Any:
        def _put_conn(self: Any, connection: Any) -> None:
            pool = pool_of(self)
            try:
                if pool is not None:  # None comes back for a connection that failed
                    ledger.release(pool, connection)
            finally:
                original(self, connection)

        return _put_conn

    patcher.replace(HTTPConnectionPool, "__init__", init)
    patcher.replace(HTTPConnectionPool, "_get_conn", get)
    patcher.replace(HTTPConnectionPool, "_put_conn", put)
