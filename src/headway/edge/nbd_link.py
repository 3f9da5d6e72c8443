"""One connection to an NBD server: what `headway.core.nbd.asking` wishes for, carried out in time.

It decides nothing. One thread at a time uses a link, for one request at a time; each has the link's
deadline. After an error the link is good for nothing but `close`. Only `abort` is for other threads.

Source: own.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final, TypeVar, final

from headway.core.nbd import wire
from headway.core.nbd.asking import Agreed, Answer, Into, Secure, Wish, answer, dial
from headway.edge.nbd_tls import client_context, start_tls
from headway.edge.nbd_uri import Place

T = TypeVar("T")
_ZEROS: Final = bytes(64 << 10)


@final
class Link:
    """One connection, used by one thread at a time."""

    def __init__(self, place: Place, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._until_s = time.monotonic() + deadline_s
        self._cookie = 0
        self._tls = (
            None if place.tls is None else client_context(place.tls)
        )  # before anybody is asked
        self._hostname = None if place.tls is None else place.tls.hostname
        self._sock = place.connect(deadline_s)
        try:
            wish = dial(place.export, secure=place.tls is not None)
            self.agreed: Agreed = self._carry(wish, None)
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

    def abort(self) -> None:
        """Let whoever waits for this server fail now; any thread. The link still has to be closed."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

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
                elif isinstance(wish, Secure):
                    assert self._tls is not None
                    self._limit()
                    self._sock = start_tls(self._sock, self._tls, self._hostname)
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
        # TLS has no sendmsg
        sent = 0 if self._tls else self._sock.sendmsg((head, payload))
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
