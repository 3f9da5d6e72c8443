"""Serves devices over NBD in a hard memory limit: exports, frames, sockets and the loop, joined.

It decides nothing of its own. `headway.core.nbd` speaks the protocol and says who may hold how many
frames, `headway.edge.serving` moves the bytes, `headway.exports` opens devices and stacks; this module
gives them a zone and a pool of frames, and starts and ends the thread.

The bound: three quarters of `memory` are frames, mapped and touched at the start, and the kernel
keeps at most the rest for replies that clients have not read. What a request needs does not depend
on its length, and a client that stops reading holds two frames at most beside its share of the
spare ones. CPython's own objects come on top: about 10 KiB per connection.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext
from types import TracebackType
from typing import final

from headway.core.block.device import Device
from headway.core.nbd.handshake import Tls
from headway.core.nbd.window import Window
from headway.core.units import format_size, parse_size
from headway.edge.serving.export import make_export
from headway.edge.serving.loop import Loop
from headway.edge.serving.secure import psk_server_context, server_context
from headway.edge.serving.workers import Workers
from headway.edge.sockets import Listener
from headway.errors import PoolBusy, UsageError
from headway.exports import Exports
from headway.threaded import Mempool, Zone

__all__ = ["ServeReport", "Server", "serve"]

_WORKERS = 18
_DRAIN_S = 4.0  # so that a stop, with what comes after it, is over in five seconds


@final
@dataclass(frozen=True, slots=True)
class ServeReport:
    """What a server did. Units: bytes in the names or as said.

    `memory_peak` is the most bytes of frames out at once, and what is set aside for layers; it is never
    above `memory_limit`.
    `abandoned` counts calls of a device that had not come back when the server ended.
    """

    connections: int
    requests: int
    bytes_sent: int
    memory_limit: int
    memory_peak: int
    abandoned: int


class Server:
    """Devices served to any number of NBD clients by one thread and a few workers.

    `exports` gives each device its name; the empty name is the default export. The devices are
    closed with the server. `memory` is the limit of all frames and socket buffers. A client that connects when as many
    are connected as the limit allows (`repr` shows how many) waits until another has gone.
    `tls` is ``"off"``, ``"on"`` (a client may) or ``"require"``, with the certificates in the
    directory `tls_certificates`, or the keys in the file `tls_psk` (lines ``USER:HEX``; Python 3.13).

    >>> from headway import open_device
    >>> with serve(open_device("memory:1MiB"), listen="tcp::0") as uri:
    ...     uri.startswith("nbd://127.0.0.1:")
    True

    Raises: UsageError if `memory` is too little for one connection; NoMemory if it cannot be had.
    """

    def __init__(
        self,
        exports: Mapping[str, Device],
        *,
        memory: int | str = "64MiB",
        read_only: bool = False,
        tls: str = "off",
        tls_certificates: str | None = None,
        tls_psk: str | None = None,
    ) -> None:
        self._tls, context = _secured(tls, tls_certificates, tls_psk)
        if not hasattr(select, "epoll"):
            raise UsageError("serving needs epoll, which this system has not: use Linux")
        if not exports:
            raise UsageError("nothing to serve: name at least one device")
        set_aside = exports.memory_bytes if isinstance(exports, Exports) else 0
        self._window = Window(parse_size(memory, "memory") - set_aside)
        self._set_aside = set_aside
        window = self._window
        self._opened = exports
        self._exports = [make_export(n, d, read_only=read_only) for n, d in exports.items()]
        framed = window.frame_size * window.frame_count
        self._zone = Zone(framed, name="serve", min_free=0)
        self._frames: Mempool[memoryview] = Mempool(
            self._zone.buffers(window.frame_size, name="serve"),
            min_count=window.frame_count,
            name="serve frames",
        )
        self._workers = Workers(_WORKERS)
        self._loop = Loop(self._exports, self._frames, window, self._workers, self._tls, context)
        self._listeners: list[Listener] = []
        self._thread: threading.Thread | None = None
        # Not `join`: on 3.11, interrupted by a signal's exception, it takes the thread for ended.
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._report: ServeReport | None = None

    def add_listener(self, listener: Listener) -> None:
        """Accept clients there; before `start`."""
        self._listeners.append(listener)
        self._loop.add_listener(listener.sock)

    def add_connection(self, sock: socket.socket) -> None:
        """Serve a connected socket; before `start`. Without listeners the server ends with it."""
        self._loop.add_connection(sock)

    def touch(self) -> None:
        """Look at every page of the frames, before `start`: what is not in memory has to be found."""
        frames: list[memoryview] = []
        while (frame := self._frames.try_alloc()) is not None:
            frames.append(frame)
        for frame in frames:
            bytes(frame[::4096])
        self._frames.free_bulk(frames)

    @property
    def uris(self) -> list[str]:
        """One for each listener and export."""
        secure = self._tls is Tls.REQUIRE
        return [
            listener.uri(export.name, secure=secure)
            for listener in self._listeners
            for export in self._exports
        ]

    def start(self) -> None:
        """Serve in a thread of its own, from now on."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, name="headway-nbd", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when there is nobody left to serve, or `stop` was called by another thread."""
        assert self._thread is not None
        self._ended.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = _DRAIN_S) -> ServeReport:
        """Answer what was taken, drop who does not read the answers, and give everything back.

        Waits: at most `timeout_s`, and a moment. A call of a device that does not come back is left
        behind with its thread and its frame. Stopping twice is once.
        """
        if self._report is not None:
            return self._report
        self._loop.stop(timeout_s)
        if self._thread is not None:
            self._ended.wait(timeout_s + 0.5)
        else:
            self._run()  # never started: it gives everything back, and ends
        for listener in self._listeners:
            listener.close()
        self._workers.stop()
        home = self._workers.close(0.5)
        loop, window = self._loop, self._window
        self._report = ServeReport(
            connections=loop.accepted_count,
            requests=loop.request_count,
            bytes_sent=loop.sent_bytes,
            memory_limit=window.memory + self._set_aside,
            memory_peak=window.frame_size * loop.frames_peak + self._set_aside,
            abandoned=loop.abandoned,
        )
        if home and not loop.abandoned:
            with suppress(PoolBusy):  # a caller still looks at a frame: it goes with the process
                self._frames.close()
                self._zone.close()
            # In a thread: a leg that is being filled, or does not answer, must not keep the server.
            closing = threading.Thread(target=self._close_devices, daemon=True)
            closing.start()
            closing.join(0.5)
        return self._report

    def _close_devices(self) -> None:
        if isinstance(self._opened, Exports):
            self._opened.close()
        else:
            for device in self._opened.values():
                device.close()

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    def __enter__(self) -> str:
        self.start()
        return self.uris[0]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._failure is not None and kind is None:
            raise self._failure

    def __repr__(self) -> str:
        limit = format_size(self._window.memory)
        places = ", ".join(listener.shown for listener in self._listeners) or "nowhere"
        return (
            f"<Server of {len(self._exports)} exports at {places}: {limit}, "
            f"at most {self._window.connection_limit} connections>"
        )


