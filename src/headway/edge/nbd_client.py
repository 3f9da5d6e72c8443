"""A device on an NBD server: `nbd://HOST[:PORT]/EXPORT` and `nbd+unix:///EXPORT?socket=PATH`.

It decides no protocol (`headway.core.nbd.asking` does). One connection carries one request at a
time; a device has up to `_CONNECTIONS` if the server promises that they see each other's writes and
flushes, so that as many threads go on at once, and else one. They are opened when first needed.

Every request has a deadline: when it has passed, or the server has gone or broken the protocol, the
connection is closed, so that nothing can be written into the caller's buffer later, and the request
fails. A failed connection is not opened again: what a server forgot when it went away (writes it had
answered and not flushed) cannot be known, and must not look like success.

Source: the NBD URI specification, doc/uri.md of the reference implementation.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final
from urllib.parse import parse_qs, unquote, urlsplit

from headway.core.block.device import Extent, Kind, check_range
from headway.core.nbd import wire
from headway.core.nbd.asking import Agreed, Answer, Broken, Into, Wish, answer, dial
from headway.errors import BlockError, UsageError

T = TypeVar("T")
SCHEMES: Final = ("nbd", "nbd+unix")
DEADLINE_S: Final = 30.0
_PORT: Final = 10809
_CONNECTIONS: Final = 4
_EXTENTS: Final = 1 << 30  # bytes asked about at once
_ZEROS: Final = bytes(64 << 10)
_WORDS: Final = {
    wire.EPERM: "operation not permitted",
    wire.EINVAL: "invalid request",
    wire.ENOSPC: "no space left",
}


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and what is wanted there."""

    shown: str
    export: str
    path: str | None  # of a Unix socket
    host: str = ""
    port: int = _PORT

    def connect(self, timeout_s: float) -> socket.socket:
        if self.path is None:
            sock = socket.create_connection((self.host, self.port), timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(self.path)
        except BaseException:
            sock.close()
            raise
        return sock


def parse_uri(uri: str) -> Place:
    """What an NBD URI says. Raises: UsageError."""
    try:
        parts = urlsplit(uri)
        port = parts.port
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise UsageError(f"{uri} is no NBD URI: {error}") from error
    export = unquote(parts.path.removeprefix("/"), errors="surrogateescape")
    if len(os.fsencode(export)) > wire.NAME_LIMIT:
        raise UsageError(f"{uri}: an export's name has at most {wire.NAME_LIMIT} bytes")
    if parts.scheme == "nbd+unix":
        path = query.get("socket", [""])[0]
        if not path or parts.netloc:
            raise UsageError(f"{uri} names no socket: write nbd+unix:///EXPORT?socket=PATH")
        return Place(uri, export, path)
    if not parts.hostname:
        raise UsageError(f"{uri} names no host: write nbd://HOST:PORT/EXPORT")
    return Place(uri, export, None, parts.hostname, _PORT if port is None else port)


@final
class _Link:
    """One connection, used by one thread at a time."""

    def __init__(self, place: Place, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._until_s = time.monotonic() + deadline_s
        self._cookie = 0
        self._sock = place.connect(deadline_s)
        try:
            self.agreed: Agreed = self._carry(dial(place.export), None)
        except BaseException:
            self._sock.close()
            raise

    def ask(
        self, command: int, offset: int, length: int, flags: int, view: memoryview | None
    ) -> Answer:
        """Send one request and read its reply; a read's data goes into `view`, a write's is there."""
        self._until_s = time.monotonic() + self._deadline_s
        self._cookie += 1
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC, flags, command, self._cookie, offset, length)
        if command == wire.CMD_WRITE:
            assert view is not None
            self._send(head, view)
        else:
            self._send(head)
        reading = command == wire.CMD_READ
        reply = answer(self.agreed, self._cookie, offset, length, data=reading)
        return self._carry(reply, view)

    def close(self, *, politely: bool) -> None:
        try:
            if politely:
                self._until_s = time.monotonic() + 1.0
                numbers = (wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0)
                self._send(wire.REQUEST.pack(*numbers))
        except OSError:
            pass
        finally:
            self._sock.close()

    def _carry(self, asking: Generator[Wish, Any, T], view: memoryview | None) -> T:
        """Do what is wished for, till the result is there."""
        got: bytes | None = None
        try:
            while True:
                wish = asking.send(got)
                got = None
                if isinstance(wish, int):
                    got = self._receive(wish)
                elif isinstance(wish, Into):
                    assert view is not None
                    self._fill(view, wish)
                else:
                    self._send(wish)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _fill(self, view: memoryview, part: Into) -> None:
        if part.length < 0:
            end = part.start - part.length
            for start in range(part.start, end, len(_ZEROS)):
                count = min(len(_ZEROS), end - start)
                view[start : start + count] = _ZEROS[:count]
        else:
            self._receive_into(view[part.start : part.start + part.length])

    def _receive(self, count: int) -> bytes:
        buffer = bytearray(count)
        self._receive_into(memoryview(buffer))
        return bytes(buffer)

    def _receive_into(self, view: memoryview) -> None:
        while view:
            self._limit()
            count = self._sock.recv_into(view)
            if not count:
                raise ConnectionResetError(errno.ECONNRESET, "the server hung up")
            view = view[count:]

    def _send(self, head: bytes, payload: memoryview | None = None) -> None:
        self._limit()
        if payload is None:
            self._sock.sendall(head)
            return
        sent = self._sock.sendmsg((head, payload))
        if sent < len(head):
            self._sock.sendall(head[sent:])
            sent = len(head)
        rest = payload[sent - len(head) :]
        while rest:
            self._limit()
            rest = rest[self._sock.send(rest) :]

    def _limit(self) -> None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)


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
        self._idle: list[_Link] = []
        self._count = 0  # links that are idle or in use
        self._failure: str | None = None  # why nothing can be asked any more
        self._known: list[tuple[int, Extent]] = []  # (start, extent) of the last block status
        first = self._open()
        agreed = first.agreed
        self._agreed = agreed
        self.size = agreed.size
        self.capacity: int | None = 0 if agreed.flags & wire.SEND_READ_ONLY else agreed.size
        self.alignment = agreed.minimum
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
            for start, extent in self._known:
                if start <= offset < extent.end:
                    return extent
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
            self._known = known
        return known[0][1]

    def pread_into(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        self._move("read", wire.CMD_READ, view, offset)

    def pwrite(self, view: memoryview, offset: int) -> None:
        check_range(self, offset, len(view), self.size)
        with self._ready:
            self._known = []
        self._move("write", wire.CMD_WRITE, view, offset)

    def flush(self) -> None:
        if self._agreed.flags & wire.SEND_FLUSH:
            self._ask("flush", wire.CMD_FLUSH, 0, 0)

    def close(self) -> None:
        """Say goodbye on every idle connection. A request under way fails."""
        with self._ready:
            idle, self._idle = self._idle, []
            self._failure = self._failure or "it was closed"
            self._ready.notify_all()
        for link in idle:
            link.close(politely=True)

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

    def _ask(
        self, what: str, command: int, offset: int, length: int, view: memoryview | None = None
    ) -> Answer:
        link = self._take(what, length, offset)
        try:
            found = link.ask(command, offset, length, 0, view)
        except BaseException as error:
            why = self._explain(error)
            link.close(politely=False)
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

    def _take(self, what: str, length: int, offset: int) -> _Link:
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

    def _give(self, link: _Link | None, failure: str | None) -> None:
        with self._ready:
            if link is not None and self._failure is None:
                self._idle.append(link)
                self._ready.notify()
                return
            self._count -= 1
            self._failure = self._failure or failure
            self._ready.notify_all()
        if link is not None:
            link.close(politely=True)

    def _open(self) -> _Link:
        try:
            return _Link(self._place, self._deadline_s)
        except (OSError, Broken, struct.error) as error:
            number = getattr(error, "errno", None) or errno.EIO
            if isinstance(error, TimeoutError):
                number = errno.ETIMEDOUT
            raise BlockError(number, f"cannot open {self.name}: {self._explain(error)}") from error

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
