"""What a device is to everything above it: a size, an alignment, and bytes at offsets.

It opens nothing and does no I/O: devices live in `headway.edge`. Offsets and lengths are bytes
everywhere. `pread_into` and `pwrite` move the whole view or raise: short transfers are the device's
business, so that no caller loops. A device may be used by several threads at once, at different
offsets.

A device tells its holes (`extent`), because a range that reads as zeros need not be moved to a
destination that starts as zeros (`starts_zeroed`).

Source: the block layer's queue limits; lseek(2) SEEK_DATA and SEEK_HOLE for extents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, final

from headway.errors import UsageError

_ZEROS: Final = memoryview(bytes(64 << 10))


class Kind(Enum):
    """What is behind a device."""

    FILE = "file"
    BLOCK = "block device"
    MEMORY = "memory"
    ZERO = "zero"
    NULL = "null"
    NETWORK = "network"


@final
@dataclass(frozen=True, slots=True)
class Extent:
    """A run of one sort, from the offset asked for to `end` (bytes, exclusive)."""

    end: int
    hole: bool


class Device(Protocol):
    """Bytes at offsets. Errors are `BlockError` with the offset where it happened."""

    @property
    def name(self) -> str:
        """What errors and reports call it."""

    @property
    def kind(self) -> Kind: ...

    @property
    def size(self) -> int:
        """Bytes that can be read; fixed when the device is opened."""

    @property
    def capacity(self) -> int | None:
        """Most bytes it can hold; None if writing makes it grow."""

    @property
    def alignment(self) -> int:
        """What offsets, lengths and addresses should be multiples of; 1 if it is all the same."""

    @property
    def starts_zeroed(self) -> bool:
        """True if whatever was not written since the device was opened reads as zeros."""

    def extent(self, offset: int) -> Extent:
        """Data or hole at `offset`, and how far; the end is at most `size`."""

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill the whole of `view` from `offset`. Raises: BlockError."""

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write the whole of `view` at `offset`. Raises: BlockError."""

    def flush(self) -> None:
        """Return when all that was written is on stable storage. Raises: BlockError."""

    def close(self) -> None: ...


def inside(offset: int, length: int, grain: int) -> tuple[int, int]:
    """What of a range is whole grains: its offset and length, which is 0 if there is none."""
    start = offset + -offset % grain
    return start, max(0, (offset + length) // grain * grain - start)


def cleared(
    clear: Callable[[int, int], bool],
    write: Callable[[memoryview, int], object],
    offset: int,
    length: int,
    grain: int,
) -> bool:
    """Make a range zeros by `clear(offset, length)`, which may take whole grains alone (a block device): the edges
    are written then. False: nothing was done, since it takes none of it."""
    if clear(offset, length):
        return True
    start, whole = inside(offset, length, grain)
    if whole in (0, length) or not clear(start, whole):
        return False
    for at, end in ((offset, start), (start + whole, offset + length)):
        while at < end:
            part = min(end - at, len(_ZEROS))
            write(_ZEROS[:part], at)
            at += part
    return True


def check_range(device: Device, offset: int, length: int, limit: int | None) -> None:
    """Raises: UsageError if a request does not lie inside the device: who makes requests asks for the size."""
    if offset < 0 or length < 0 or (limit is not None and offset + length > limit):
        has = "" if limit is None else f", which has {limit}"
        raise UsageError(
            f"{length} bytes at offset {offset} were asked of {device.name}{has}: keep inside of it"
        )