def serve(
    devices: Device | Mapping[str, Device],
    *,
    listen: str | Iterable[str],
    memory: int | str = "64MiB",
    read_only: bool = False,
    tls: str = "off",
    tls_certificates: str | None = None,
    tls_psk: str | None = None,
) -> Server:
    """A server of one device, or of several by name, that listens on `unix:PATH` or `tcp:[HOST]:PORT`.

    Use it in a ``with`` block, which gives the URI of the first export, or call `start` and `stop`.
    Raises: as `Server` and `headway.edge.sockets.listen`.
    """
    from headway.edge.sockets import listen as open_listener

    exports = devices if isinstance(devices, Mapping) else {"": devices}
    places = [listen] if isinstance(listen, str) else list(listen)
    opened: list[Listener] = []
    try:
        opened.extend(open_listener(place) for place in places)
        server = Server(
            exports,
            memory=memory,
            read_only=read_only,
            tls=tls,
            tls_certificates=tls_certificates,
            tls_psk=tls_psk,
        )
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    for listener in opened:
        server.add_listener(listener)
    return server


def _secured(tls: str, directory: str | None, psk: str | None) -> tuple[Tls, SSLContext | None]:
    """Whether TLS is spoken, and with what. Raises: UsageError, BlockError."""
    if tls not in [choice.value for choice in Tls]:
        raise UsageError(f"tls is {tls!r}: it must be off, on or require")
    chosen = Tls(tls)
    if chosen is Tls.OFF:
        if directory is not None or psk is not None:
            what = "certificates" if psk is None else "keys"
            raise UsageError(f"{what} were given, and TLS is off: say --tls on or require")
        return chosen, None
    if psk is not None and directory is not None:
        raise UsageError("--tls-certificates and --tls-psk: give one of them")
    if psk is not None:
        return chosen, psk_server_context(psk)
    if directory is None:
        raise UsageError(
            f"--tls {tls} needs certificates, or keys: add --tls-certificates DIR, or --tls-psk FILE"
        )
    return chosen, server_context(directory)
