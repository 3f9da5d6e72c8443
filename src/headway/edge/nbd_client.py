"""A device on an NBD server: `nbd://HOST[:PORT]/EXPORT` and its like (`nbd_uri`).

It decides no protocol (`headway.core.nbd.asking` does), and moves no bytes (`nbd_link` does). One
connection carries one request at a time; a device has up to `_CONNECTIONS` if the server promises
that they see each other's writes and flushes, so that as many threads go on at once, and else one.
They are opened when first needed.

Every request has a deadline: when it has passed, or the server has gone or broken the protocol, the
connection is closed, so that nothing can be written into the caller's buffer later, and the request
fails. A failed connection is not opened again: what a server forgot when it went away (writes it had
answered and not flushed) cannot be known, and must not look like success.

What a block status said is kept for `_KEPT_S`, for other clients may write as well, and only if no write of
this device has begun since it was asked for: a hole that has become data would be left out of a copy.

Source: own.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from headway.core.block.device import Extent, Kind, check_range, inside
from headway.core.nbd import wire
from headway.core.nbd.asking import Answer, Broken
from headway.edge.nbd_link import Link
from headway.edge.nbd_uri import parse_uri
from headway.errors import BlockError, UsageError

DEADLINE_S: Final = 30.0
_CONNECTIONS: Final = 4
_EXTENTS: Final = 1 << 30  # bytes asked about at once
_KEPT_S: Final = 1.0  # seconds
_WORDS: Final = {
    wire.EPERM: "operation not permitted",
    wire.EINVAL: "invalid request",
    wire.ENOSPC: "no space left",
}


class NbdDevice:
    """An export of a server. Several threads may use it."""

    kind = Kind.NETWORK
    starts_zeroed = False

    def __init__(self, uri: str, *, writable: bool = False, deadline_s: float = DEADLINE_S) -> None:
        """Raises: UsageError if `uri` is none; BlockError if the server cannot be reached or refuses.

        Waits: at most `deadline_s` seconds, as every request does.
        """
        if deadline_s <= 0:
            raise UsageError(f"deadline of {deadline_s} s for {uri}: it must be above 0")
        self.name = uri
        self._place = parse_uri(uri)
        self._deadline_s = deadline_s
        self._ready = threading.Condition()
        # Under the condition's lock:
        self._idle: list[Link] = []
        self._count = 0  # links that are idle or in use
        self._links: list[Link] = []  # all that are not closed, those being opened among them
        self._failure: str | None = None  # why nothing can be asked any more
        self._known: list[tuple[int, Extent]] = []  # (start, extent) of the last block status
        self._known_until_s = 0.0
        self._begun = self._ended = 0  # changes of what the export holds
        first = self._open()
        agreed = first.agreed
        self._agreed = agreed
        self.size = agreed.size
        self.capacity: int | None = 0 if agreed.flags & wire.SEND_READ_ONLY else agreed.size
        self.alignment = self.discard_granularity = agreed.minimum
        self.grain = (
            1 if agreed.size % agreed.minimum else agreed.minimum
        )  # its end must be reached
        self._limit = _CONNECTIONS if agreed.flags & wire.SEND_MULTI_CONN else 1
        self._idle.append(first)
        self._count = 1
        if writable and self.capacity == 0:
            self.close()
            raise BlockError(errno.EROFS, f"{uri} is read-only on its server")

    def extent(self, offset: int) -> Extent:
        """Data or hole at `offset`, as the server says; a hole reads as zeros. Raises: BlockError."""
        if self._agreed.allocation is None or offset >= self.size:
            return Extent(self.size, False)
        with self._ready:
            if time.monotonic() < self._known_until_s:
                for start, extent in self._known:
                    if start <= offset < extent.end:
                        return extent
            begun, at_rest = self._begun, self._begun == self._ended
            until_s = time.monotonic() + _KEPT_S
        length = min(self.size - offset, _EXTENTS)
        found = self._ask("block status", wire.CMD_BLOCK_STATUS, offset, length).extents
        known: list[tuple[int, Extent]] = []
        start = offset
        for length, flags in found:
            end = min(start + length, self.size)
            if end > start:
                known.append((start, Extent(end, bool(flags & wire.STATE_ZERO))))
            start = end
        if not known:
            raise self._failed("block status", length, offset, "it says nothing about them")
        with self._ready:
            if at_rest and self._begun == begun:
                self._known, self._known_until_s = known, until_s
        return known[0][1]

    def pread_into(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        self._move("read", wire.CMD_READ, view, offset)

    def pwrite(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        with self._changing():
            self._move("write", wire.CMD_WRITE, view, offset)

    def flush(self) -> None:
        if self._agreed.flags & wire.SEND_FLUSH:
            self._ask("flush", wire.CMD_FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        """Say that a range is not needed any more, as far as it is whole blocks. Raises: BlockError."""
        offset, length = inside(offset, length, self.discard_granularity)
        if length and self._agreed.flags & wire.SEND_TRIM:
            self._ask_each("trim", wire.CMD_TRIM, offset, length)

    def zero(self, offset: int, length: int) -> bool:
        """Make a range read as zeros; False if the server has no command for it. Raises: BlockError."""
        if not self._agreed.flags & wire.SEND_WRITE_ZEROES:
            return False
        self._ask_each("write of zeros", wire.CMD_WRITE_ZEROES, offset, length)
        return True

    def abort(self) -> None:
        """Let every request under way fail now, and all that come later; any thread. Waits: never."""
        with self._ready:
            self._failure = self._failure or "it was given up"
            self._ready.notify_all()
            for link in self._links:
                link.abort()

    def close(self) -> None:
        """Say goodbye on every idle connection. A request under way fails."""
        with self._ready:
            idle, self._idle = self._idle, []
            self._failure = self._failure or "it was closed"
            self._ready.notify_all()
        for link in idle:
            self._drop(link, politely=True)

    def _move(self, what: str, command: int, view: memoryview, offset: int) -> None:
        most = self._agreed.maximum
        if len(view) <= most:
            if len(view):
                self._ask(what, command, offset, len(view), view)
            return
        most -= most % self._agreed.minimum
        for start in range(0, len(view), most):
            part = view[start : start + most]
            self._ask(what, command, offset + start, len(part), part)

    def _ask_each(self, what: str, command: int, offset: int, length: int) -> None:
        """A command without data, for a range of any length."""
        with self._changing():
            for start in range(offset, offset + length, _EXTENTS):
                self._ask(what, command, start, min(_EXTENTS, offset + length - start))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """While it lasts, nobody can tell whether a block status is from before the change or after it."""
        with self._ready:
            self._begun += 1
            self._known = []
        try:
            yield
        finally:
            with self._ready:
                self._ended += 1

    def _ask(
        self, what: str, command: int, offset: int, length: int, view: memoryview | None = None
    ) -> Answer:
        link = self._take(what, length, offset)
        try:
            found = link.ask(command, offset, length, 0, view)
        except BaseException as error:
            why = self._explain(error)
            self._drop(link, politely=False)
            self._give(None, why)
            if isinstance(error, (OSError, Broken, struct.error)):
                number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.EIO
                raise self._failed(what, length, offset, why, number) from error
            raise
        self._give(link, None)
        if found.error:
            why = found.message or _WORDS.get(found.error) or os.strerror(found.error)
            raise self._failed(what, length, offset, why, found.error)
        return found

    def _take(self, what: str, length: int, offset: int) -> Link:
        """A link that nobody uses; waits for one if there may be no more, within the deadline."""
        with self._ready:
            until_s = time.monotonic() + self._deadline_s
            while True:
                if self._failure is not None:
                    raise self._failed(what, length, offset, self._failure)
                if self._idle:
                    return self._idle.pop()
                if self._count < self._limit:
                    self._count += 1
                    break
                if not self._ready.wait(max(0.0, until_s - time.monotonic())):
                    why = f"no connection was free within {self._deadline_s:g} s"
                    raise self._failed(what, length, offset, why, errno.ETIMEDOUT)
        try:
            return self._open()
        except BaseException as error:
            self._give(None, str(error))
            raise

    def _give(self, link: Link | None, failure: str | None) -> None:
        with self._ready:
            if link is not None and self._failure is None:
                self._idle.append(link)
                self._ready.notify()
                return
            self._count -= 1
            self._failure = self._failure or failure
            self._ready.notify_all()
        if link is not None:
            self._drop(link, politely=True)

    def _drop(self, link: Link, *, politely: bool) -> None:
        link.close(politely=politely)
        with self._ready:
            self._links.remove(link)

    def _open(self) -> Link:
        link = Link(self._place, self._deadline_s)
        with self._ready:
            self._links.append(link)
        try:
            link.open()
        except BaseException as error:
            self._drop(link, politely=False)
            if not isinstance(error, (OSError, Broken, struct.error)):
                raise
            number = getattr(error, "errno", None) or errno.EIO
            if isinstance(error, TimeoutError):
                number = errno.ETIMEDOUT
            raise BlockError(number, f"cannot open {self.name}: {self._explain(error)}") from error
        return link

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"the server did not answer within {self._deadline_s:g} s"
        if isinstance(error, OSError):
            return error.strerror or str(error)
        return str(error) or type(error).__name__

    def _failed(
        self, what: str, length: int, offset: int, why: str, number: int = errno.EIO
    ) -> BlockError:
        return BlockError(
            number,
            f"{what} of {length} bytes at offset {offset} of {self.name} failed: {why}",
            offset=offset,
        )

    def __repr__(self) -> str:
        return f"<NbdDevice {self.name} {self.size} bytes, {self._count} connections>"
