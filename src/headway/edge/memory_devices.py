"""Devices without a disk: `memory:SIZE`, `zero:SIZE`, `null:SIZE` and `null:`.

They decide nothing; they exist to measure, to test, and to feed or drain a copy. `memory:` starts
as zeros and keeps what is written. `zero:` reads as zeros that count as data, so that a copy moves
them; it takes no writes. `null:` takes any write and forgets it; with a size it has an end, and reads
as a hole.

Source: brd, /dev/zero and null_blk, in small.
"""

from __future__ import annotations

import errno
import mmap

from headway.core.block.device import Device, Extent, Kind, check_range
from headway.core.units import parse_size
from headway.core.zeros import clear
from headway.errors import BlockError, NoMemory, UsageError

SCHEMES = ("memory", "zero", "null")


class MemoryDevice:
    """`size` bytes of private memory, outside any zone's limit: it stands for a disk.

    Raises: NoMemory if so much cannot be mapped.
    """

    kind = Kind.MEMORY
    alignment = 1
    starts_zeroed = True

    def __init__(self, size: int) -> None:
        self.name = f"memory:{size}"
        self.size = size
        self.capacity: int | None = size
        try:
            self._map = mmap.mmap(-1, max(size, 1))
        except (OSError, OverflowError) as error:
            what = getattr(error, "strerror", None) or error
            raise NoMemory(f"{self.name} cannot be mapped: {what}; use a smaller size") from error
        self._view = memoryview(self._map)

    def extent(self, offset: int) -> Extent:
        return Extent(self.size, False)

    def pread_into(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        view[:] = self._view[offset : offset + len(view)]

    def pwrite(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        self._view[offset : offset + len(view)] = view

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._view.release()
        self._map.close()

    def __repr__(self) -> str:
        return f"<MemoryDevice {self.name}>"


class ZeroDevice:
    """`size` zero bytes, to be read."""

    kind = Kind.ZERO
    alignment = 1
    starts_zeroed = False

    def __init__(self, size: int) -> None:
        self.name = f"zero:{size}"
        self.size = size
        self.capacity: int | None = 0

    def extent(self, offset: int) -> Extent:
        return Extent(self.size, False)

    def pread_into(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        clear(view)

    def pwrite(self, view: memoryview, offset: int) -> None:
        raise BlockError(errno.EROFS, f"{self.name} cannot be written", offset=offset)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return f"<ZeroDevice {self.name}>"


class NullDevice:
    """Takes everything, keeps nothing. With `size` bytes it reads as zeros; without, it has no end."""

    kind = Kind.NULL
    alignment = 1
    starts_zeroed = True

    def __init__(self, size: int | None = None) -> None:
        self.name = "null:" if size is None else f"null:{size}"
        self.size = 0 if size is None else size
        self.capacity: int | None = size

    def extent(self, offset: int) -> Extent:
        return Extent(max(offset, self.size), True)

    def pread_into(self, view: memoryview, offset: int) -> None:
        if len(view) and self.capacity is None:
            raise BlockError(errno.EIO, "null: holds nothing that could be read", offset=offset)
        check_range(self, offset, len(view), self.size)
        clear(view)

    def pwrite(self, view: memoryview, offset: int) -> None:
        if self.capacity is not None:
            check_range(self, offset, len(view), self.size)

    def zero(self, offset: int, length: int) -> bool:
        """It reads as zeros whatever is done. Always True."""
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return f"<NullDevice {self.name}>"


def open_made(scheme: str, rest: str) -> Device:
    """The device of a `SCHEME:REST` that names no path.

    Raises: UsageError if the rest is not what the scheme takes.
    """
    if scheme == "null":
        return NullDevice(parse_size(rest) if rest else None)
    if not rest:
        raise UsageError(f"{scheme}: has no size: write for example {scheme}:64MiB")
    size = parse_size(rest)
    return MemoryDevice(size) if scheme == "memory" else ZeroDevice(size)
