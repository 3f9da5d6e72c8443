"""A device as the connections of a server use it: what needs no wait at once, the rest for a worker.

It decides one thing: whether a call is quick enough for the thread that serves everybody. Reads of a
buffered file are tried with RWF_NOWAIT, which refuses what is not in the page cache. A file system
that keeps its data in memory is always quick. A write into the page cache is quick until one takes
longer than `_SLOW_S` (the kernel throttles who makes pages dirty faster than the disk writes); then
writes go to a worker for `_PATIENCE_S`. What is not known to be quick never is.

`read_now` and `write_now` give True if it is done, or False if it is to be done by a worker (the view
may hold rubbish, some of the bytes may be written); they do not raise. The others may wait, are
called by workers, and raise BlockError.

Source: preadv2(2) on RWF_NOWAIT, fallocate(2).
"""

from __future__ import annotations

import errno
import os
import time
from typing import final

from headway.core.block.device import Device, Kind
from headway.core.nbd.handshake import Offer
from headway.core.nbd.transmission import flags_for
from headway.core.nbd.wire import STATE_HOLE, STATE_ZERO
from headway.edge import pagecache
from headway.edge.files import FileDevice
from headway.errors import BlockError

_SLOW_S = 0.005
_PATIENCE_S = 1.0
_EXTENTS = 128  # most of one block status reply
_ZEROS = memoryview(bytes(256 << 10))


class Export:
    """What is served under a name. Any number of connections share it."""

    def __init__(self, name: str, device: Device, *, read_only: bool = False) -> None:
        self.name = name
        self.device = device
        self.read_only = read_only or device.capacity == 0
        self.size = device.size

    @property
    def offer(self) -> Offer:
        """As a client sees it."""
        flags = flags_for(read_only=self.read_only)
        return Offer(
            self.name,
            self.size,
            flags,
            description=self.device.kind.value,
            preferred=max(4096, self.device.alignment),
        )

    def read_now(self, view: memoryview, offset: int) -> bool:
        return False

    def write_now(self, view: memoryview, offset: int) -> bool:
        return False

    def read(self, view: memoryview, offset: int) -> None:
        self.device.pread_into(view, offset)

    def write(self, view: memoryview, offset: int) -> None:
        self.device.pwrite(view, offset)

    def flush(self) -> None:
        self.device.flush()

    def trim(self, offset: int, length: int) -> None:
        """Forget a range; what it reads as afterwards is anybody's guess, so doing nothing is right."""

    def zero(self, offset: int, length: int, *, keep: bool) -> None:
        """Make a range read as zeros; `keep` leaves its room allocated."""
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
class MadeExport(Export):
    """A device in memory, or of zeros: nothing about it waits."""

    def read_now(self, view: memoryview, offset: int) -> bool:
        try:
            self.device.pread_into(view, offset)
        except BlockError:
            return False  # the worker will meet it again, and say so
        return True

    def write_now(self, view: memoryview, offset: int) -> bool:
        try:
            self.device.pwrite(view, offset)
        except BlockError:
            return False
        return True


@final
class FileExport(Export):
    """A buffered file or block device."""

    def __init__(self, name: str, device: FileDevice, *, read_only: bool = False) -> None:
        super().__init__(name, device, read_only=read_only)
        self._file = device
        self._fd = device.fd
        self._in_memory = device.kind is Kind.FILE and pagecache.in_memory(device.fd)
        nowait: int | None = getattr(os, "RWF_NOWAIT", None)
        self._flags = 0 if self._in_memory else nowait
        self._slow_until_s = 0.0
        if hasattr(os, "posix_fadvise"):  # it was opened to be read from end to end
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_NORMAL)

    def read_now(self, view: memoryview, offset: int) -> bool:
        if self._flags is None:
            return False
        try:
            return os.preadv(self._fd, (view,), offset, self._flags) == len(view)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                self._flags = None  # this file system cannot say: every read may wait
            return False  # not in the page cache, or a failure that the worker will meet again

    def write_now(self, view: memoryview, offset: int) -> bool:
        if self._in_memory:
            try:
                return os.pwrite(self._fd, view, offset) == len(view)
            except OSError:
                return False
        began_s = time.monotonic()
        if began_s < self._slow_until_s:
            return False
        try:
            done = os.pwrite(self._fd, view, offset) == len(view)
        except OSError:
            return False
        ended_s = time.monotonic()
        if ended_s - began_s > _SLOW_S:
            self._slow_until_s = ended_s + _PATIENCE_S
        return done

    def trim(self, offset: int, length: int) -> None:
        pagecache.punch(self._fd, offset, length)

    def zero(self, offset: int, length: int, *, keep: bool) -> None:
        quick = pagecache.zero_range if keep else pagecache.punch
        if not quick(self._fd, offset, length):
            super().zero(offset, length, keep=keep)

    def prefetch(self, offset: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):
            try:
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)
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
    if device.kind in (Kind.MEMORY, Kind.ZERO, Kind.NULL):
        return MadeExport(name, device, read_only=read_only)
    return Export(name, device, read_only=read_only)
