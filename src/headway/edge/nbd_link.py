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
from typing import Any, TypeVar, final

from headway.core.nbd import wire
from headway.core.nbd.asking import Agreed, Answer, Into, Secure, Wish, answer, dial
from headway.core.zeros import clear
from headway.edge.nbd_tls import agree, client_context, with_tls
from headway.edge.nbd_uri import Place

T = TypeVar("T")


@final
class Link:
    """One connection, used by one thread at a time."""

    agreed: Agreed  # once it is open
    _sock: socket.socket | None = None

    def __init__(self, place: Place, deadline_s: float) -> None:
        """Raises: UsageError, BlockError for what the URI wants of TLS. Nobody is asked yet."""
        self._place = place
        self._deadline_s = deadline_s
        self._until_s = 0.0
        self._cookie = 0
        self._aborted = False
        self._tls = None if place.tls is None else client_context(place.tls)
        self._hostname = None if place.tls is None else place.tls.hostname

    def open(self) -> None:
        """Connect, and agree. Raises: OSError, Broken; the link is to be closed then. Once."""
        self._until_s = time.monotonic() + self._deadline_s
        self._sock = self._place.connect(self._deadline_s, self._made)
        wish = dial(self._place.export, secure=self._tls is not None)
        self.agreed = self._carry(wish, None)

    def _made(self, sock: socket.socket) -> None:
        """It begins to connect: to be found by `abort`."""
        self._sock = sock
        if self._aborted:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it was given up")

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
        self._aborted = True
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(
                    sock, socket.SHUT_RDWR
                )  # not TLS's, which forgets that it is TLS

    def close(self, *, politely: bool) -> None:
        try:
            if politely:
                self._until_s = time.monotonic() + 1.0
                numbers = (wire.REQUEST_MAGIC, 0, wire.CMD_DISC, 0, 0, 0)
                self._send(wire.REQUEST.pack(*numbers))
        except OSError:
            pass
        finally:
            if self._sock is not None:
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
                    # First to be found by `abort`: the plain socket is empty from now on.
                    self._sock = secured = with_tls(self._limited(), self._tls, self._hostname)
                    self._limited()  # given up in between, perhaps
                    agree(secured)
                else:
                    self._send(wish)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _fill(self, view: memoryview, part: Into) -> None:
        if part.length < 0:
            clear(view[part.start : part.start - part.length])
        else:
            self._receive_into(view[part.start : part.start + part.length])

    def _receive(self, count: int) -> bytes:
        buffer = bytearray(count)
        self._receive_into(memoryview(buffer))
        return bytes(buffer)

    def _receive_into(self, view: memoryview) -> None:
        while view:
            count = self._limited().recv_into(view)
            if not count:
                raise ConnectionResetError(errno.ECONNRESET, "the server hung up")
            view = view[count:]

    def _send(self, head: bytes, payload: memoryview | None = None) -> None:
        sock = self._limited()
        if payload is None:
            sock.sendall(head)
            return
        sent = 0 if self._tls else sock.sendmsg((head, payload))  # TLS has none
        if sent < len(head):
            sock.sendall(head[sent:])
            sent = len(head)
        rest = payload[sent - len(head) :]
        while rest:
            rest = rest[self._limited().send(rest) :]

    def _limited(self) -> socket.socket:
        """The socket, with what is left of the time. Raises: TimeoutError, ConnectionAbortedError."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if self._aborted or self._sock is None:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it was given up")
        self._sock.settimeout(left_s)
        return self._sock
