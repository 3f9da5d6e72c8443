"""A thread of a watched process that publishes: reports into a folder, answers on a socket, word of a hang.

It decides nothing. The report file changes when there is something new, so that it is there even if the
process is killed. The socket lies in a folder that only its user can enter; whoever connects gets one JSON
object. A hang is told once, when the same waits have been hopeless for `stall_s` seconds.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final, final

from headway.edge import local_sockets
from headway.errors import UsageError
from headway.watch import explain
from headway.watch.session import Session

_PURPOSE: Final = "watch"
_TICK_S: Final = 0.5


@final
class Station:
    """The publishing side of one process."""

    def __init__(self, session: Session, folder: str, stall_s: float) -> None:
        self._session = session
        self._folder = Path(folder)
        self._stall_s = stall_s
        self._hang: dict[str, Any] | None = None
        self._broken: list[str] = []
        self._written: Any = None
        self._ending = False
        self._socket: socket.socket | None = None

    def open(self) -> None:
        self._socket = self._bind()
        self._write(final=False)  # so that it is known that we were here
        threading.Thread(target=self._run, name="headway-watch", daemon=True).start()

    def reopen(self) -> None:
        """In the child of a fork: a socket and a thread of its own."""
        if self._socket is not None:
            self._socket.close()
        self._hang = self._written = None
        if "multiprocessing.util" in sys.modules:  # such a child ends without atexit
            from multiprocessing.util import Finalize

            Finalize(self, self.close, exitpriority=-1000)
        self.open()

    def close(self) -> None:
        """The program has come to its end."""
        self._ending = True
        self._write(final=True)
        if self._socket is not None:
            local_sockets.socket_path(_PURPOSE, os.getpid()).unlink(missing_ok=True)
            self._socket.close()

    def _bind(self) -> socket.socket | None:
        try:
            return local_sockets.listen(_PURPOSE)
        except (OSError, UsageError) as error:
            sys.stderr.write(f"headway: no --attach to this process: {error}\n")
            return None

    def _run(self) -> None:
        tick_s = min(_TICK_S, self._stall_s / 2)
        while not self._ending:
            try:
                if self._socket is not None and select.select([self._socket], [], [], tick_s)[0]:
                    self._answer()
                elif self._socket is None:
                    select.select([], [], [], tick_s)
                self._look()
            except (OSError, ValueError):  # closed under us: the end
                return

    def _answer(self) -> None:
        assert self._socket is not None
        peer, _ = self._socket.accept()
        with peer:
            peer.settimeout(5)
            found = explain.snapshot(self._session.ledger)
            found["risks"] = [finding.json() for finding in self._session.findings()]
            peer.sendall(json.dumps(found).encode())

    def _look(self) -> None:
        found = explain.hang(self._session.ledger, self._stall_s)
        if found is not None and self._hang is None:
            self._hang = found
            sys.stderr.write(explain.text(found) + "\n")
            sys.stderr.flush()
        if found is not None and self._session.options.breaks:
            self._break()
        ledger = self._session.ledger
        if self._broken and self._hang is not None:
            self._hang["went_on"] = found is None
        told = self._hang
        seen = (
            ledger.graph.version,
            told is not None,
            len(self._broken),
            told and told.get("went_on"),
        )
        if seen != self._written:
            self._written = seen
            self._write(final=False)

    def _break(self) -> None:
        if self._hang is not None:
            self._hang["broken"] = self._broken  # first: who reads a line may end the program
            self._hang["went_on"] = False
        for line in self._session.end_youngest(self._stall_s):
            if line not in self._broken:
                self._broken.append(line)
                sys.stderr.write(f"  {line}\n")
                sys.stderr.flush()

    def _write(self, *, final: bool) -> None:
        report = self._session.report(final=final)
        if self._broken and self._hang is not None:
            self._hang["went_on"] = report["hang"] is None
        report["hang"] = self._hang or report["hang"] if not final else self._hang
        report["ended"] = final
        report["model"] = self._session.model()
        path = self._folder / f"{os.getpid()}.json"
        fresh = path.with_suffix(f".{threading.get_ident()}")
        try:
            fresh.write_text(json.dumps(report), encoding="utf-8")
            fresh.replace(path)
        except OSError:
            pass  # whoever started us has gone, and its folder too


def attach(pid: int) -> dict[str, Any]:
    """What a watched process says of itself now.

    Raises: UsageError if it is not watched. Waits: at most 10 s for an answer.
    """
    try:
        peer = local_sockets.connect(_PURPOSE, pid, 10)
    except OSError as error:
        raise UsageError(_why_not(pid, error)) from error
    with peer:
        parts = []
        while part := peer.recv(65536):
            parts.append(part)
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found


def _why_not(pid: int, error: OSError) -> str:
    start = "start it with headway watch -- COMMAND"
    if not local_sockets.is_there(pid):
        return f"there is no process {pid}: give the PID of a running one; {start}"
    return f"process {pid} does not listen ({error.strerror}): {start}"
