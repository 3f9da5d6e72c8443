"""Every exception headway raises, with its fields, and whose fault it is.

The class says whose fault: `UsageError` the caller's, `NoMemory` the pressure's, `BlockError` the
device's, `Deadlock` the schedule's. The message says what was asked, what was found, and what to do.
Each is also the builtin a reader would expect, so that a plain ``except TimeoutError`` works.
"""

from __future__ import annotations

__all__ = [
    "BlockError",
    "Deadlock",
    "DeviceTimeout",
    "GfpConflict",
    "HeadwayError",
    "MissingExtra",
    "NoMemory",
    "PoolBusy",
    "PoolClosed",
    "PoolTimeout",
    "UsageError",
]


class HeadwayError(Exception):
    """Whatever headway raises on its own account."""


class UsageError(HeadwayError, ValueError):
    """The caller asked for what cannot be: an impossible size, a wrong element, a bad argument."""


class GfpConflict(UsageError):
    """A mask whose bits contradict each other; ``bits`` names them, ``why`` says the reason."""

    def __init__(self, bits: tuple[str, ...], why: str) -> None:
        super().__init__(f"gfp mask has {' and '.join(bits)}: {why}")
        self.bits = bits
        self.why = why


class NoMemory(HeadwayError, MemoryError):
    """An allocation that may fail did: the memory was not there and could not be waited for."""


class PoolTimeout(HeadwayError, TimeoutError):
    """A wait for a pool's element ended at its time limit; ``holders`` says who has them, if traced."""

    def __init__(
        self, message: str, *, pool: str, waited_s: float, holders: tuple[object, ...] = ()
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.waited_s = waited_s
        self.holders = holders


class PoolClosed(HeadwayError):
    """The pool was closed before or during the request."""


class PoolBusy(HeadwayError):
    """A pool was closed while elements were out; ``count`` of them, ``holders`` names who if traced."""

    def __init__(
        self, message: str, *, pool: str, count: int, holders: tuple[object, ...] = ()
    ) -> None:
        super().__init__(message)
        self.pool = pool
        self.count = count
        self.holders = holders


class BlockError(HeadwayError, OSError):
    """A device failed; ``offset`` (bytes) is where, when that is known."""

    def __init__(self, errno: int, message: str, *, offset: int | None = None) -> None:
        super().__init__(errno, message)
        self.offset = offset


class DeviceTimeout(BlockError, TimeoutError):
    """A device did not answer a request within `timeout_s`; it may still write to the request's memory."""

    def __init__(
        self, errno: int, message: str, *, offset: int | None = None, timeout_s: float
    ) -> None:
        super().__init__(errno, message, offset=offset)
        self.timeout_s = timeout_s


class Deadlock(HeadwayError):
    """Every task that is left waits for what only another waiting task can give."""

    def __init__(self, message: str, *, stuck: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.stuck = stuck


class MissingExtra(HeadwayError, ImportError):
    """A feature needs an optional dependency; ``extra`` names what to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency: install headway[{extra}] (in a checkout: .[{extra}])"
        )
        self.extra = extra
