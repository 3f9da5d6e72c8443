"""SQLAlchemy: connections of its pools. Who asks is seen in `Pool.connect`; what comes back, in what all pools
give back by, whoever closes it, the garbage collector included; or it is detached, which a pool event tells.

Only a pool with a limit makes anybody wait; another is left alone. A checkout is entered before it is made, so
that two who come for the last one do not both think that it is theirs. The pool event ``checkin`` is not
asked: it costs half a microsecond, and comes before the program's own listeners, which still have the connection.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Final

from headway.watch.classes import Holding
from headway.watch.ledger import Ledger
from headway.watch.patches import Patcher
from headway.watch.patches.carried import entered
from headway.watch.patches.checkout import made
from headway.watch.patches.loops import stops_loop
from headway.watch.places import keep_quiet

MODULE = "sqlalchemy"
_NO_LIMIT = 1 << 40
_OUT: Final = "_headway_out"  # the holding, on the record that is out


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
            if pool is None or (pool.size is None and not _sized(self, pool)):
                return original(self)
            holding = ledger.enter(pool)  # before it is there: nobody may think that there is one
            if len(pool.out) + len(pool.taking) > pool.size:
                return _in_line(ledger, self, pool, holding, original)
            try:
                fairy = original(self)
            except BaseException:
                ledger.drop(holding)
                raise
            fairy._connection_record._headway_out = holding
            return fairy

        return connect

    def comes_back(original: Any) -> Any:
        def _return_conn(self: Any, record: Any) -> None:
            holding = record._headway_out
            try:
                if holding is not None:  # before anybody else can have it
                    record._headway_out = None
                    ledger.give(holding)
            finally:
                original(self, record)

        return _return_conn

    def detached(dbapi_connection: Any, record: Any) -> None:
        holding = record._headway_out
        if holding is not None:
            record._headway_out = None
            ledger.give(holding)

    patcher.mark(Pool)
    patcher.mark(_ConnectionRecord, name=_OUT)
    patcher.replace(Pool, "__init__", init)
    patcher.replace(Pool, "connect", connect)
    patcher.replace(Pool, "_return_conn", comes_back)
    event.listen(Pool, "detach", detached)
    patcher.on_undo(partial(event.remove, Pool, "detach", detached))


def _in_line(ledger: Ledger, self: Any, pool: Any, early: Holding, original: Any) -> Any:
    """All are out: wait for one, which `early` stands for already."""
    owner = early.owner
    pool.taking.append(None)
    ledger.withdraw(early)
    try:
        if not self._is_asyncio:
            stops_loop(ledger, "a wait for a connection", sys._getframe(2))
        wait = ledger.wait(pool.cls.label, pool, self._timeout, owner=owner)
        with entered(ledger, wait):
            fairy = original(self)
        fairy._connection_record._headway_out = ledger.renew(early)
    except BaseException:
        ledger.drop(early)
        raise
    finally:
        pool.taking.pop()
    return fairy


def _sized(self: Any, pool: Any) -> bool:
    """Learn how many a pool gives out; False if nobody ever waits for one: such a pool is not watched."""
    size = _size(self)
    if size is None:
        self._headway_pool = None
        return False
    pool.timed = self._timeout is not None
    pool.resized(size)
    return True


def _size(pool: Any) -> int | None:
    """How many connections a pool gives out at most; None if nobody ever waits for one."""
    slots = getattr(pool, "slots", None)  # headway's own
    if slots is not None:
        return int(slots.capacity) if slots.capacity < _NO_LIMIT else None
    inner, overflow = getattr(pool, "_pool", None), getattr(pool, "_max_overflow", -1)
    size = getattr(inner, "maxsize", 0)
    return size + overflow if size > 0 and overflow > -1 else None
