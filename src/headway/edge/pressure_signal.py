"""Be told that memory is short: by systemd, by the kernel's stall triggers, or by looking now and then.

It decides nothing: it says *now* (`wait` gives True), and whoever asked decides what to give back. Three
ways, the first that works:

- *systemd*: ``MEMORY_PRESSURE_WATCH`` names a socket, a FIFO or a file, ``MEMORY_PRESSURE_WRITE`` has what
  is to be written to it first; a socket and a FIFO tell by having bytes to read, a file by POLLPRI.
  ``/dev/null`` means that nobody wants us to watch.
- *trigger*: so much stall in a window is written to a PSI file of the kernel, which then tells by POLLPRI.
- *polling*: where a trigger is refused (old kernels, containers, a file that is only data), the file's
  sum of stalls is compared with what it was; where there is no such file, only time passes.

Bound: one descriptor, and a pipe to end a wait; a wait ends with its timeout.

Source: systemd, "Memory Pressure Handling in systemd"; Linux ``Documentation/accounting/psi.rst``.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import socket
import stat
from collections.abc import Mapping
from typing import Final, final

from headway.edge.pressure import pressure_files, stalled_us
from headway.errors import UsageError

STALL_MS: Final = (
    200  # systemd's own default: a tenth of a window of two seconds, which needs no privilege
)
WINDOW_MS: Final = 2000
_DRAIN_BYTES: Final = 65536


@final
class PressureSignal:
    """Tells when memory is short. `how` says which way it found: systemd, trigger, polling, or off.

    `stall_ms` in `window_ms` is what counts as short, where it is ours to say. `environ` and `root` are
    where to look. One thread waits at a time; any thread may `stop` it.

    Raises: UsageError if systemd's variables cannot be understood, or name nothing that can be opened.
    """

    __slots__ = (
        "_events", "_fd", "_file", "_last", "_pipe", "_socket", "_stall_us", "closed", "how", "stopped",
    )  # fmt: skip

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] = "/",
        environ: Mapping[str, str] | None = None,
        stall_ms: int = STALL_MS,
        window_ms: int = WINDOW_MS,
    ) -> None:
        if not 0 < stall_ms <= window_ms:
            raise UsageError(
                f"pressure signal: a stall of {stall_ms} ms in a window of {window_ms} ms; the stall "
                "must be more than 0, and no more than the window"
            )
        environ = os.environ if environ is None else environ
        self._fd = -1
        self._events = 0
        self._socket: socket.socket | None = None
        self._file: str | None = None  # where stalls are read, if nobody tells them
        self._stall_us = stall_ms * 1000
        self.closed = self.stopped = False
        watch = environ.get("MEMORY_PRESSURE_WATCH")
        if watch:
            self.how = self._obey(watch, environ.get("MEMORY_PRESSURE_WRITE", ""))
        else:
            self.how = self._find(root, f"some {stall_ms * 1000} {window_ms * 1000}\0".encode())
        self._last: int | None = None if self._file is None else stalled_us(self._file)
        self._pipe = os.pipe()

    def wait(self, timeout_s: float) -> bool:
        """Until memory is short (True), `timeout_s` is over, or `stop` was called (False)."""
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        if self._fd >= 0:
            poll.register(self._fd, self._events)
        ready = dict(poll.poll(timeout_s * 1000))
        if self.stopped:
            return False
        if self._fd >= 0 and self._fd in ready:
            return self._heard(ready[self._fd])
        return self._stalled()

    def stop(self) -> None:
        """End the wait under way, and all later ones. From any thread."""
        self.stopped = True
        os.write(self._pipe[1], b"x")

    def close(self) -> None:
        """Let go of the descriptors; closing twice is once. Nobody may be waiting."""
        if self.closed:
            return
        self.closed = self.stopped = True
        self._let_go()
        for end in self._pipe:
            os.close(end)

    # -- finding a way -----------------------------------------------------------------------------

    def _obey(self, watch: str, write: str) -> str:
        """systemd's protocol."""
        if watch == "/dev/null":
            return "off"
        try:
            data = base64.b64decode(write, validate=True)
        except binascii.Error:
            raise UsageError(
                f"MEMORY_PRESSURE_WRITE={write!r} is not base64; unset it, or let systemd set it"
            ) from None
        try:
            mode = os.stat(watch).st_mode
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.connect(watch)
                self._socket.sendall(data)
                self._socket.setblocking(False)
                self._fd = self._socket.fileno()
            else:
                self._fd = os.open(watch, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                if data:
                    os.write(self._fd, data)
        except OSError as error:
            self._let_go()
            raise UsageError(
                f"MEMORY_PRESSURE_WATCH={watch} cannot be watched: {error}; unset it, or name what is there"
            ) from None
        self._events = select.POLLPRI if stat.S_ISREG(mode) else select.POLLIN
        return "systemd"

    def _find(self, root: str | os.PathLike[str], trigger: bytes) -> str:
        for path in pressure_files(root):
            if stalled_us(path) is None:
                continue
            if self._file is None:
                self._file = path  # the nearest that can be read
            if self._arm(path, trigger):
                self._file = None
                return "trigger"
        return "polling"

    def _arm(self, path: str, trigger: bytes) -> bool:
        """Have the kernel tell; False if it refuses, or the file is only data."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(
                fd
            ).st_size:  # the kernel's own have no size; never write into another's data
                raise OSError
            os.write(fd, trigger)
        except OSError:
            os.close(fd)
            return False
        self._fd, self._events = fd, select.POLLPRI
        return True

    # -- hearing -----------------------------------------------------------------------------------

    def _heard(self, events: int) -> bool:
        """Something is there on the descriptor: news, or the end of whoever told us."""
        if events & select.POLLPRI and not events & select.POLLERR:
            return True
        news = b""
        if events & select.POLLIN:
            try:
                news = os.read(self._fd, _DRAIN_BYTES)
            except OSError:
                pass
        if news:
            return True
        self._let_go()  # it will never tell again, and would be ready for ever
        self.how = "polling"
        return False

    def _stalled(self) -> bool:
        """Polling: whether the sum of stalls has grown by what counts as short since the last look."""
        if self._file is None:
            return False
        last, found = self._last, stalled_us(self._file)
        self._last = found
        return last is not None and found is not None and found - last >= self._stall_us

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._socket, self._fd = None, -1

    def __enter__(self) -> PressureSignal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PressureSignal by {self.how}{', closed' if self.closed else ''}>"
