"""multiprocessing's pools: what is waited for; in a `ThreadPool` also who has the threads.

A result comes by the hand of one thread of the pool, which runs the callbacks too: a callback that waits for
a result of its own pool waits for itself. What runs in another process is watched there, as a program
of its own. `imap` is not watched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing import pool as pools
from typing import Any, final

from headway.watch.classes import Owner, Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.carried import entered
from headway.watch.patches.executors import Item
from headway.watch.patches.loops import stops_loop
from headway.watch.places import far, near

MODULE = "multiprocessing.pool"
_WORK = "_headway_work"


@final
class _Each:
    """What a map in threads calls: each call is an item of work; all are one to whoever waits for the map."""

    def __init__(self, ledger: Ledger, pool: Pool, fn: Callable[..., Any], parent: Owner) -> None:
        self._what = (ledger, pool, fn, parent)
        self._whole = Item(*self._what)
        self.owner = self._whole.owner

    def __call__(self, *args: Any) -> Any:
        item = Item(*self._what)
        try:
            return item(*args)
        finally:
            for pool, units in item.owner.wants.items():
                self.owner.wants[pool] = max(units, self.owner.wants.get(pool, 0))

    def blockers(self) -> list[Owner]:
        return self._whole.blockers()


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            label = "thread pool" if isinstance(self, pools.ThreadPool) else "process pool"
            setattr(self, POOL, ledger.pool("workers", label, self._processes, of=self))

        return __init__

    def submit(kind: Any) -> Any:
        def make(original: Any) -> Any:
            def apply(self: Any, func: Any, *args: Any, **options: Any) -> Any:
                pool, work = pool_of(self), None
                if pool is not None and isinstance(self, pools.ThreadPool):
                    work = kind(ledger, pool, func, ledger.current())
                    work.owner.place = near(sys._getframe(1))
                result = original(self, func if work is None else work, *args, **options)
                if pool is not None:
                    setattr(result, _WORK, (pool, work, self._result_handler))
                return result

            return apply

        return make

    def wait(original: Any) -> Any:
        def wait(self: Any, timeout: float | None = None) -> None:
            told = getattr(self, _WORK, None)
            if told is None or timeout == 0:
                original(self, timeout)
            else:
                _wait(ledger, original, self, timeout, *told)

        return wait

    patcher.replace(pools.Pool, "__init__", init)
    patcher.replace(pools.Pool, "apply_async", submit(Item))
    patcher.replace(pools.Pool, "_map_async", submit(_Each))
    patcher.replace(pools.ApplyResult, "wait", wait)


def _wait(
    ledger: Ledger,
    original: Any,
    result: Any,
    timeout: float | None,
    pool: Pool,
    work: Any,
    thread: Any,
) -> None:
    frame, timed = sys._getframe(2), timeout is not None
    owner = ledger.current() if work is None else ledger.ask(pool, timed)
    handler = ledger.owners.of_thread
    try:
        if not result.ready():
            stops_loop(ledger, "AsyncResult.get()", frame)
            if work is None:
                ledger.note_wait("AsyncResult.get()", timed, frame)
            ends = _by(lambda: handler(thread), work)
            with entered(ledger, ledger.wait("a result", None, timeout, ends, owner)):
                original(result, timeout)
    finally:
        if work is not None:
            ledger.joined(work.owner, far(frame), timed)


def _by(handler: Callable[[], Owner | None], work: Any) -> Callable[[], list[Owner]]:
    """Who could bring a result: whoever works on it, or is in the way; and it comes by the hand of the handler."""

    def ends() -> list[Owner]:
        owner = handler()
        if owner is not None and owner.wait is not None:  # nothing comes until it goes on
            return [owner]
        found: list[Owner] = [] if work is None else work.blockers()
        return found or ([] if owner is None else [owner])

    return ends
