"""queue: a queue from which elements are got and put back is a pool; any other is a road.

Which it is shows when somebody puts back what was got: the same object, to the same queue. Until then
what was got counts for nothing, and only the last few are remembered, for they live on meanwhile. Where
nobody has put back any of the first 64, it is a road, and nothing of it is remembered any more.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from typing import Any

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher
from headway.watch.patches.carried import entered
from headway.watch.patches.loops import stops_loop
from headway.watch.places import QUIET, near

MODULE = "queue"


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, maxsize: int = 0) -> None:
            original(self, maxsize)
            frame = sys._getframe(1)
            if not QUIET[frame.f_code.co_filename]:
                setattr(self, POOL, ledger.pool("queue", "queue", 1, made=near(frame), of=self))

        return __init__

    def get(original: Any) -> Any:
        def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
            pool = self._headway_pool
            if pool is None:
                return original(self, block, timeout)
            if not block:
                item = original(self, False)
                if may_be_pool(ledger, pool):
                    ledger.grant(pool, item)
                return item
            if self.queue:
                item = original(self, True, timeout)
                if pool.cls.reused or may_be_pool(ledger, pool):
                    ledger.enter(pool, item)
                return item
            owner, frame = ledger.ask(pool, timeout is not None), sys._getframe(1)
            if not pool.cls.reused:
                ledger.note_wait("queue.get()", timeout is not None, frame)
            stops_loop(ledger, "queue.get()", frame)
            wait = ledger.wait("queue", pool, timeout, owner=owner)
            with entered(ledger, wait):
                item = original(self, True, timeout)
            if may_be_pool(ledger, pool):
                ledger.grant(pool, item, owner)
            return item

        return get

    def put(original: Any) -> Any:
        def put(self: Any, item: Any, block: bool = True, timeout: float | None = None) -> None:
            pool = self._headway_pool
            if pool is not None:
                pooled(ledger, pool, item, self, _size)
            original(self, item, block, timeout)

        return put

    patcher.mark(queue.Queue)
    patcher.replace(queue.Queue, "__init__", init)
    patcher.replace(queue.Queue, "get", get)
    patcher.replace(queue.Queue, "put", put)


def may_be_pool(ledger: Ledger, pool: Pool) -> bool:
    """Whether to remember what was got just now."""
    cls = pool.cls
    if not cls.reused:
        if cls.chances <= 0:
            return False
        cls.chances -= 1
        if not cls.chances:
            for other in list(ledger.pools):
                if other.cls is cls:
                    for holding in list(other.out):
                        ledger.drop(holding)
            return False
    return True


def pooled(ledger: Ledger, pool: Pool, item: Any, line: Any, size: Callable[[Any], int]) -> None:
    """An item is put: it comes back, if it was got; and the pool has as many as there ever were."""
    if not pool.cls.chances:
        return
    out = pool.out
    for holding in out:
        if holding[4] is item:
            pool.cls.reused = True
            ledger.release(pool, item)
            return
    most = size(line) + 1 + (len(out) if pool.cls.reused else 0)
    if pool.size is None or most > pool.size:
        pool.size = most
        if pool.cls.size is None or pool.cls.size < most:
            pool.cls.size = most


def _size(line: Any) -> int:
    return int(line._qsize())  # qsize() takes the lock
