"""What a copy does to its devices: moves one to another, hashes one, compares two.

It decides neither order nor ownership (`headway.core.block.copier` does) and makes neither the
frames nor the destination's name; `headway.edge.passing` makes the pass with its threads. A request
to a device is a whole multiple of its grain: a frame has room for the rest.

Source: own measurements: read and write in one thread beside a hashing one reaches the hash's rate.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable

from headway.core.block.copier import Piece, Sizing, mover_count
from headway.core.block.device import Device
from headway.edge.passing import Frames, Moved, Pass, Progress
from headway.errors import BlockError


def transfer(
    source: Device,
    target: Device,
    frames: Frames,
    *,
    sizing: Sizing,
    hashing: bool,
    progress: Progress | None = None,
) -> Moved:
    """Move all of `source` to `target`. Raises: BlockError with the offset where a device failed.

    Waits: for frames and devices. An exception that reaches the calling thread stops the movers
    after their piece, and is raised when all frames are home.
    """

    grain = _grain(target)
    direct = _direct(source) or _direct(target)

    def write(frame: memoryview, piece: Piece) -> None:
        length = piece.length
        whole = -(-length // grain) * grain
        if whole > length:  # the source's end
            frame[length:whole] = bytes(whole - length)
        with frame[:whole] as view:
            target.pwrite(view, piece.offset)

    return Pass(
        (source, target),
        source.size,
        frames,
        fill=_reader(source),
        drain=write,
        keep_holes=target.starts_zeroed,
        request_size=sizing.request_size,
        frame_size=sizing.frame_size,
        movers=mover_count(
            hashing=hashing,
            direct=direct,
            in_flight=sizing.in_flight,
        ),
        hashing=hashing,
        helping=not direct,
        progress=progress,
    ).run()


def digest_of(
    device: Device,
    size: int,
    frames: Frames,
    *,
    sizing: Sizing,
    progress: Progress | None = None,
) -> Moved:
    """Read the first `size` bytes of `device` and hash them."""
    return Pass(
        (device,),
        size,
        frames,
        fill=_reader(device),
        drain=None,
        keep_holes=True,
        request_size=sizing.request_size,
        frame_size=sizing.frame_size,
        movers=mover_count(hashing=True, direct=_direct(device), in_flight=sizing.in_flight),
        hashing=True,
        helping=not _direct(device),
        progress=progress,
    ).run()


def compare(
    source: Device,
    target: Device,
    frames: Frames,
    *,
    sizing: Sizing,
    progress: Progress | None = None,
) -> Moved:
    """Read both and compare. Raises: BlockError with the offset of the first piece that differs.

    A frame's two halves take the two sides: waiting for a second frame with one in hand could hang.
    """
    half = sizing.request_size // 2
    theirs = _reader(target)

    def both(frame: memoryview, piece: Piece) -> None:
        length = piece.length
        with frame[half:] as rest:
            theirs(rest, piece)
        with frame[:length] as one, frame[half : half + length] as other:
            source.pread_into(one, piece.offset)
            if not _equal(one, other):
                raise BlockError(
                    errno.EIO,
                    f"{target.name} differs from {source.name} in the {length} bytes "
                    f"at offset {piece.offset}",
                    offset=piece.offset,
                )

    return Pass(
        (source, target),
        source.size,
        frames,
        fill=both,
        drain=None,
        keep_holes=False,
        request_size=half,
        frame_size=sizing.frame_size,
        movers=mover_count(hashing=False, direct=True, in_flight=sizing.in_flight),
        hashing=False,
        progress=progress,
    ).run()


def _reader(device: Device) -> Callable[[memoryview, Piece], None]:
    grain = _grain(device)

    def read(frame: memoryview, piece: Piece) -> None:
        with frame[: -(-piece.length // grain) * grain] as view:
            device.pread_into(view, piece.offset)

    return read


def _grain(device: Device) -> int:
    """Requests to `device` must be whole multiples of it; frames are, so there is room for a rest."""
    return int(getattr(device, "grain", 1))


def _direct(device: Device) -> bool:
    """Whether its requests wait for a disk: they go past the page cache. What a layer's grain is says
    nothing about that."""
    return bool(getattr(device, "direct", device.alignment > 1))


def _equal(one: memoryview, other: memoryview) -> bool:
    """Compare without a copy; memoryviews compare item by item, a hundred times slower."""
    length = len(one)
    buffer = ctypes.c_char * length
    compare_memory = ctypes.CDLL(None).memcmp
    size = ctypes.c_size_t(length)
    return int(compare_memory(buffer.from_buffer(one), buffer.from_buffer(other), size)) == 0
