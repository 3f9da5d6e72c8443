"""Chance and clocks in code under check: chance is refused by line, clocks stand still and may decide nothing.

It does not find raw locks (`raw`, which says whose code is asked about). A schedule must lead to the same state each
time, and a verdict holds for every run only if nothing but the schedule decides. So what draws from the
interpreter's or the system's source of chance is refused; a ``random.Random(seed)`` repeats itself, and is noted, for
other seeds are not tried. Clocks are read by much code that only shows or adds up what it read: it gets a
`Reading`, a number like any other until something is decided by it, and that line is refused. A time limit of
a request may be reckoned from one: that it runs out is tried anyhow. For a package that is installed clocks go
on, or what waits there by one would wait for ever; it may decide by them, and that is noted: who checks cannot mend it.

Source: taint tracking, of one kind of value; loom's rule that what varies must be the checker's.
"""

from __future__ import annotations

import datetime
import functools
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias, final

from headway.checker.raw import Change, refuse, strict_caller, swapped
from headway.runtimes.scopes import ambient

#: What a run reports, once, and a report of a check takes for granted.
STANDS_STILL = (
    "clocks stand still: code that reads one shows it or waits by it, and decides nothing by it"
)
INSTALLED = "what installed packages decide by a clock, they decide the same way in every run"
SEEDED = "chance comes from random.Random(seed) alone, and other seeds would do the same"

_NO_CHANCE = "under check draw from a random.Random(seed) made in the function, or start a task for each way it can go"
_NO_DATE = "under check dates are not to be had: take time.time(), and decide nothing by it"
_NO_CLOCK = "decides by a clock: under check give the wait a timeout_s, or start a task for each way it can go"


def _drawn(value: Any) -> bool:
    """Whether a name of `random` is a method of the generator that all of a process shares."""
    return isinstance(getattr(value, "__self__", None), random.Random)


_CHANCE: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (random, tuple(name for name, value in vars(random).items() if _drawn(value))),
    (secrets, ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe")),
    (os, ("urandom", "getrandom")),
    (uuid, ("uuid1", "uuid4", "uuid6", "uuid7")),
)
_ARRAYS = (
    "bytes", "choice", "normal", "permutation", "rand", "randint", "randn", "random", "random_sample",
    "shuffle", "uniform",
)  # fmt: skip
#: Clocks, and what they say: seconds or nanoseconds; the same in every run and process.
_CLOCKS = {
    "time": 1_000_000_000.0, "monotonic": 1000.0, "perf_counter": 1000.0, "process_time": 1.0, "thread_time": 1.0,
    "time_ns": 10**18, "monotonic_ns": 10**12, "perf_counter_ns": 10**12, "process_time_ns": 10**9,
    "thread_time_ns": 10**9,
}  # fmt: skip
# Those that tell a date, and with how many arguments they still ask a clock for it.
_CALENDAR = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}

_ARITHMETIC = (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__",
    "__floordiv__", "__rfloordiv__", "__mod__", "__rmod__", "__neg__", "__pos__", "__abs__", "__round__",
)  # fmt: skip
_DECIDING = (
    "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__bool__", "__hash__", "__int__", "__trunc__",
    "__floor__", "__ceil__", "__float__", "__index__", "__and__", "__or__", "__xor__", "__rand__", "__ror__",
    "__rxor__", "__lshift__", "__rshift__", "__divmod__", "__rdivmod__", "__pow__", "__rpow__", "is_integer",
    "as_integer_ratio", "hex", "bit_length", "to_bytes",
)  # fmt: skip


@final
class _Seconds(float):
    """What a clock said, or was reckoned from it."""


@final
class _Nanoseconds(int):
    """The same in whole nanoseconds."""


Reading: TypeAlias = _Seconds | _Nanoseconds


def _reckons(base: type, name: str) -> Callable[..., Any]:
    real = getattr(base, name)

    def reckon(*args: Any) -> Any:
        try:
            return _read(real(*args))
        except ZeroDivisionError:  # a rate since a clock that stood still
            return _read(float("inf"))

    return reckon


def _read(value: Any) -> Any:
    if type(value) is float:
        return _Seconds(value)
    return _Nanoseconds(value) if type(value) is int else value


def _decides(base: type, name: str) -> Callable[..., Any]:
    real = getattr(base, name)

    def decide(*args: Any) -> Any:
        if (frame := strict_caller(1)) is not None and not _may(frame):
            refuse(frame, _NO_CLOCK)
        return real(*args)

    return decide


def _is_installed(frame: FrameType) -> bool:
    return "-packages" in frame.f_code.co_filename


