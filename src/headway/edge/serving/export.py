"""A device as the connections of a server use it: what needs no wait at once, the rest for a worker.

It decides how a request becomes calls of the device; what of it is quick is `headway.edge.quick`'s.

`read_now` and `write_now` give True if it is done, or False if it is to be done by a worker (the view
may hold rubbish, some of the bytes may be written); they do not raise, and are the loop's. The others
may wait, are called by workers, and raise BlockError.

Source: fallocate(2).
"""

from __future__ import annotations

import errno
import os
from typing import Any, final

from headway.core.block.device import Device
from headway.core.nbd.handshake import Offer
from headway.core.nbd.transmission import flags_for
from headway.core.nbd.wire import STATE_HOLE, STATE_ZERO
from headway.edge.files import FileDevice
from headway.edge.quick import quick_of
from headway.errors import BlockError

_MOST_PREFERRED = 32 << 20  # what the protocol lets every client count on in one request
_EXTENTS = 128  # most of one block status reply
_ZEROS = memoryview(bytes(256 << 10))


class Export:
    """What is served under a name. Any number of connections share it."""

    def __init__(self, name: str, device: Device, *, read_only: bool = False) -> None:
        self.name = name
        self.device = device
        never_written = device.capacity == 0 or getattr(device, "read_only", False)
        self.read_only = read_only or never_written
        self.size = device.size
        self.grain = max(4096, device.alignment)  # where parts of a long write may end
        quick = quick_of(device)
        self.read_now, self.write_now = quick.read_now, quick.write_now
        self._zero: Any = getattr(device, "zero", None)
        self._discard: Any = getattr(device, "discard", None)

    @property
    def offer(self) -> Offer:
        """As a client sees it."""
        flags, device = flags_for(read_only=self.read_only), self.device
        best = max(4096, device.alignment)
        given_back = getattr(
            device, "discard_granularity", 1
        )  # the protocol has no other word for it
        if best < given_back <= _MOST_PREFERRED and not given_back & (given_back - 1):
            best = given_back
        return Offer(
            self.name,
            self.size,
            flags,
            description=device.kind.value,
            minimum=getattr(device, "grain", 1),
            preferred=best,
        )

    def read(self, view: memoryview, offset: int) -> None:
        self.device.pread_into(view, offset)

    def write(self, view: memoryview, offset: int) -> None:
        self.device.pwrite(view, offset)

    def flush(self) -> None:
        self.device.flush()

    def trim(self, offset: int, length: int) -> None:
        """Forget a range; what it reads as afterwards is anybody's guess, so doing nothing is right."""
        if self._discard is not None:
            self._discard(offset, length)

    def zero(self, offset: int, length: int, *, keep: bool) -> None:
        """Make a range read as zeros; `keep` leaves its room allocated."""
        if not keep and self._zero is not None and self._zero(offset, length):
            return
        while length > 0:
            part = min(length, len(_ZEROS))
            self.device.pwrite(_ZEROS[:part], offset)
            offset += part
            length -= part

    def prefetch(self, offset: int, length: int) -> None:
        """Advice: this range will be read."""

    def extents(self, offset: int, length: int, *, one: bool) -> list[tuple[int, int]]:
        """(length, flags) of what lies at `offset`, in order, at least one and at most `length`."""
        found: list[tuple[int, int]] = []
        end = offset + length
        while offset < end and len(found) < _EXTENTS:
            extent = self.device.extent(offset)
            until = min(max(extent.end, offset + 1), end)
            flags = STATE_HOLE | STATE_ZERO if extent.hole else 0
            if found and found[-1][1] == flags:
                found[-1] = (found[-1][0] + until - offset, flags)
            else:
                found.append((until - offset, flags))
            offset = until
            if one:
                break
        return found

    def __repr__(self) -> str:
        how = ", read-only" if self.read_only else ""
        return f"<Export {self.name!r} of {self.device.name}, {self.size} bytes{how}>"


@final
class FileExport(Export):
    """A buffered file or block device."""

    def __init__(self, name: str, device: FileDevice, *, read_only: bool = False) -> None:
        super().__init__(name, device, read_only=read_only)
        self._file = device
        if hasattr(os, "posix_fadvise"):  # it was opened to be read from end to end
            os.posix_fadvise(device.fd, 0, 0, os.POSIX_FADV_NORMAL)

    def zero(self, offset: int, length: int, *, keep: bool) -> None:
        if not (keep and self._file.zero(offset, length, keep=True)):
            super().zero(offset, length, keep=keep)

    def prefetch(self, offset: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):
            try:
                os.posix_fadvise(self._file.fd, offset, length, os.POSIX_FADV_WILLNEED)
            except OSError as error:
                raise BlockError(
                    error.errno or errno.EIO,
                    f"reading ahead in {self.device.name} failed: {error.strerror}",
                    offset=offset,
                ) from error


def make_export(name: str, device: Device, *, read_only: bool = False) -> Export:
    """The export that suits the device."""
    if isinstance(device, FileDevice) and device.direct_fd is None:
        return FileExport(name, device, read_only=read_only)
    return Export(name, device, read_only=read_only)
