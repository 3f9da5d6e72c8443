"""SQLAlchemy: connections of its pools, given back as its own pool events tell.

Only a `QueuePool` with a limit makes anybody wait. Who asks is seen in `Pool.connect`; that a connection
comes back is the event ``checkin`` (or ``detach``), whoever closes it, the garbage collector included.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from headway.watch.patches import Patcher
from headway.watch.patches.carried import entered
from headway.watch.patches.checkout import made
from headway.watch.patches.loops import stops_loop
from headway.watch.places import keep_quiet

MODULE = "sqlalchemy"
_NO_LIMIT = 1 << 40


def install(patcher: Patcher) -> None:
    import sqlalchemy
    from sqlalchemy import event
    from sqlalchemy.pool import Pool
    from sqlalchemy.pool.base import _ConnectionRecord

    keep_quiet(sqlalchemy)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made(ledger, self, "SQLAlchemy pool", None)

        return __init__

    def connect(original: Any) -> Any:
        def connect(self: Any) -> Any:
            pool = self._headway_pool
            if pool is None:
                return original(self)
            if pool.size is None and (size := _size(self)) is not None:
                pool.resized(size)
            if pool.crowded():
                owner = ledger.ask(pool, True)
                if not self._is_asyncio:
                    stops_loop(ledger, "a wait for a connection", sys._getframe(1))
                wait = ledger.wait(pool.cls.label, pool, self._timeout, owner=owner)
                try:
                    with entered(ledger, wait):
                        fairy = original(self)
                    record = fairy._connection_record
                    ledger.grant(pool, record, owner)
                finally:
                    pool.taking.pop()
            else:
                try:
                    fairy = original(self)
                    record = fairy._connection_record
                    ledger.enter(pool, record)
                finally:
                    pool.taking.pop()
            if record._headway_pool is None:
                record._headway_pool = pool
            return fairy

        return connect

    def back(dbapi_connection: Any, record: Any) -> None:
        pool = record._headway_pool
        if pool is not None:
            ledger.release(pool, record)

    patcher.mark(Pool, _ConnectionRecord)
    patcher.replace(Pool, "__init__", init)
    patcher.replace(Pool, "connect", connect)
    for name in ("checkin", "detach"):
        event.listen(Pool, name, back)
        patcher.on_undo(partial(event.remove, Pool, name, back))


def _size(pool: Any) -> int | None:
    """How many connections a pool gives out at most; None if nobody ever waits for one."""
    slots = getattr(pool, "slots", None)  # headway's own
    if slots is not None:
        return int(slots.capacity) if slots.capacity < _NO_LIMIT else None
    inner, overflow = getattr(pool, "_pool", None), getattr(pool, "_max_overflow", -1)
    size = getattr(inner, "maxsize", 0)
    return size + overflow if size > 0 and overflow > -1 else None
