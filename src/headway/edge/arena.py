"""Where the bytes of a zone are: one private anonymous mapping, present from the start.

It does not decide who gets which bytes (`headway.core.mm.zone` does). It maps, asks for huge pages
and looks whether it got them, touches every page, locks them if told to, and cuts views.

Every page is touched when the arena is made, so that memory that is not there is missed then, as
`NoMemory`, and no page of it is faulted in later. (Two things the kernel may still do: swap the
arena out, unless it is locked; and copy its pages after a fork, until the child is gone or has
called exec.) The bytes start at a multiple of 2 MiB if they have as much, else of a page: every run
of pages is aligned well enough for O_DIRECT.

Where a system lacks a call (``MADV_*``, ``mlock``, ``/proc``), the arena works without it, and its
numbers say so: `huge_bytes` is 0 if nobody can tell.

Source: mmap(2), madvise(2), mlock(2), proc_pid_smaps(5); Linux
``Documentation/admin-guide/mm/transhuge.rst``.
"""

from __future__ import annotations

import errno
import mmap
import sys
from typing import Final, final

from headway.core.units import format_size
from headway.errors import NoMemory, PoolBusy, UsageError

PAGE_BYTES: Final = mmap.PAGESIZE
HUGE_BYTES: Final = 2 << 20
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE (Linux 5.14); `mmap` has no name for it


