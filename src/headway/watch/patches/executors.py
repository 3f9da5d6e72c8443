"""concurrent.futures: an executor is a pool of workers; a result that is waited for needs one of them.

An item of work is an owner of its own, and holds a worker while it runs. What it waited for, whoever asks
for its result waited for: with `Future.result` that is known when the result is there, with asyncio's
`run_in_executor` from the start.
"""

from __future__ import annotations

import asyncio.base_events
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Any, final

from headway.watch.classes import Owner, Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.carried import entered
from headway.watch.patches.loops import stops_loop
from headway.watch.places import far, near

MODULE = "concurrent.futures.thread"
_ITEM = "_headway_item"


@final
class Item:
    """What is handed to the executor in place of the function."""

    __slots__ = ("__weakref__", "_fn", "_ledger", "_pool", "awaited", "owner", "parent")

    def __init__(self, ledger: Ledger, pool: Pool, fn: Callable[..., Any], parent: Owner) -> None:
        self._ledger = ledger
        self._pool = pool
        self._fn = fn
        self.parent = parent
        self.awaited = False
        name = getattr(fn, "__name__", type(fn).__name__)
        self.owner = Owner(0, f"work {name}", lambda: True, parent)
        ledger.owners.start_item(self.owner)
        if any(holding.pool is pool for holding in parent.held):
            self.owner.origin = parent.origin  # nested work is the same request

    def __call__(self, *args: Any, **options: Any) -> Any:
        owner, ledger = self.owner, self._ledger
        owner.inherits = self.awaited
        if not self.awaited:
            owner.parent = None
        with ledger.owners.item(owner):
            ledger.grant(self._pool, self, owner)
            try:
                return self._fn(*args, **options)
            finally:
                ledger.release(self._pool, self)

    def blockers(self) -> list[Owner]:
        """Who could bring the result: the item if it runs, else those who have the workers."""
        if any(holding.owner is self.owner for holding in self._pool.out):
            return [self.owner]
        return [holding.owner for holding in self._pool.out]


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            setattr(self, POOL, ledger.pool("workers", "executor", self._max_workers, of=self))

        return __init__

    def submit(original: Any) -> Any:
        def submit(self: Any, fn: Any, /, *args: Any, **options: Any) -> Any:
            pool = pool_of(self)
            if pool is None:
                return original(self, fn, *args, **options)
            item = Item(ledger, pool, fn, ledger.current())
            item.owner.place = near(sys._getframe(1))
            item.awaited = _from_loop(sys._getframe(1))
            if item.awaited:
                ledger.ask(pool)
            future = original(self, item, *args, **options)
            promise(future, item, pool)
            return future

        return submit

    def waits(original: Any) -> Any:
        def wait(self: Any, timeout: float | None = None) -> Any:
            if not hasattr(self, _ITEM):
                return original(self, timeout)
            return _result(ledger, original, self, self._headway_workers, timeout)

        return wait

    patcher.replace(ThreadPoolExecutor, "__init__", init)
    patcher.replace(ThreadPoolExecutor, "submit", submit)
    patcher.replace(Future, "result", waits)
    patcher.replace(Future, "exception", waits)


def promise(future: Any, item: Item, pool: Pool | None) -> None:
    """A future is the result of an item, which needs one of `pool`; None: who waits for it needs nothing more."""
    setattr(future, _ITEM, weakref.ref(item))
    future._headway_owner = item.owner
    future._headway_workers = pool


def _from_loop(frame: Any) -> bool:
    """Whether asyncio's `run_in_executor` submits: then the running task awaits it."""
    return frame.f_code is asyncio.base_events.BaseEventLoop.run_in_executor.__code__


def _result(
    ledger: Ledger, original: Any, future: Any, pool: Pool | None, timeout: float | None
) -> Any:
    timed = timeout is not None and timeout > 0
    if timeout == 0:
        return original(future, timeout)
    frame = sys._getframe(2)
    if future.done() and not ledger.current().held:
        return original(future, timeout)
    owner = ledger.current() if pool is None else ledger.ask(pool, timed)
    try:
        if future.done():
            return original(future, timeout)
        stops_loop(ledger, "Future.result()", frame)
        item = getattr(future, _ITEM)()
        ends = None if item is None else item.blockers
        with entered(ledger, ledger.wait("a result", None, timeout, ends)):
            return original(future, timeout)
    finally:
        ledger.joined(future._headway_owner, owner.place or far(frame), timed)
