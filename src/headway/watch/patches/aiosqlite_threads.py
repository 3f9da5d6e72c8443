"""aiosqlite: a connection is a thread that does one thing at a time; who awaits a statement needs it.

What runs there (a function of SQL, a trace) acts for the task that awaits it.
"""

from __future__ import annotations

import sys
from typing import Any

from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.carried import entered
from headway.watch.patches.executors import Item
from headway.watch.places import keep_quiet, near

MODULE = "aiosqlite.core"


def install(patcher: Patcher) -> None:
    import aiosqlite
    from aiosqlite.core import Connection

    keep_quiet(aiosqlite)
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            setattr(self, POOL, ledger.pool("workers", "aiosqlite connection", 1, of=self))

        return __init__

    def execute(original: Any) -> Any:
        async def _execute(self: Any, fn: Any, *args: Any, **options: Any) -> Any:
            pool = pool_of(self)
            if pool is None:
                return await original(self, fn, *args, **options)
            owner = ledger.ask(pool)
            item = Item(ledger, pool, fn, owner)
            item.awaited = True
            item.owner.origin = owner.origin  # it is the same request
            item.owner.place = near(sys._getframe(1))
            wait = ledger.wait("a statement", None, None, item.blockers, owner)
            with entered(ledger, wait):
                return await original(self, item, *args, **options)

        return _execute

    patcher.replace(Connection, "__init__", init)
    patcher.replace(Connection, "_execute", execute)