@final
class Arena:
    """`size_bytes` of memory, a whole number of pages, touched and (`locked`) held in memory.

    Raises: UsageError if the size is no whole number of pages; NoMemory if it cannot be mapped,
    touched or locked.
    """

    __slots__ = (
        "_map", "_skip", "_whole", "address", "huge_asked", "huge_bytes", "locked", "size_bytes",
    )  # fmt: skip

    def __init__(self, size_bytes: int, *, huge: bool = True, lock: bool = False) -> None:
        if size_bytes < PAGE_BYTES or size_bytes % PAGE_BYTES:
            raise UsageError(
                f"arena of {size_bytes} bytes: it must be a positive multiple of {PAGE_BYTES}"
            )
        self.size_bytes = size_bytes
        # Mapped larger by what aligning may cost; what lies outside is never touched, and so costs
        # addresses only.
        slack = HUGE_BYTES if size_bytes >= HUGE_BYTES else 0
        self._map = _map(size_bytes + slack)
        start = _address(self._map)
        skip = self._skip = -start % HUGE_BYTES if slack else 0
        self.address = start + skip
        self._whole = self._cut_whole()
        self.locked = False
        try:
            self.huge_asked = huge and self._ask_huge()
            self._touch()
            if lock:
                _lock(self.address, size_bytes)
                self.locked = True
            self.huge_bytes = self.look_huge() if self.huge_asked else 0
        except BaseException:
            self.close()
            raise

    def view(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes `offset` to `offset + size_bytes`. Shape: writable, contiguous, format 'B'."""
        assert 0 <= offset and offset + size_bytes <= self.size_bytes, "outside the arena"
        return self._whole[offset : offset + size_bytes]

    def release(self, offset: int, size_bytes: int) -> bool:
        """Give these pages to the system; they stay mapped, and read as zeros when next touched.

        False where that cannot be done: locked memory, or a system without ``MADV_DONTNEED``.
        """
        return not self.locked and self._advise(
            getattr(mmap, "MADV_DONTNEED", None), offset, size_bytes
        )

    def restore(self, offset: int, size_bytes: int) -> bool:
        """Make released pages present again; False if the system does not have them."""
        if sys.platform != "linux":
            return True
        if self._advise(_POPULATE_WRITE, offset, size_bytes):
            return True
        if not self._can_populate():
            self._whole[offset : offset + size_bytes : PAGE_BYTES] = bytes(size_bytes // PAGE_BYTES)
            return True
        return False

    def _advise(self, advice: int | None, offset: int, size_bytes: int) -> bool:
        if advice is None:
            return False
        try:
            self._map.madvise(advice, self._skip + offset, size_bytes)
        except (OSError, ValueError):
            return False
        return True

    def _can_populate(self) -> bool:
        """Whether this kernel knows the call at all (Linux 5.14): tried on nothing but one page."""
        try:
            self._map.madvise(_POPULATE_WRITE, self._skip, PAGE_BYTES)
        except OSError as error:
            return error.errno != errno.EINVAL
        return True

    def look_huge(self) -> int:
        """How many bytes of it are on huge pages at this moment, as the kernel tells; else 0."""
        try:
            with open("/proc/self/smaps", "rb") as smaps:
                found = _anon_huge(smaps.read(), self.address, self.address + self.size_bytes)
        except OSError:
            return 0
        return min(found, self.size_bytes)

    def close(self) -> None:
        """Give the memory back to the system.

        Raises: PoolBusy if somebody still uses a view of it (the arena stays as it was).
        """
        self._whole.release()
        try:
            self._map.close()
        except BufferError:
            self._whole = self._cut_whole()
            raise PoolBusy(
                f"arena of {format_size(self.size_bytes)} closed while views of it are in use; "
                "release them first (del the arrays made from them)",
                pool="arena",
                count=1,
            ) from None

    def _ask_huge(self) -> bool:
        """Ask for huge pages where whole ones fit, and for none beside: they reach outside."""
        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        length = self.size_bytes // HUGE_BYTES * HUGE_BYTES
        if advice is None or not length:
            return False
        try:
            self._map.madvise(advice, self._skip, length)
        except OSError:
            return False  # a kernel without them
        rest = len(self._map) - self._skip - length
        if rest:
            self._map.madvise(mmap.MADV_NOHUGEPAGE, self._skip + length, rest)
        return True

    def _touch(self) -> None:
        """Make every page present and writable now."""
        if sys.platform == "linux":
            try:
                self._map.madvise(_POPULATE_WRITE, self._skip, self.size_bytes)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:  # which an older kernel says
                    raise NoMemory(
                        f"arena of {format_size(self.size_bytes)} mapped, but its pages are not to "
                        f"be had: {error}; make it smaller or raise the limit"
                    ) from None
        self._whole[::PAGE_BYTES] = bytes(self.size_bytes // PAGE_BYTES)

    def _cut_whole(self) -> memoryview:
        with memoryview(self._map) as everything:
            return everything[self._skip : self._skip + self.size_bytes]

    def __repr__(self) -> str:
        return (
            f"<Arena {format_size(self.size_bytes)}, {format_size(self.huge_bytes)} on huge pages, "
            f"{'locked' if self.locked else 'not locked'}>"
        )


def _map(size_bytes: int) -> mmap.mmap:
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size_bytes)
        # Shared memory, Python's default, would come from tmpfs, which has rules of its own.
        return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise NoMemory(f"arena of {format_size(size_bytes)} cannot be mapped: {error}") from None


def _address(mapping: mmap.mmap) -> int:
    import ctypes  # here: not every build has it, and importing this module must not need it

    first = ctypes.c_char.from_buffer(mapping)
    try:
        return ctypes.addressof(first)
    finally:
        del first  # the mapping cannot be closed while this exports it


def _lock(address: int, size_bytes: int) -> None:
    """Hold the pages in memory. Raises: NoMemory, naming the limit, if the system refuses."""
    import ctypes

    what = f"locking an arena of {format_size(size_bytes)}"
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        refused = libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes))
    except (AttributeError, OSError, TypeError):
        raise UsageError(f"{what}: this system has no mlock; use lock=False") from None
    if refused:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        allowed = "unlimited" if limit == resource.RLIM_INFINITY else format_size(limit)
        raise NoMemory(
            f"{what}: {errno.errorcode.get(ctypes.get_errno(), 'refused')}; RLIMIT_MEMLOCK is "
            f"{allowed} for all that this process locks; raise it (ulimit -l), or use lock=False"
        )


def _anon_huge(smaps: bytes, start: int, end: int) -> int:
    """Sum of AnonHugePages over the mappings that overlap start..end. Units: bytes."""
    total, inside = 0, False
    for line in smaps.splitlines():
        field, _, rest = line.partition(b" ")
        if not field.endswith(b":"):
            low, _, high = field.partition(b"-")
            inside = int(low, 16) < end and int(high, 16) > start
        elif inside and field == b"AnonHugePages:":
            total += int(rest.split()[0]) * 1024
    return total