def _may(frame: FrameType) -> bool:
    """Whether who asks may decide by a clock; then it is noted."""
    if installed := _is_installed(frame):
        _note(INSTALLED)
    return installed


for _kind, _base in ((_Seconds, float), (_Nanoseconds, int)):
    for _name in _ARITHMETIC:
        setattr(_kind, _name, _reckons(_base, _name))
    for _name in _DECIDING:
        if hasattr(_base, _name):
            setattr(_kind, _name, _decides(_base, _name))


def _note(said: str) -> None:
    if (runtime := ambient()) is not None:
        runtime.report(said, once=True)


@functools.cache
def _chance(real: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def asks(*args: Any, **kwargs: Any) -> Any:
        if (frame := strict_caller(1)) is not None:
            refuse(frame, f"uses {what}: {_NO_CHANCE}")
        return real(*args, **kwargs)

    return asks


@functools.cache
def _seeds(real: Callable[..., Any], what: str) -> Callable[..., Any]:
    """A generator may be made with a seed that is no clock's, and not the system's."""

    def asks(*args: Any, **kwargs: Any) -> Any:
        if (frame := strict_caller(1)) is not None:
            own = args[1:] if args and isinstance(args[0], random.Random) else args
            seed = next(iter((*own, *kwargs.values())), None)
            system = bool(args) and isinstance(args[0], random.SystemRandom)
            if system or seed is None or isinstance(seed, _Seconds | _Nanoseconds):
                name = "random.SystemRandom" if system else f"{what} without a seed"
                refuse(frame, f"uses {name}: {_NO_CHANCE}")
            _note(SEEDED)
        return real(*args, **kwargs)

    return asks


@functools.cache
def _clock(real: Callable[..., Any], name: str) -> Callable[[], Any]:
    began = real()

    def reads() -> Any:
        frame = strict_caller(1)
        if frame is None:
            return real()
        if _is_installed(frame):
            return _read(_CLOCKS[name] + (real() - began))
        _note(STANDS_STILL)
        return _read(_CLOCKS[name])

    return reads


@functools.cache
def _calendar(real: Callable[..., Any], what: str, enough: int) -> Callable[..., Any]:
    def reads(*args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) <= enough or any(
            isinstance(arg, _Seconds | _Nanoseconds) for arg in args
        ):
            frame = strict_caller(1)
            if frame is not None and not _may(frame):
                refuse(frame, f"uses {what}: {_NO_DATE}")
        return real(*args, **kwargs)

    return reads


@functools.cache
def _dated(real: Any, names: tuple[str, ...]) -> Any:
    """A date class that is like `real` in all but the ways to ask what time it is."""

    class Meta(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, other: Any) -> bool:
            return issubclass(other, real)

    def made(cls: Any, *args: Any, **kwargs: Any) -> Any:
        return real(*args, **kwargs) if cls.__base__ is real else real.__new__(cls, *args, **kwargs)

    parts: dict[str, Any] = {"__new__": made, "__module__": real.__module__}
    for name in names:
        enough = 0 if name == "fromtimestamp" else sys.maxsize
        parts[name] = staticmethod(
            _calendar(getattr(real, name), f"{real.__name__}.{name}", enough)
        )
    return Meta(real.__name__, (real,), parts)


@contextmanager
def pinned(module: Any = None) -> Iterator[None]:
    """Refuse chance, and let clocks stand still, while the block runs; `module` holds the code under check."""
    changes: list[Change] = []
    for owner, names in _CHANCE:
        for name in names:
            if (real := getattr(owner, name, None)) is not None:
                changes.append((owner, name, _chance(real, f"{owner.__name__}.{name}")))
    for name in ("__init__", "seed"):
        changes.append((random.Random, name, _seeds(getattr(random.Random, name), "random.Random")))
    if (arrays := sys.modules.get("numpy.random")) is not None:
        changes += [(arrays, n, _chance(getattr(arrays, n), f"numpy.random.{n}")) for n in _ARRAYS]
        changes.append(
            (arrays, "default_rng", _seeds(arrays.default_rng, "numpy.random.default_rng"))
        )
    for name in _CLOCKS:
        changes.append((time, name, _clock(getattr(time, name), name)))
    for name, enough in _CALENDAR.items():
        changes.append((time, name, _calendar(getattr(time, name), f"time.{name}", enough)))
    changes.append((datetime, "date", _dated(datetime.date, ("today",))))
    asked = ("now", "utcnow", "today", "fromtimestamp")
    changes.append((datetime, "datetime", _dated(datetime.datetime, asked)))
    with swapped(changes, module):
        yield
