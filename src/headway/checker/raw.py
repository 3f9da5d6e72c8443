"""Threads, locks, sleeps and asyncio's own in code under check: found as they are used, and the line named.

The checker sees only what goes through pools and ``hw.spawn``; a raw lock would wait where nobody
looks. While the code runs, the constructors are swapped for ones that ask who calls: code of the
standard library and of headway gets the real thing, code under check gets `RawPrimitive`. What a
module holds from an earlier import (``from threading import Lock``) is swapped in it as well.

Source: loom's rule that primitives must be the checker's; departs: it refuses, and does not replace.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from headway.errors import UsageError

T = TypeVar("T")

_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARY = (
    str(Path(os.__file__).parent),  # the standard library, and site-packages below it
    _PACKAGE,
    "<frozen",
)
# Whether code under check runs here: the constructors are swapped for all, and refuse where this is set.
_strict: ContextVar[bool] = ContextVar("headway_strict", default=False)
_INSTEAD = "under check use hw.spawn for tasks and a pool for what they share"

# Functions and C types are swapped by name; classes keep their name and lose their constructor.
_NAMES: tuple[tuple[Any, str], ...] = (
    (threading, "Lock"),
    (threading, "RLock"),
    (time, "sleep"),
    (queue, "SimpleQueue"),
    # No loop runs under check: what would ask for one could only fail, with a line of the library's.
    *((asyncio, name) for name in (
        "as_completed", "create_task", "ensure_future", "gather", "run", "shield", "sleep",
        "timeout", "timeout_at", "to_thread", "wait", "wait_for",
    )),
)  # fmt: skip
_CLASSES: tuple[type, ...] = (
    threading.Thread,
    threading.Timer,
    threading.Semaphore,
    threading.BoundedSemaphore,
    threading.Condition,
    threading.Event,
    threading.Barrier,
    queue.Queue,
    concurrent.futures.ThreadPoolExecutor,
    concurrent.futures.ProcessPoolExecutor,
    multiprocessing.Process,
    asyncio.Lock,
    asyncio.Semaphore,
    asyncio.BoundedSemaphore,
    asyncio.Condition,
    asyncio.Event,
    asyncio.Barrier,
    asyncio.Queue,
    asyncio.TaskGroup,
    asyncio.Runner,
)


class RawPrimitive(UsageError):
    """A raw thread or lock in code under check."""


_KINDS = (*_CLASSES, type(threading.Lock()), type(threading.RLock()), queue.SimpleQueue)


def vet(fn: Any, name: str, value: Any) -> None:
    """Refuse a lock or thread that was made earlier, and that a function takes from outside."""
    if isinstance(value, _KINDS):
        code, kind = fn.__code__, type(value).__name__.removeprefix("_")
        raise RawPrimitive(
            f"line {code.co_firstlineno} of {Path(code.co_filename).name}: {fn.__name__} uses "
            f"{name}, a raw {kind}: {_INSTEAD}"
        )


def _refuse(what: str) -> None:
    """Raise unless the library calls, seen from the swapped constructor's caller."""
    if not _strict.get():
        return
    frame = sys._getframe(2)
    path = frame.f_code.co_filename
    if path.startswith(_LIBRARY):
        return
    raise RawPrimitive(f"line {frame.f_lineno} of {Path(path).name} uses {what}: {_INSTEAD}")


def _asking(real: Callable[..., Any], what: str) -> Callable[..., Any]:
    def asks(*args: Any, **kwargs: Any) -> Any:
        _refuse(what)
        return real(*args, **kwargs)

    return asks


@contextmanager
def refused(module: Any = None) -> Iterator[None]:
    """Refuse raw primitives while the block runs; `module` is the one the code under check is in."""
    undo: list[tuple[Any, str, Any]] = []

    def swap(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    asking: list[tuple[Any, Any]] = []
    token = _strict.set(True)
    try:
        for owner, name in _NAMES:
            real = getattr(owner, name)
            asking.append((real, _asking(real, f"{owner.__name__}.{name}")))
            swap(owner, name, asking[-1][1])
        for kind in _CLASSES:
            package = "asyncio." if kind.__module__.startswith("asyncio.") else ""
            what = f"{package or kind.__module__.removesuffix('.thread') + '.'}{kind.__name__}"
            swap(kind, "__init__", _asking(kind.__init__, what))  # type: ignore[misc]  # undone below
        for name, value in list(vars(module).items()) if module is not None else ():
            for real, instead in asking:
                if value is real:
                    swap(module, name, instead)
        yield
    finally:
        _strict.reset(token)
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def at_ease(fn: Callable[..., T], *args: Any) -> T:
    """Call what is no code under check, and may use threads and locks: other threads always may."""
    token = _strict.set(False)
    try:
        return fn(*args)
    finally:
        _strict.reset(token)
