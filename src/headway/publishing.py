"""A process that publishes: one thread, one socket of its user's, a snapshot for each line it is sent.

It decides nothing about pools; what is said is `headway.snapshots`, who reads it `headway.published`. A
line from a reader asks, one line answers: an empty line or ``{"ask": "snapshot"}`` gets a snapshot,
anything else ``{"error": ...}``; both are JSON, and the reader ends it by hanging up. Nothing is looked at
unless somebody asks. A snapshot is made once for all who asked in the same turn.

Bound: one answer and one buffer of `_LONGEST` bytes for each reader: who does not read his answer is not
listened to, and holds up nobody else.

Source: own.
"""

from __future__ import annotations

import atexit
import logging
import os
import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, final

from headway import snapshots
from headway.edge import local_sockets
from headway.errors import HeadwayError

__all__ = ["Publication", "publish"]

_LONGEST: Final = 4096  # bytes of a line that asks
_ASKS: Final = (b"", b'{"ask":"snapshot"}')
_UNKNOWN: Final = b'{"error": "send an empty line, or {\\"ask\\": \\"snapshot\\"}"}\n'

_current: Publication | None = None
_changing = threading.Lock()  # held while a publication is begun or ended


def publish(name: str | None = None) -> Publication:
    """Let ``headway top`` look at this process's pools, zones, caches and budgets, also those made before.

    Only its own user can: the socket is 0600 in a 0700 folder (XDG_RUNTIME_DIR, else the folder for
    temporary files). Children made by fork publish too. It lasts until ``close()`` or the end of the
    program; publishing twice is once. `name` is what readers are shown, else the program's file name.
    ``HEADWAY_PUBLISH=1`` in the environment does the same when the first pool is made.

    Raises: UsageError if there can be no such socket; OSError if it cannot be made.
    """
    global _current
    with _changing:
        if _current is None:
            snapshots.open_roster()
            _current = Publication(name)
            _prepare_once()
        return _current


def publish_if_possible() -> None:
    """`publish`, for the environment variable: the program runs on, with a warning, if it cannot be."""
    try:
        publish()
    except (HeadwayError, OSError) as error:
        logging.getLogger("headway").warning("this process does not publish: %s", error)


@final
class Publication:
    """A process that publishes; ``close()`` ends it. Made by `publish`."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.path: Path = local_sockets.socket_path(snapshots.PURPOSE, os.getpid())
        self._listening = local_sockets.listen(snapshots.PURPOSE)
        self._listening.setblocking(False)
        self._stop, self._stopped = socket.socketpair()
        self._readers: dict[socket.socket, _Reader] = {}
        self._thread = threading.Thread(target=self._serve, name="headway-publish", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it. Closing twice is once. Waits: until an answer that is being made is made, at most 1 s."""
        global _current
        with _changing:
            if _current is not self:
                return
            _current = None
            self._stop.close()
            self.path.unlink(missing_ok=True)
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def leave(self) -> None:
        """In the child of a fork: what is the parent's is let go, and not ended."""
        for one in (self._stop, self._stopped, self._listening, *self._readers):
            one.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._stopped in ready:
                    break
                asking = []
                for one in ready:
                    if one is self._listening:
                        self._welcome(selector)
                    else:
                        assert isinstance(one, socket.socket)
                        asking += self._attend(one, selector)
                self._answer(asking, selector)
        for one in (self._stopped, self._listening, *self._readers):
            one.close()

    def _welcome(self, selector: selectors.BaseSelector) -> None:
        try:
            peer, _ = self._listening.accept()
        except OSError:
            return  # it hung up before, or there is no descriptor left: it will try again
        peer.setblocking(False)
        self._readers[peer] = _Reader(peer)
        selector.register(peer, selectors.EVENT_READ)

    def _attend(self, peer: socket.socket, selector: selectors.BaseSelector) -> list[_Reader]:
        """Carry on with one reader; itself, if it asks for a snapshot now."""
        reader = self._readers[peer]
        try:
            asks = reader.carry_on()
        except OSError:
            self._part(peer, selector)
            return []
        self._look_out(reader, selector)
        return [reader] if asks else []

    def _answer(self, asking: list[_Reader], selector: selectors.BaseSelector) -> None:
        said = _said(self.name) if asking else b""
        while asking:
            reader = asking.pop()
            try:
                if reader.answer(said):  # it has asked again already: so often it gets the same
                    asking.append(reader)
            except OSError:
                self._part(reader.peer, selector)
            else:
                self._look_out(reader, selector)

    def _look_out(self, reader: _Reader, selector: selectors.BaseSelector) -> None:
        event = selectors.EVENT_WRITE if reader.owed else selectors.EVENT_READ
        if selector.get_key(reader.peer).events != event:
            selector.modify(reader.peer, event)

    def _part(self, peer: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.unregister(peer)
        del self._readers[peer]
        peer.close()

    def __enter__(self) -> Publication:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        ended = "" if _current is self else ", ended"
        return f"<Publication {str(self.path)!r}: {len(self._readers)} readers{ended}>"


@final
class _Reader:
    """One connection. `owed` is what has been answered and not yet been sent."""

    __slots__ = ("_asked", "owed", "peer")

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.owed = b""
        self._asked = bytearray()

    def carry_on(self) -> bool:
        """Send what is owed, else hear what is asked; whether a snapshot is.

        Raises: OSError if the reader has gone, or asks for more than it may.
        """
        if not self.owed:
            heard = self.peer.recv(_LONGEST)
            if not heard:
                raise ConnectionResetError("hung up")
            self._asked += heard
        return self.answer(b"")

    def answer(self, said: bytes) -> bool:
        """Send `said` as far as it goes; whether the next line, if there is one, asks for a snapshot."""
        self.owed += said
        while True:
            if self.owed:
                try:
                    self.owed = self.owed[self.peer.send(self.owed) :]
                except BlockingIOError:
                    pass
                if self.owed:
                    return False
            line, end, rest = self._asked.partition(b"\n")
            if not end:
                if len(line) > _LONGEST:
                    raise ConnectionResetError("a line is too long")
                return False
            self._asked = rest
            if b"".join(line.split()) in _ASKS:
                return True
            self.owed = _UNKNOWN


def _said(name: str | None) -> bytes:
    import json

    try:
        said = json.dumps(snapshots.snapshot(name))
    except Exception as error:  # the thread must live: tell whoever asked
        said = json.dumps({"error": f"no snapshot: {type(error).__name__}: {error}"})
    return said.encode() + b"\n"


_prepared = False


def _prepare_once() -> None:
    global _prepared
    if not _prepared:
        _prepared = True
        atexit.register(_end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_go_on_in_child)


def _end() -> None:
    if _current is not None:
        _current.close()


def _go_on_in_child() -> None:
    """The thread stays with the parent: publish anew, on a socket of one's own."""
    global _current, _changing
    _changing = threading.Lock()
    before, _current = _current, None
    if before is not None:
        before.leave()
        try:
            publish(before.name)
        except (HeadwayError, OSError) as error:
            logging.getLogger("headway").warning("this process does not publish: %s", error)
