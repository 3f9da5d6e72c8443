"""What the page cache holds of a file, and how it is told to write behind.

It decides nothing: `headway.edge.files` asks it once per open file and once per window of writes.
Every call is advice: where the platform has no such call, or refuses it, the answer is None or
nothing happens, and the copy is as right as before.

Source: cachestat(2), sync_file_range(2), fallocate(2), ioctl_ficlone(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

_CACHESTAT = 451  # the same number on every architecture
_SYNC_WAIT_BEFORE, _SYNC_WRITE, _SYNC_WAIT_AFTER = 1, 2, 4
_FICLONE = 0x40049409
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


@functools.cache
def _libc() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None


def cached_share(fd: int, size: int) -> float | None:
    """How much of the file's first `size` bytes is in the page cache, 0 to 1; None if unknown."""
    libc = _libc()
    if libc is None or not hasattr(libc, "syscall") or size <= 0:
        return None
    wanted = (ctypes.c_uint64 * 2)(0, size)
    found = (ctypes.c_uint64 * 5)()
    if libc.syscall(ctypes.c_long(_CACHESTAT), fd, wanted, found, 0) != 0:
        return None
    pages = -(-size // os.sysconf("SC_PAGE_SIZE"))
    return float(found[0]) / pages


def write_behind(fd: int, offset: int, length: int, *, wait: bool) -> None:
    """Start writing a range back; with `wait`, return when that is done. Units: bytes."""
    call = getattr(_libc(), "sync_file_range", None)
    if call is None:
        return
    flags = _SYNC_WAIT_BEFORE | _SYNC_WRITE | _SYNC_WAIT_AFTER if wait else _SYNC_WRITE
    call(fd, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(flags))


def clone(source_fd: int, target_fd: int, size: int) -> bool:
    """Share the source's first `size` bytes with the target (a reflink); False if it cannot be."""
    try:
        import fcntl

        fcntl.ioctl(target_fd, _FICLONE, source_fd)
        os.ftruncate(target_fd, size)  # the source may have grown since it was opened
    except (ImportError, OSError):
        return False
    return True


def in_memory(fd: int) -> bool:
    """True if the file's file system keeps its data in memory: O_DIRECT is useless there."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split(" ", 3)[2] == wanted:
                    return rest.split(" ", 1)[0] in _IN_MEMORY
    except OSError:
        pass
    return False


def punch(fd: int, offset: int, length: int) -> bool:
    """Make a range a hole, which reads as zeros; False if it cannot be. The size stays."""
    return _allocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)


def zero_range(fd: int, offset: int, length: int) -> bool:
    """Make a range read as zeros, with room kept for it; False if it cannot be. The size stays."""
    return _allocate(fd, _ZERO_RANGE | _KEEP_SIZE, offset, length)


def _allocate(fd: int, mode: int, offset: int, length: int) -> bool:
    call = getattr(_libc(), "fallocate64", None) or getattr(_libc(), "fallocate", None)
    if call is None:
        return False
    return bool(call(fd, ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length)) == 0)
