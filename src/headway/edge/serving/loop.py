"""The thread that serves every connection: it waits for sockets, and gives each its turn.

It decides nothing about requests (`connection`) or sizes (`headway.core.nbd.window`). One thread,
sockets that never block, and workers for what may wait for a device: a client that is slow, silent
or gone costs the others nothing but its frames. Connections beyond the window's limit stay in the
listening queue until another has gone.

Bounds: the frames of the window; `_GREETING_S` for a client to finish its negotiation; after `stop`,
the time given there until the last client is dropped, stuck or not.

Source: epoll(7), level-triggered.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_RCVBUF,
    SO_SNDBUF,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)
from ssl import SSLContext
from typing import Final, Protocol, final

from headway.core.nbd.handshake import Offer, Tls
from headway.core.nbd.window import Window
from headway.edge.serving.answering import Answering
from headway.edge.serving.connection import Connection
from headway.edge.serving.export import Export
from headway.edge.serving.secure import SecureSocket
from headway.edge.serving.workers import Workers

_GREETING_S: Final = 10.0
_TICK_S: Final = 1.0
_SMALL: Final = 64 << 10
_ACCEPTS: Final = 16  # of one listener before others have their turn


class Frames(Protocol):
    """A pool of equal buffers, with as many as the window counts on."""

    def try_alloc(self) -> memoryview | None: ...
    def free(self, element: memoryview) -> None: ...


@final
class Loop:
    """Serves `exports`. Made in any thread, run in one."""

    def __init__(
        self,
        exports: Iterable[Export],
        frames: Frames,
        window: Window,
        workers: Workers,
        tls: Tls = Tls.OFF,
        context: SSLContext | None = None,
    ) -> None:
        self.exports: Mapping[str, Export] = {export.name: export for export in exports}
        self.offers: Mapping[str, Offer] = {
            export.name: export.offer for export in self.exports.values()
        }
        self.tls = tls
        self._context = context
        self.window = window
        self.workers = workers
        self._frames = frames
        self.frames_out = 0
        self.frames_peak = 0
        self.rx = self.take_frame()
        self.tx = self.take_frame()
        self.small = min(_SMALL, len(self.tx) // 4)
        self.tx_room = len(self.tx) - self.small - 64
        self._epoll = select.epoll()
        self._epoll.register(workers.wake_fd, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}  # by descriptor; those that are not closed
        self._lingering = 0  # closed, with jobs that are not done
        self._greeting: dict[
            Connection, float
        ] = {}  # not negotiated yet -> till when (insertion order)
        self._listeners: dict[int, socket] = {}
        self._listening = False
        self._ended = False
        self._drain_until_s: float | None = None
        self._stop_s: float | None = None  # set from any thread, once
        self.accepted_count = 0
        self.request_count = 0  # of connections that are gone
        self.sent_bytes = 0

    # -- what others call ----------------------------------------------------------------------------

    def add_listener(self, listener: socket) -> None:
        """Accept on `listener`; before `run`."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener

    def add_connection(self, sock: socket) -> None:
        """Serve a socket that is connected already; before `run`."""
        self._begin(sock)

    def stop(self, timeout_s: float) -> None:
        """Ask the loop to end: what was taken is answered, for at most `timeout_s`. Any thread."""
        self._stop_s = timeout_s
        self.workers.wake()

    def run(self) -> None:
        """Serve until stopped, or, without listeners, until the last connection has gone."""
        self._listen()
        try:
            while not self._over():
                self._poll()
        finally:
            for connection in list(self._connections.values()):
                connection.drop()
            self._ended = True
            self._epoll.close()
            if not self._lingering:
                self._frames.free(self.rx)
                self._frames.free(self.tx)
                self.frames_out -= 2

    # -- what connections call -----------------------------------------------------------------------

    def take_spare(self, connection: Answering) -> bool:
        """Whether a connection may have another spare frame; clients that do not read give theirs."""
        while not self.window.take_spare(connection.spare):
            others = self._connections.values()
            if not any(other.give_up() for other in others if other is not connection):
                return False
        return True

    def take_frame(self) -> memoryview:
        """A frame that the window's sum has room for."""
        frame = self._frames.try_alloc()
        assert frame is not None, "more frames are out than the window's sum allows"
        self.frames_out += 1
        self.frames_peak = max(self.frames_peak, self.frames_out)
        return frame

    def give_frame(self, frame: memoryview) -> None:
        self.frames_out -= 1
        self._frames.free(frame)

    def replace_rx(self) -> None:
        self.rx = self.take_frame()

    def replace_tx(self) -> None:
        self.tx = self.take_frame()

    def secured(self, sock: socket) -> SecureSocket:
        """The socket, from now on with TLS. Raises: OSError."""
        assert self._context is not None
        return SecureSocket(sock, self._context)

    def watch(self, fd: int, *, receiving: bool, sending: bool) -> None:
        events = (select.EPOLLIN if receiving else 0) | (select.EPOLLOUT if sending else 0)
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        connection = self._connections.pop(fd)
        self._greeting.pop(connection, None)
        self._lingering += 1
        if not self._ended:
            with suppress(OSError):  # a failed start of TLS has closed it already
                self._epoll.unregister(fd)

    def forget(self, connection: Answering) -> None:
        """It is closed, and all its jobs are done."""
        self._lingering -= 1
        self.window.give_kernel(connection.granted)
        if connection.requests is not None:
            self.request_count += connection.requests.count
        self.sent_bytes += connection.out.sent_bytes
        self._listen()

    @property
    def abandoned(self) -> int:
        """Connections whose jobs had not come back when the loop ended."""
        return self._lingering if self._ended else 0

    # -- the loop ------------------------------------------------------------------------------------

    def _poll(self) -> None:
        ready = []
        for fd, events in self._epoll.poll(self._timeout_s()):
            connection = self._connections.get(fd)
            if connection is not None:
                if events & (select.EPOLLHUP | select.EPOLLERR) and not connection.receiving:
                    connection.drop()  # nobody will read what is left to say
                else:
                    connection.turn()
            elif fd in self._listeners:
                ready.append(self._listeners[fd])
            elif fd == self.workers.wake_fd:
                for job in self.workers.done():
                    job.connection.finished(job)
        for listener in ready:  # last: a new socket may have the number of one just closed
            self._accept(listener)
        if self._stop_s is not None and self._drain_until_s is None:
            self._drain(self._stop_s)
        if self._greeting:
            self._drop_late()

    def _timeout_s(self) -> float:
        if self._drain_until_s is not None:
            return max(0.0, self._drain_until_s - time.monotonic())
        return _TICK_S if self._greeting else -1

    def _over(self) -> bool:
        if self._connections or self._lingering:
            return self._drain_until_s is not None and time.monotonic() >= self._drain_until_s
        return self._drain_until_s is not None or not self._listeners

    def _drain(self, timeout_s: float) -> None:
        self._drain_until_s = time.monotonic() + timeout_s
        self._deafen()
        for connection in list(self._connections.values()):
            connection.leave()

    def _drop_late(self) -> None:
        now_s = time.monotonic()
        for connection, until_s in list(self._greeting.items()):
            if connection.handshake is None:
                del self._greeting[connection]
            elif until_s <= now_s:
                connection.drop()
            else:
                return  # those after it have longer

    # -- newcomers -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        room = len(self._connections) + self._lingering < self.window.connection_limit
        if room and not self._listening and self._drain_until_s is None and not self._ended:
            self._listening = True
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN)

    def _deafen(self) -> None:
        if self._listening:
            self._listening = False
            for fd in self._listeners:
                self._epoll.unregister(fd)

    def _accept(self, listener: socket) -> None:
        for _ in range(_ACCEPTS):
            if len(self._connections) + self._lingering >= self.window.connection_limit:
                self._deafen()
                return
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # It has gone already, or descriptors have run out: `forget` listens again.
                if self._connections:
                    self._deafen()
                return
            self._begin(sock)

    def _begin(self, sock: socket) -> None:
        sock.setblocking(False)
        granted = self.window.take_kernel()
        with suppress(OSError):
            if sock.family in (AF_INET, AF_INET6):
                sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                # What was received and not taken counts here; on a Unix socket it is the sender's.
                sock.setsockopt(SOL_SOCKET, SO_RCVBUF, granted // 4)
                sock.setsockopt(SOL_SOCKET, SO_SNDBUF, granted // 4)
            else:
                sock.setsockopt(SOL_SOCKET, SO_SNDBUF, granted // 2)  # the kernel doubles it
        connection = Connection(self, sock)
        connection.granted = granted
        self._connections[connection.fd] = connection
        self._greeting[connection] = time.monotonic() + _GREETING_S
        self._epoll.register(connection.fd, 0)
        self.accepted_count += 1
        connection.start()
