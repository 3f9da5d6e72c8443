"""A device on a file or a block device: buffered, or O_DIRECT past the page cache.

It does not decide what is read or written when, and makes no destination appear: see
`headway.edge.destination`. Two descriptors of one file are kept: `fd` is buffered, `direct_fd` is
O_DIRECT or None. A request whose offset and length are aligned goes to `direct_fd`; one whose
memory is not aligned goes through a bounce buffer from the device's own pool; the ragged ends of
one whose offset or length is not aligned, and whatever a file system refuses with EINVAL, go to
`fd`. The kernel keeps both views of the file coherent, page by page.

A short transfer is continued, an interrupted one repeated (PEP 475). A file that ends before its
size when opened has shrunk under the reader: that is an error, never zeros.

Source: open(2) on O_DIRECT; Linux ``fs/direct-io`` behaviour for EINVAL and coherence.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import AbstractContextManager
from typing import Protocol

from headway.core.block.device import Extent, Kind, check_range, cleared, inside
from headway.edge import pagecache
from headway.errors import BlockError

ALIGNMENT = 4096  # enough for every disk; 512 would do for some
_WINDOW = 8 << 20  # write-back starts per window of writes, and is waited for one window later


class Bounce(Protocol):
    """A pool of page-aligned buffers, each the same multiple of the alignment long."""

    def lease(self) -> AbstractContextManager[memoryview]: ...


class FileDevice:
    """One open file. It owns its descriptors; several threads may use it."""

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        kind: Kind = Kind.FILE,
        size: int,
        capacity: int | None = None,
        direct_fd: int | None = None,
        bounce: Bounce | None = None,
        starts_zeroed: bool = False,
        write_behind: bool = False,
        discard_granularity: int = 1,
    ) -> None:
        self.fd = fd
        self.direct_fd = direct_fd
        self.name = name
        self.kind = kind
        self.size = size
        self.capacity = capacity
        self.alignment = ALIGNMENT if direct_fd is not None else 1
        self.starts_zeroed = starts_zeroed
        self.discard_granularity = discard_granularity
        self._bounce = bounce
        self._write_behind = write_behind
        self._lock = threading.Lock()
        self._written = 0  # bytes in the window being filled; under the lock
        self._window = (0, 0)  # the range of that window; under the lock
        self._before = (0, 0)  # the window whose write-back runs; under the lock

    def extent(self, offset: int) -> Extent:
        """Data or hole at `offset`. A file system that cannot tell says data."""
        try:
            data = os.lseek(self.fd, offset, os.SEEK_DATA)
            if data > offset:
                return Extent(min(data, self.size), True)
            return Extent(min(os.lseek(self.fd, offset, os.SEEK_HOLE), self.size), False)
        except OSError as error:
            # ENXIO: no data from here to the end, where the end may have moved since it was opened
            if error.errno == errno.ENXIO and offset < os.fstat(self.fd).st_size:
                return Extent(self.size, True)
            return Extent(self.size, False)
        except AttributeError:  # a platform without SEEK_DATA
            return Extent(self.size, False)

    def pread_into(self, view: memoryview, offset: int) -> None:
        """Fill `view`. Raises: BlockError, also if the file has shrunk below the range."""
        length = len(view)
        if offset < 0 or offset + length > self.size:
            check_range(self, offset, length, self.size)
        done = 0
        if self.direct_fd is not None and offset % ALIGNMENT == 0:
            done = self._direct(os.preadv, view, offset)
        while done < length:
            try:
                count = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._failure("read", len(view) - done, offset + done, error) from error
            if count == 0:
                raise BlockError(
                    errno.EIO,
                    f"{self.name} ends at {self._end(offset + done)}, but had {self.size} bytes "
                    "when it was opened: it shrank while it was read",
                    offset=offset + done,
                )
            done += count

    def pwrite(self, view: memoryview, offset: int) -> None:
        """Write `view`. Raises: BlockError."""
        check_range(self, offset, len(view), self.capacity)
        done = 0
        if self.direct_fd is not None and offset % ALIGNMENT == 0:
            done = self._direct(os.pwritev, view, offset)
        while done < len(view):
            try:
                count = os.pwritev(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._failure("write", len(view) - done, offset + done, error) from error
            done += count
        if self._write_behind:
            self._start_write_back(offset, offset + len(view))

    def discard(self, offset: int, length: int) -> None:
        """Advice: the range is not needed any more. Where it can be, what of it is whole grains becomes a hole."""
        offset, length = inside(offset, length, self.discard_granularity)
        if length:
            pagecache.punch(self.fd, offset, length)

    def zero(self, offset: int, length: int, *, keep: bool = False) -> bool:
        """Make a range read as zeros without writing more than its edges; False if that cannot be.

        `keep` leaves its room allocated. Raises: BlockError.
        """
        clear = pagecache.zero_range if keep else pagecache.punch
        return cleared(
            lambda start, count: clear(self.fd, start, count),
            self.pwrite,
            offset,
            length,
            self.discard_granularity,
        )

    def flush(self) -> None:
        """Raises: BlockError if what was written could not be made durable."""
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise BlockError(
                error.errno or errno.EIO, f"sync of {self.name} failed: {error.strerror}"
            ) from error

    def close(self) -> None:
        direct, self.direct_fd = self.direct_fd, None
        if direct is not None:
            os.close(direct)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _direct(self, move: object, view: memoryview, offset: int) -> int:
        """Move the aligned part past the page cache; how much was moved (0: refused, or an end)."""
        whole = len(view) // ALIGNMENT * ALIGNMENT
        fd = self.direct_fd
        if whole == 0 or fd is None:
            return 0
        reading = move is os.preadv
        call = os.preadv if reading else os.pwritev
        done = 0
        try:
            if whole == len(view):  # the usual one: it goes as it is
                done = call(fd, (view,), offset)
                if done == whole or not done:
                    return done
            while done < whole and done % ALIGNMENT == 0:
                count = call(fd, (view[done:whole],), offset + done)
                if count == 0:
                    break
                done += count
        except OSError as error:
            if error.errno != errno.EINVAL:
                what = "read" if reading else "write"
                raise self._failure(what, len(view) - done, offset + done, error) from error
            if done == 0 and self._bounce is not None:
                return self._bounced(fd, reading, view[:whole], offset, self._bounce)
        return done

    def _bounced(
        self, fd: int, reading: bool, view: memoryview, offset: int, bounce: Bounce
    ) -> int:
        """`_direct` through an aligned buffer, for memory that is not aligned."""
        done = 0
        with bounce.lease() as buffer:
            assert len(buffer) >= ALIGNMENT and len(buffer) % ALIGNMENT == 0
            while done < len(view):
                length = min(len(buffer), len(view) - done)
                try:
                    with buffer[:length] as part:
                        if reading:
                            count = os.preadv(fd, [part], offset + done)
                            view[done : done + count] = part[:count]
                        else:
                            part[:] = view[done : done + length]
                            count = os.pwritev(fd, [part], offset + done)
                except OSError as error:
                    if error.errno == errno.EINVAL:  # not the memory, then: the file system
                        return done
                    what = "read" if reading else "write"
                    raise self._failure(what, length, offset + done, error) from error
                done += count
                if count < length:
                    break
        return done

    def _start_write_back(self, start: int, end: int) -> None:
        with self._lock:
            low, high = self._window if self._written else (start, end)
            self._window = (min(low, start), max(high, end))
            self._written += end - start
            if self._written < _WINDOW:
                return
            before, self._before = self._before, self._window
            self._written = 0
            now = self._before
        pagecache.write_behind(self.fd, now[0], now[1] - now[0], wait=False)
        if before[1]:
            pagecache.write_behind(self.fd, before[0], before[1] - before[0], wait=True)

    def _failure(self, what: str, length: int, offset: int, error: OSError) -> BlockError:
        return BlockError(
            error.errno or errno.EIO,
            f"{what} of {length} bytes at offset {offset} of {self.name} failed: {error.strerror}",
            offset=offset,
        )

    def _end(self, otherwise: int) -> int:
        try:
            return min(os.fstat(self.fd).st_size, otherwise)
        except OSError:
            return otherwise

    def __repr__(self) -> str:
        how = "O_DIRECT" if self.direct_fd is not None else "buffered"
        return f"<FileDevice {self.name} {self.kind.value} {self.size} bytes {how}>"
