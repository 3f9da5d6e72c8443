"""The locks that stand where `threading.Lock` and `threading.RLock` did, for the program; quiet code gets raw ones.

A lock that is there is taken in one try, so that only who really waits is entered as waiting. Each session has
subclasses of its own, with its ledger.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from headway.watch.ledger import Ledger
from headway.watch.patches.carried import in_line
from headway.watch.places import QUIET, near

_RAW = threading.Lock
_RAW_RE = threading.RLock


class Chosen(type):
    """Calling the class gives a raw lock to quiet code, a watched one to the program."""

    RAW: Any

    def __call__(cls, *args: Any, made: Any = None) -> Any:
        frame = sys._getframe(1)
        if made is None and QUIET[frame.f_code.co_filename]:
            return cls.RAW()
        return super().__call__(made or near(frame))

    def __instancecheck__(cls, thing: object) -> bool:
        return type.__instancecheck__(cls, thing) or isinstance(thing, type(cls.RAW()))


class Lock(metaclass=Chosen):
    """A lock that tells the ledger."""

    __slots__ = ("__weakref__", "_give", "_pool", "_raw", "_try")
    RAW: Any = staticmethod(_RAW)
    ledger: Ledger

    def __init__(self, made: Any) -> None:
        self._raw: Any = _RAW()
        self._try = self._raw.acquire
        self._give = self._raw.release
        self._pool = self.ledger.pool("lock", "lock", 1, made=made)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        pool = self._pool
        if self._try(False):
            try:
                if blocking:
                    self.ledger.enter(pool)
                else:
                    self.ledger.grant(pool)
            except BaseException:  # a signal's, say: nobody would give it back
                self.release()
                raise
            return True
        return blocking and in_line(self.ledger, pool, self._try, timeout)

    def release(self) -> None:
        try:
            if self._raw.locked():
                self.ledger.release(self._pool)  # before anybody else can have it
        finally:
            self._raw.release()

    def locked(self) -> bool:
        return bool(self._raw.locked())

    def __enter__(self) -> bool:
        if self._try(False):
            try:
                self.ledger.enter(self._pool)
            except BaseException:
                self.release()
                raise
            return True
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        try:
            self.ledger.release(self._pool)
        finally:
            self._give()

    def _at_fork_reinit(self) -> None:
        self._raw._at_fork_reinit()
        self._pool.out.clear()

    def __repr__(self) -> str:
        return f"<watched {self._raw!r}>"


class RLock(metaclass=Chosen):
    """A reentrant lock that tells the ledger of its first acquire and its last release."""

    __slots__ = ("__weakref__", "_count", "_pool", "_raw")
    RAW: Any = staticmethod(_RAW_RE)
    ledger: Ledger

    def __init__(self, made: Any) -> None:
        self._raw: Any = _RAW_RE()
        self._count = 0  # changed by the one who holds it
        self._pool = self.ledger.pool("lock", "reentrant lock", 1, reentrant=True, made=made)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        raw, pool = self._raw, self._pool
        if self._count and raw._is_owned():
            self._count += 1
            return bool(raw.acquire())
        if raw.acquire(False):
            self._count = 1
            try:
                if blocking:
                    self.ledger.enter(pool)
                else:
                    self.ledger.grant(pool)
            except BaseException:
                self.release()
                raise
            return True
        if not blocking or not in_line(self.ledger, pool, raw.acquire, timeout):
            return False
        self._count = 1
        return True

    def release(self) -> None:
        try:
            if self._raw._is_owned():  # else the raw lock refuses
                self._count -= 1
                if not self._count:
                    self.ledger.release(self._pool)
        finally:
            self._raw.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._raw._is_owned())

    def _release_save(self) -> Any:
        count, self._count = self._count, 0
        try:
            self.ledger.release(self._pool)
        finally:
            saved = self._raw._release_save()
        return count, saved

    def _acquire_restore(self, state: Any) -> None:
        count, saved = state
        self._raw._acquire_restore(saved)
        self._count = count
        self.ledger.grant(self._pool)

    def _at_fork_reinit(self) -> None:
        self._raw._at_fork_reinit()
        self._count = 0
        self._pool.out.clear()

    def __repr__(self) -> str:
        return f"<watched {self._raw!r}>"


def for_session(ledger: Ledger) -> tuple[type, Any]:
    """The classes of one session: for `threading.Lock` and for `threading.RLock`."""
    room: dict[str, Any] = {"__slots__": (), "ledger": ledger}
    return Chosen("Lock", (Lock,), dict(room)), Chosen("RLock", (RLock,), dict(room))
