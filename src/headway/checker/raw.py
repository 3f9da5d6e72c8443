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
import functools
import multiprocessing
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from headway.errors import UsageError
from headway.runtimes.scopes import ambient

T = TypeVar("T")
Change: TypeAlias = tuple[Any, str, Any]  # an owner, a name of its, and what it is to be

_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARY = (
    str(
        Path(os.__file__).parent
    ),  # the standard library; packages too, unless they are in an environment
    _PACKAGE,
    "<frozen",
)
# Whether code under check runs here: the constructors are swapped for all, and refuse where this is set.
_strict: ContextVar[bool] = ContextVar("headway_strict", default=False)
REFUSED = "refused: "  # what a report of a run begins with that is a refusal
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
    if isinstance(value, random.Random) and (runtime := ambient()) is not None:
        code = (
            fn.__code__
        )  # told, not raised: what it comes to may be a finding that repeats itself
        runtime.report(
            f"{REFUSED}line {code.co_firstlineno} of {Path(code.co_filename).name}: {fn.__name__} uses {name}, a "
            "Random that goes on where the run before left it: under check make it in the function, with a seed",
            once=True,
        )


def strict_caller(depth: int) -> FrameType | None:
    """The frame `depth` callers up, if code under check runs in it; None if the library's does, or none is."""
    if not _strict.get():
        return None
    frame = sys._getframe(depth + 1)
    return None if frame.f_code.co_filename.startswith(_LIBRARY) else frame


def refuse(frame: FrameType, what: str) -> NoReturn:
    """Say what a line under check does that it may not. Kept with the run too, for the code may catch it.

    Raises: RawPrimitive.
    """
    said = f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name} {what}"
    if (runtime := ambient()) is not None:
        runtime.report(REFUSED + said, once=True)
    raise RawPrimitive(said)


@functools.cache  # a check of 1 ms would make a hundred of them
def _asking(real: Callable[..., Any], what: str) -> Callable[..., Any]:
    def asks(*args: Any, **kwargs: Any) -> Any:
        if (frame := strict_caller(1)) is not None:
            refuse(frame, f"uses {what}: {_INSTEAD}")
        return real(*args, **kwargs)

    return asks


@contextmanager
def swapped(changes: Sequence[Change], module: Any = None) -> Iterator[None]:
    """What owners have by these names is another thing while the block runs; so it is where a module imported it.

    `module` is the one the code under check is in, should it not be among those loaded.
    """
    undo: list[Change] = []
    instead: dict[int, Any] = {}

    def swap(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for owner, name, value in changes:
            instead[id(getattr(owner, name))] = value
            swap(owner, name, value)
        for user, name, real in [*_found(module, instead), *_elsewhere(instead)]:
            if id(vars(user).get(name)) == real:  # not swapped yet, nor set anew
                swap(user, name, instead[real])
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


_KEPT: Final = 8
_elsewhere_found: dict[tuple[int, ...], list[tuple[Any, str, int]]] = {}


def _elsewhere(instead: dict[int, Any]) -> list[tuple[Any, str, int]]:
    """Where other modules have imported them whose code may be under check: those that are neither the library's
    nor installed. Looked for again when others have been loaded: it takes as long as a short check."""
    key = (len(sys.modules), *instead)
    if key not in _elsewhere_found:
        users = [
            user
            for user in list(sys.modules.values())
            if isinstance(file := getattr(user, "__file__", None), str)
            and "-packages" not in file
            and not file.startswith(_LIBRARY)
        ]
        if len(_elsewhere_found) >= _KEPT:
            _elsewhere_found.clear()
        _elsewhere_found[key] = [found for user in users for found in _found(user, instead)]
    return _elsewhere_found[key]


def _found(module: Any, instead: dict[int, Any]) -> list[tuple[Any, str, int]]:
    """The module, the name it has, and the identity, of each that is in the module."""
    names = {} if module is None else vars(module)
    return [(module, name, id(value)) for name, value in names.items() if id(value) in instead]


@contextmanager
def refused(module: Any = None) -> Iterator[None]:
    """Refuse raw primitives while the block runs; `module` is the one the code under check is in."""
    changes: list[Change] = [
        (owner, name, _asking(getattr(owner, name), f"{owner.__name__}.{name}"))
        for owner, name in _NAMES
    ]
    for kind in _CLASSES:
        package = "asyncio." if kind.__module__.startswith("asyncio.") else ""
        what = f"{package or kind.__module__.removesuffix('.thread') + '.'}{kind.__name__}"
        changes.append((kind, "__init__", _asking(kind.__init__, what)))  # type: ignore[misc]
    token = _strict.set(True)
    try:
        with swapped(changes, module):
            yield
    finally:
        _strict.reset(token)


def at_ease(fn: Callable[..., T], *args: Any) -> T:
    """Call what is no code under check, and may use threads and locks: other threads always may."""
    token = _strict.set(False)
    try:
        return fn(*args)
    finally:
        _strict.reset(token)
