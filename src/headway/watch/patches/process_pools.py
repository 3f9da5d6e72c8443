"""multiprocessing's pools: what is waited for; in a `ThreadPool` also who has the threads.

A result comes by the hand of one thread of the pool, which runs the callbacks too: a callback that waits for
a result of its own pool waits for itself. What runs in another process is watched there, as a program
of its own. Each item of an `imap` is a result that is waited for.
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
            for pool, units in list(item.owner.wants.items()):
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

    def wait(what: str, ready: Callable[[Any], bool]) -> Any:
        def make(original: Any) -> Any:
            def wait(self: Any, timeout: float | None = None) -> Any:
                told = getattr(self, _WORK, None)
                if told is None or timeout == 0:
                    return original(self, timeout)
                return _wait(
                    ledger, lambda: original(self, timeout), what, ready(self), timeout, *told
                )

            return wait

        return make

    patcher.replace(pools.Pool, "__init__", init)
    patcher.replace(pools.Pool, "apply_async", submit(Item))
    patcher.replace(pools.Pool, "_map_async", submit(_Each))
    patcher.replace(pools.ApplyResult, "wait", wait("AsyncResult.get()", lambda one: one.ready()))
    for name in ("imap", "imap_unordered"):
        patcher.replace(pools.Pool, name, _imap(ledger))
    for name in ("next", "__next__"):
        patcher.replace(pools.IMapIterator, name, wait("the next of imap()", _has_next))


def _imap(ledger: Ledger) -> Any:
    def make(original: Any) -> Any:
        def imap(self: Any, func: Any, iterable: Any, chunksize: int = 1) -> Any:
            pool, work = pool_of(self), None
            if pool is not None and isinstance(self, pools.ThreadPool):
                work = _Each(ledger, pool, func, ledger.current())
                work.owner.place = near(sys._getframe(1))
            results = original(self, func if work is None else work, iterable, chunksize)
            if pool is not None and (items := _items(results)) is not None:
                setattr(items, _WORK, (pool, work, self._result_handler))
            return results

        return imap

    return make


def _items(results: Any) -> Any:
    """What `imap` waits with: it gives that itself, or a generator that takes chunks from it apart."""
    if isinstance(results, pools.IMapIterator):
        return results
    return results.gi_frame.f_locals.get(".0")


def _has_next(items: Any) -> bool:
    return bool(items._items) or items._index == items._length


def _wait(
    ledger: Ledger,
    original: Callable[[], Any],
    what: str,
    ready: bool,
    timeout: float | None,
    pool: Pool,
    work: Any,
    thread: Any,
) -> Any:
    frame, timed = sys._getframe(2), timeout is not None
    owner = ledger.current() if work is None else ledger.ask(pool, timed)
    handler = ledger.owners.of_thread
    try:
        if ready:
            return original()
        stops_loop(ledger, what, frame)
        if work is None:
            ledger.note_wait(what, timed, frame)
        ends = _by(lambda: handler(thread), work)
        with entered(ledger, ledger.wait("a result", None, timeout, ends, owner)):
            return original()
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
