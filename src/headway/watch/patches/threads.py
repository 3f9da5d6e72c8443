"""threading: locks and semaphores that programs make, and the waits for events, conditions and threads.

Locks that Python or a library with a patch of its own makes for itself stay as they are: only code that is
not quiet gets a watched one (`locks`). An acquire that cannot wait makes no edge.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher, locks
from headway.watch.patches.carried import entered, in_line, on_condition
from headway.watch.patches.loops import stops_loop
from headway.watch.places import QUIET, far, maker, near

MODULE = "threading"


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger
    plain, again = locks.for_session(ledger)
    patcher.replace(threading, "Lock", lambda original: plain)
    patcher.replace(threading, "RLock", lambda original: again)
    _semaphores(patcher)
    _waits(patcher, again)


def _semaphores(patcher: Patcher) -> None:
    ledger, give = patcher.ledger, threading.Semaphore.release

    def init(original: Any) -> Any:
        def __init__(self: Any, value: int = 1) -> None:
            original(self, value)
            frame = maker(sys._getframe(1), threading.BoundedSemaphore)
            if not QUIET[frame.f_code.co_filename]:
                setattr(
                    self,
                    POOL,
                    ledger.pool("semaphore", "semaphore", value or None, made=near(frame), of=self),
                )

        return __init__

    def acquire(original: Any) -> Any:
        def acquire(self: Any, blocking: bool = True, timeout: float | None = None) -> bool:
            pool = self._headway_pool
            if pool is None:
                return bool(original(self, blocking, timeout))
            if original(self, False, None if blocking else timeout):
                try:
                    if blocking:
                        ledger.enter(pool)
                    else:
                        ledger.grant(pool)
                except BaseException:  # a signal's, say: nobody would give it back
                    give(self)
                    raise
                return True
            if not blocking:
                return False
            _stop_loop(ledger, "semaphore.acquire()")
            limit = -1 if timeout is None else timeout
            return in_line(
                ledger, pool, lambda *_: original(self, True, timeout), limit, sliced=False
            )

        return acquire

    def release(original: Any) -> Any:
        def release(self: Any, n: int = 1) -> None:
            pool = self._headway_pool
            try:
                if pool is not None:
                    for _ in range(n):
                        ledger.release(pool)
            finally:
                original(self, n)

        return release

    patcher.mark(threading.Semaphore)
    patcher.replace(threading.Semaphore, "__init__", init)
    patcher.replace(threading.Semaphore, "acquire", acquire)
    patcher.replace(threading.Semaphore, "__enter__", lambda _: lambda self: self.acquire())
    for kind in (threading.Semaphore, threading.BoundedSemaphore):
        patcher.replace(kind, "release", release)


def _waits(patcher: Patcher, again: Any) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, lock: Any = None) -> None:
            frame = sys._getframe(1)
            if lock is None and not QUIET[frame.f_code.co_filename]:
                lock = again(made=near(frame))
            original(self, lock)

        return __init__

    def waiter(what: str, over: Any) -> Any:
        condition = what == "Condition.wait()"

        def make(original: Any) -> Any:
            def wait(self: Any, timeout: float | None = None) -> Any:
                frame = sys._getframe(1)
                if QUIET[frame.f_code.co_filename]:
                    inside = ledger.current().wait if ledger.breaks and condition else None
                    if inside is not None:  # of a semaphore, a queue, a future, a connection pool
                        return on_condition(self, timeout, inside)
                    return original(self, timeout)
                thread = self if isinstance(self, threading.Thread) else None
                try:
                    if over(self):
                        return original(self, timeout)
                    lock = getattr(getattr(self, "_lock", None), "_pool", None)
                    ledger.note_wait(what, timeout is not None, frame, lock)
                    _stop_loop(ledger, what)
                    find = None if thread is None else lambda: [ledger.owners.of_thread(thread)]
                    wait = ledger.wait(what, None, timeout, find)
                    with entered(ledger, wait):
                        if ledger.breaks and condition:
                            return on_condition(self, timeout, wait)
                        return original(self, timeout)
                finally:
                    child = None if thread is None else ledger.owners.of_thread(thread)
                    if child is not None:
                        ledger.joined(child, far(frame), timeout is not None)

            return wait

        return make

    def start(original: Any) -> Any:
        def start(self: Any) -> None:
            ledger.owners.start_thread(self)
            original(self)

        return start

    patcher.replace(threading.Thread, "start", start)
    patcher.replace(threading.Condition, "__init__", init)
    patcher.replace(threading.Condition, "wait", waiter("Condition.wait()", lambda _: False))
    patcher.replace(threading.Event, "wait", waiter("Event.wait()", threading.Event.is_set))
    patcher.replace(threading.Thread, "join", waiter("Thread.join()", lambda t: not t.is_alive()))


def _stop_loop(ledger: Ledger, what: str) -> None:
    stops_loop(ledger, what, sys._getframe(2))
