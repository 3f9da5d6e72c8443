"""Tell the kernel that this thread is in the I/O path of others, and open the scope that says so here.

It decides nothing about masks: it enters the scope it is given (`noio`), so that no allocation of headway's
in here starts or waits for device I/O, and asks Linux for the same where the interpreter itself allocates.
That needs the capability CAP_SYS_RESOURCE; without it only the scope is opened, which is said plainly.

The kernel's flag belongs to a thread: threads started in here inherit it, those that run already do not.

Source: ``prctl(PR_SET_IO_FLUSHER)`` (Linux 5.6), made for FUSE, iSCSI, multipath and NBD servers.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, final

from headway.errors import UsageError

PR_SET_IO_FLUSHER = 57
PR_GET_IO_FLUSHER = 58

log = logging.getLogger("headway")


@final
class IoFlusher:
    """Open while its ``with`` block runs. `kernel` says whether Linux knows; if not, `reason` says why."""

    __slots__ = ("_required", "_scope", "_warns", "_was", "kernel", "reason")

    def __init__(
        self, scope: AbstractContextManager[Any], required: bool, *, warns: bool = True
    ) -> None:
        self._required = required
        self._warns = warns
        self._scope = scope
        self._was = 0
        self.kernel = False
        self.reason: str | None = "not entered yet"

    def __enter__(self) -> IoFlusher:
        self.reason = self._tell_kernel()
        self.kernel = self.reason is None
        if self.reason is not None:
            message = f"io_flusher: the kernel was not told: {self.reason}"
            if self._required:
                raise UsageError(message)
            if self._warns:
                log.warning("%s; allocations of headway's obey the scope all the same", message)
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, traceback)
        if self.kernel and not self._was:  # nested: the inner one leaves the outer one's flag alone
            _prctl(PR_SET_IO_FLUSHER, 0)
        self.kernel, self.reason = False, "left"

    def _tell_kernel(self) -> str | None:
        """Why it could not be done, or None."""
        if not sys.platform.startswith("linux"):
            return f"only Linux has PR_SET_IO_FLUSHER, and this is {sys.platform}"
        self._was, failed = _prctl(PR_GET_IO_FLUSHER)
        if not failed and not self._was:
            _, failed = _prctl(PR_SET_IO_FLUSHER, 1)
        if failed == errno.EPERM:
            return "it needs the capability CAP_SYS_RESOURCE; run with it, or as root of the host"
        if failed == errno.EINVAL:
            return "it needs Linux 5.6 or newer"
        return f"prctl failed: {os.strerror(failed)}" if failed else None

    def __repr__(self) -> str:
        return f"<IoFlusher {'known to the kernel' if self.kernel else self.reason}>"


def _prctl(option: int, state: int = 0) -> tuple[int, int]:
    """The answer, and the error number (0: none)."""
    import ctypes  # here: few programs need it, and it takes its time to import

    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    answer = int(libc.prctl(option, ctypes.c_ulong(state), zero, zero, zero))
    return (0, ctypes.get_errno()) if answer < 0 else (answer, 0)
