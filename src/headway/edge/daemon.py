"""What a daemon in the I/O path asks of Linux, and a self-test that says what it got.

Four protections: the kernel does not start I/O for this process's memory (`headway.edge.process`), its
pages stay in memory, the OOM killer looks elsewhere first, and buffers that were touched once need no
page again. Each needs a right that may be missing; then the daemon runs without it and says so, with what
would help. What holds is read back from the kernel, not believed.

From then on (`settled`) what is allocated is counted: page faults, which are pages the kernel had to find
for us, and the interpreter's own blocks, which no limit of headway's bounds.

Source: prctl(2), mlockall(2), proc_pid_status(5), proc_pid_oom_score_adj(5), getrusage(2).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from headway.edge.process import IoFlusher
from headway.errors import UsageError

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_CAP_IPC_LOCK: Final = 14
_OOM_SCORE: Final = "/proc/self/oom_score_adj"
_STACK: Final = 512 << 10
_LEAST_SCORE: Final = -1000  # never chosen


@final
@dataclass(frozen=True, slots=True)
class Protection:
    """One protection, as the self-test found it; `detail` says what was found, or what would help."""

    name: str
    holds: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {'holds' if self.holds else 'does not hold'} ({self.detail})"


@final
@dataclass(frozen=True, slots=True)
class Steady:
    """What was allocated since the daemon had settled. All are counts; blocks may be fewer than before.

    `minor_faults`: pages mapped that were in memory; `major_faults`: pages read from a disk.
    """

    minor_faults: int
    major_faults: int
    python_blocks: int

    def __str__(self) -> str:
        return (
            f"{self.minor_faults} minor and {self.major_faults} major page faults, "
            f"{self.python_blocks:+d} blocks of the interpreter's"
        )


@final
class DaemonMode:
    """Open while its ``with`` block runs: enter it before threads are started, as they inherit it.

    Call `settle` when everything is mapped and started. Raises: UsageError where there is no Linux.
    """

    __slots__ = ("_began", "_flusher", "_locked", "_score", "_stack_bytes")

    def __init__(self, flusher: IoFlusher) -> None:
        if not sys.platform.startswith("linux"):
            raise UsageError(f"daemon mode needs Linux, and this is {sys.platform}: leave it out")
        self._flusher = flusher
        self._score: int | None = None  # as it was
        self._stack_bytes = 0  # as it was
        self._locked = False
        self._began = (0, 0, 0)

    def __enter__(self) -> DaemonMode:
        self._flusher.__enter__()
        self._stack_bytes = threading.stack_size(_STACK)  # a locked stack is there in full
        self._score = _read_score()
        _write_score(_LEAST_SCORE)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._locked:
            ctypes.CDLL(None).munlockall()
            self._locked = False
        threading.stack_size(self._stack_bytes)
        if self._score is not None:
            _write_score(self._score)
        self._flusher.__exit__(None, None, None)

    def settle(self, touch: Callable[[], object]) -> list[Protection]:
        """Lock what is mapped, and test what holds; `touch` goes over all buffers again."""
        failed = _lock_all()
        self._locked = failed is None
        found = [self._flushing(), _locking(failed), _scoring(), _touching(touch)]
        self._began = _counts()
        return found

    def steady(self) -> Steady:
        """What was allocated since `settle`."""
        now = _counts()
        return Steady(*(after - before for after, before in zip(now, self._began, strict=True)))

    def _flushing(self) -> Protection:
        return Protection(
            "no I/O for its memory",
            self._flusher.kernel,
            self._flusher.reason or "PR_SET_IO_FLUSHER is set, for every thread",
        )


def _locking(failed: str | None) -> Protection:
    holds = failed is None and _status("VmLck") > 0
    found = f"{_status('VmRSS') >> 20} MiB in memory, and they stay there"
    return Protection("memory locked", holds, failed or found)


def _scoring() -> Protection:
    score = _read_score()
    holds = score is not None and score <= _LEAST_SCORE
    detail = f"oom_score_adj is {score}"
    if not holds:
        detail += f"; {_LEAST_SCORE} needs the capability CAP_SYS_RESOURCE, or OOMScoreAdjust= in the unit"
    return Protection("spared by the OOM killer", holds, detail)


def _touching(touch: Callable[[], object]) -> Protection:
    touch()  # the looking itself needs some memory the first time
    before = _counts()
    touch()
    after = _counts()
    faults = after[0] - before[0] + after[1] - before[1]
    detail = f"{faults} page faults when all were touched again"
    return Protection("buffers in memory", not faults, detail)


def _lock_all() -> str | None:
    """Lock what is mapped, and what will be if no limit can make that fail; why not, or None."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = limit == resource.RLIM_INFINITY or _may_lock()
    flags = _MCL_CURRENT | (_MCL_FUTURE if unlimited else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(ctypes.c_int(flags)) == 0:
        return None
    why = os.strerror(ctypes.get_errno())
    shown = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 10} KiB"
    return f"mlockall: {why}, the limit is {shown}; raise it (ulimit -l, LimitMEMLOCK=infinity)"


def _may_lock() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    except (OSError, ValueError):
        pass
    return False


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status; 0 if it is not known."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return 0


def _read_score() -> int | None:
    try:
        with open(_OOM_SCORE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _write_score(score: int) -> None:
    """Try to; `_scoring` looks whether it worked."""
    try:
        with open(_OOM_SCORE, "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        pass


def _counts() -> tuple[int, int, int]:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt, sys.getallocatedblocks()
