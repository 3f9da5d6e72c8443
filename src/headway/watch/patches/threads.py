"""threading: locks and semaphores that programs make, and the waits for events, conditions and threads.

Locks that Python or a library with a patch of its own makes for itself stay as they are: only code that is
not quiet gets a watched one. An acquire that cannot wait makes no edge. A lock that is there is taken
in one try, so that only who really waits is entered as waiting.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.loops import stops_loop
from headway.watch.places import QUIET, far, near

MODULE = "threading"
_RAW = threading.Lock
_RAW_RE = threading.RLock


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger
    plain, again = _lock_classes(ledger)
    patcher.replace(threading, "Lock", lambda original: plain)
    patcher.replace(threading, "RLock", lambda original: again)
    _semaphores(patcher)
    _waits(patcher, again)


def _lock_classes(ledger: Ledger) -> tuple[type, type]:
    """The classes that stand where `threading.Lock` and `threading.RLock` did."""
    ask, enter, grant, release = ledger.ask, ledger.enter, ledger.grant, ledger.release

    class Chosen(type):
        RAW: Any

        """Calling the class gives a raw lock to quiet code, a watched one to the program."""

        def __call__(cls, *args: Any, made: Any = None) -> Any:
            frame = sys._getframe(1)
            if made is None and QUIET[frame.f_code.co_filename]:
                return cls.RAW()
            return super().__call__(made or near(frame))

        def __instancecheck__(cls, thing: object) -> bool:
            return type.__instancecheck__(cls, thing) or isinstance(thing, type(cls.RAW()))

    class Lock(metaclass=Chosen):
        __slots__ = ("__weakref__", "_give", "_pool", "_raw", "_try")
        RAW: Any = staticmethod(_RAW)

        def __init__(self, made: Any) -> None:
            self._raw: Any = _RAW()
            self._try = self._raw.acquire
            self._give = self._raw.release
            self._pool = ledger.pool("lock", "lock", 1, made=made)

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            pool = self._pool
            if self._try(False):
                if blocking:
                    enter(pool)
                else:
                    grant(pool)
                return True
            if not blocking:
                return False
            owner = ask(pool, timeout != -1)
            wait = ledger.wait("lock", pool, None if timeout == -1 else timeout)
            try:
                if not self._try(True, timeout):
                    return False
            finally:
                ledger.waited(wait)
            grant(pool, None, owner)
            return True

        def release(self) -> None:
            if self._raw.locked():
                release(self._pool)  # before anybody else can have it
            self._raw.release()

        def locked(self) -> bool:
            return bool(self._raw.locked())

        def __enter__(self) -> bool:
            if self._try(False):
                enter(self._pool)
                return True
            return self.acquire()

        def __exit__(self, *exc: object) -> None:
            release(self._pool)
            self._give()

        def _at_fork_reinit(self) -> None:
            self._raw._at_fork_reinit()
            self._pool.out.clear()

        def __repr__(self) -> str:
            return f"<watched {self._raw!r}>"

    class RLock(metaclass=Chosen):
        __slots__ = ("__weakref__", "_count", "_pool", "_raw")
        RAW: Any = staticmethod(_RAW_RE)

        def __init__(self, made: Any) -> None:
            self._raw: Any = _RAW_RE()
            self._count = 0  # changed by the one who holds it
            self._pool = ledger.pool("lock", "reentrant lock", 1, reentrant=True, made=made)

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            raw, pool = self._raw, self._pool
            if self._count and raw._is_owned():
                self._count += 1
                return bool(raw.acquire())
            if raw.acquire(False):
                self._count = 1
                if blocking:
                    enter(pool)
                else:
                    grant(pool)
                return True
            if not blocking:
                return False
            owner = ask(pool, timeout != -1)
            wait = ledger.wait("lock", pool, None if timeout == -1 else timeout)
            try:
                if not raw.acquire(True, timeout):
                    return False
            finally:
                ledger.waited(wait)
            self._count = 1
            grant(pool, None, owner)
            return True

        def release(self) -> None:
            if self._raw._is_owned():  # else the raw lock refuses
                self._count -= 1
                if not self._count:
                    release(self._pool)
            self._raw.release()

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *exc: object) -> None:
            self.release()

        def _is_owned(self) -> bool:
            return bool(self._raw._is_owned())

        def _release_save(self) -> Any:
            count, self._count = self._count, 0
            release(self._pool)
            return count, self._raw._release_save()

        def _acquire_restore(self, state: Any) -> None:
            count, saved = state
            self._raw._acquire_restore(saved)
            self._count = count
            grant(self._pool)

        def _at_fork_reinit(self) -> None:
            self._raw._at_fork_reinit()
            self._count = 0
            self._pool.out.clear()

        def __repr__(self) -> str:
            return f"<watched {self._raw!r}>"

    return Lock, RLock


def _semaphores(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, value: int = 1) -> None:
            original(self, value)
            frame = sys._getframe(1)
            if not QUIET[frame.f_code.co_filename]:
                setattr(
                    self,
                    POOL,
                    ledger.pool("semaphore", "semaphore", value or None, made=near(frame)),
                )

        return __init__

    def acquire(original: Any) -> Any:
        def acquire(self: Any, blocking: bool = True, timeout: float | None = None) -> bool:
            pool = pool_of(self)
            if pool is None:
                return bool(original(self, blocking, timeout))
            if original(self, False, None if blocking else timeout):
                if blocking:
                    ledger.enter(pool)
                else:
                    ledger.grant(pool)
                return True
            if not blocking:
                return False
            owner = ledger.ask(pool, timeout is not None)
            _stop_loop(ledger, "semaphore.acquire()")
            wait = ledger.wait("semaphore", pool, timeout)
            try:
                if not original(self, True, timeout):
                    return False
            finally:
                ledger.waited(wait)
            ledger.grant(pool, None, owner)
            return True

        return acquire

    def release(original: Any) -> Any:
        def release(self: Any, n: int = 1) -> None:
            pool = pool_of(self)
            if pool is not None:
                for _ in range(n):
                    ledger.release(pool)
            original(self, n)

        return release

    patcher.replace(threading.Semaphore, "__init__", init)
    patcher.replace(threading.Semaphore, "acquire", acquire)
    patcher.replace(threading.Semaphore, "__enter__", lambda _: lambda self: self.acquire())
    for kind in (threading.Semaphore, threading.BoundedSemaphore):
        patcher.replace(kind, "release", release)


def _waits(patcher: Patcher, again: Any) -> None:
    ledger = patcher.ledger

    def condition(original: Any) -> Any:
        def __init__(self: Any, lock: Any = None) -> None:
            frame = sys._getframe(1)
            if lock is None and not QUIET[frame.f_code.co_filename]:
                lock = again(made=near(frame))
            original(self, lock)

        return __init__

    def waiter(what: str, over: Any) -> Any:
        def make(original: Any) -> Any:
            def wait(self: Any, timeout: float | None = None) -> Any:
                frame = sys._getframe(1)
                if QUIET[frame.f_code.co_filename]:
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
                    try:
                        return original(self, timeout)
                    finally:
                        ledger.waited(wait)
                finally:
                    child = None if thread is None else ledger.owners.of_thread(thread)
                    if child is not None:
                        ledger.joined(child, far(frame), timeout is not None)

            return wait

        return make

    patcher.replace(threading.Condition, "__init__", condition)
    patcher.replace(threading.Condition, "wait", waiter("Condition.wait()", lambda _: False))
    patcher.replace(threading.Event, "wait", waiter("Event.wait()", threading.Event.is_set))
    patcher.replace(threading.Thread, "join", waiter("Thread.join()", lambda t: not t.is_alive()))


def _stop_loop(ledger: Ledger, what: str) -> None:
    stops_loop(ledger, what, sys._getframe(2))
