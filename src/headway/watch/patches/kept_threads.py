"""headway's `ThreadPoolExecutor` with a reserve: ordinary work has all threads but the reserve.

Work that gives back (``executor.entitled``) has a thread kept for it, so who waits for its result needs no
ordinary thread. Without a reserve it is work like any other.
"""

from __future__ import annotations

import sys
from typing import Any

from headway.watch.patches import POOL, Patcher
from headway.watch.patches.executors import Item, promise
from headway.watch.places import near

MODULE = "headway.integrations.executor"
_ORDINARY = "_headway_ordinary"


def install(patcher: Patcher) -> None:
    from headway.integrations.executor import ThreadPoolExecutor

    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            size = self.slots.capacity - self.slots.reserve
            setattr(self, _ORDINARY, ledger.pool("workers", "executor", size, of=self))
            setattr(self, POOL, None)  # below us, all of its work is one function

        return __init__

    def enter(original: Any) -> Any:
        def enter(self: Any, entitled: bool, work: Any) -> Any:
            pool = getattr(self, _ORDINARY, None)
            if pool is None:
                return original(self, entitled, work)
            if entitled and self.slots.reserve:
                kept = ledger.pool("workers", "kept threads", None, of=self)
                item, needed = Item(ledger, kept, work, ledger.current()), None
            else:
                item, needed = Item(ledger, pool, work, ledger.current()), pool
            item.owner.place = near(sys._getframe(1))
            future = original(self, entitled, item)
            promise(future, item, needed)
            return future

        return enter

    patcher.replace(ThreadPoolExecutor, "__init__", init)
    patcher.replace(ThreadPoolExecutor, "enter", enter)
