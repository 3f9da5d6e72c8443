"""From a device's name to the device: paths, NBD URIs, `memory:SIZE`, `zero:SIZE`, `null:[SIZE]`.

It refuses what is no device (directory, FIFO, socket, terminal) before opening it: opening a FIFO
would wait for, or disturb, whoever holds its other end. It does not make files: a copy's
destination is `headway.edge.destination`'s.

O_DIRECT is chosen for files on a disk unless most of the file is in the page cache already; it
makes a memory limit true, since page cache counts against a process's group as well.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from headway.core.block.device import Device, Kind
from headway.edge import nbd_client, nbd_uri, pagecache
from headway.edge.files import ALIGNMENT, Bounce, FileDevice
from headway.edge.granularity import granularity_of
from headway.edge.memory_devices import SCHEMES, open_made
from headway.errors import BlockError, UsageError

_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*")
_MOSTLY_CACHED = 0.5
_WORTH_DIRECT = 1 << 20  # below it the page cache costs nothing


def open_device(
    spec: str,
    *,
    writable: bool = False,
    direct: bool | None = None,
    bounce: Bounce | None = None,
    deadline_s: float = nbd_client.DEADLINE_S,
) -> Device:
    """Open a path, an NBD URI, `memory:SIZE`, `zero:SIZE` or `null:[SIZE]`; the file must exist.

    `direct` None means: O_DIRECT where it pays. `bounce` serves memory that is not aligned.
    `deadline_s` is how long a server may take for a request.
    Raises: UsageError if `spec` is no device; BlockError if it cannot be opened.
    Waits: for an NBD server, at most `deadline_s`; never on a FIFO or socket, which are refused.
    """
    made = made_device(spec, writable=writable, deadline_s=deadline_s)
    if made is not None:
        return made
    return open_path(spec, writable=writable, direct=direct, bounce=bounce)


def made_device(
    spec: str, *, writable: bool = False, deadline_s: float = nbd_client.DEADLINE_S
) -> Device | None:
    """The device of a name that is no path; None if it is a path."""
    scheme, colon, rest = spec.partition(":")
    if colon and scheme in nbd_uri.SCHEMES and rest.startswith("//"):
        return nbd_client.NbdDevice(spec, writable=writable, deadline_s=deadline_s)
    if colon and scheme in SCHEMES:
        return open_made(scheme, rest)
    if colon and rest.startswith("//") and _SCHEME.fullmatch(scheme) and not os.path.lexists(spec):
        raise UsageError(
            f"{spec}: {scheme} is not spoken here, only {', '.join(nbd_uri.SCHEMES)}: save it to a "
            "file, or let another NBD server read it (nbdkit curl) and give that one's URI"
        )
    if spec == "-":
        raise UsageError(
            "- is no device: standard input and output have no offsets; "
            "copy to or from a file (one of that name is ./-)"
        )
    if not spec or "\0" in spec:
        raise UsageError(f"{spec!r} is not a device: give a path, memory:SIZE, zero:SIZE or null:")
    return None


def refuse(path: str, mode: int) -> None:
    """Raise UsageError if what is at `path` is neither a file nor a block device."""
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory: name a file in it")
    if stat.S_ISFIFO(mode):
        raise UsageError(f"{path} is a FIFO, which has no offsets: use a file instead")
    if stat.S_ISSOCK(mode):
        raise UsageError(
            f"{path} is a socket, which has no offsets: copy to or from a file instead"
        )
    raise UsageError(
        f"{path} is a character device, which has no size: "
        "use a file, a block device, zero:SIZE or null:"
    )


def same_device(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two statuses are of the same file or block device, by whatever name."""
    if stat.S_ISBLK(one.st_mode) and stat.S_ISBLK(other.st_mode):
        return one.st_rdev == other.st_rdev
    return os.path.samestat(one, other)


def failed_to_open(path: str, what: str, error: OSError) -> BlockError:
    hint = ""
    if what == "write" and error.errno == errno.ENOENT:
        hint = f" (make it first, as large as you want it: truncate -s 1G {path})"
    text = f"cannot {what} {path}: {error.strerror or error}{hint}"
    return BlockError(error.errno or errno.EIO, text)


def open_path(
    path: str, *, writable: bool, direct: bool | None, bounce: Bounce | None = None
) -> FileDevice:
    """Open an existing file or block device; a block device for writing only if nothing uses it."""
    what = "write" if writable else "read"
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        mode = os.stat(path).st_mode
        refuse(path, mode)
        if writable and stat.S_ISBLK(mode):
            flags |= os.O_EXCL  # without O_CREAT: busy if it is mounted or part of something
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BlockError(
                errno.EBUSY, f"{path} is in use (mounted?): unmount it first"
            ) from error
        raise failed_to_open(path, what, error) from error
    try:
        found = os.fstat(fd)
        refuse(path, found.st_mode)
        return _on_descriptor(path, fd, found, flags, direct, bounce)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise failed_to_open(path, what, error) from error
        raise


def _on_descriptor(
    path: str,
    fd: int,
    found: os.stat_result,
    flags: int,
    direct: bool | None,
    bounce: Bounce | None,
) -> FileDevice:
    block = stat.S_ISBLK(found.st_mode)
    size = os.lseek(fd, 0, os.SEEK_END) if block else found.st_size
    if size == 0 and not block and os.pread(fd, 1, 0):
        raise UsageError(
            f"{path} says it has 0 bytes but can be read: the kernel makes it up as it is read, "
            "so it has no size to copy; save it to a file first"
        )
    if not block and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return FileDevice(
        fd,
        path,
        kind=Kind.BLOCK if block else Kind.FILE,
        size=size,
        capacity=size if block else None,
        direct_fd=second_descriptor(fd, flags, size, direct),
        bounce=bounce,
        discard_granularity=granularity_of(fd, found),
    )


def second_descriptor(fd: int, flags: int, size: int, direct: bool | None) -> int | None:
    """An O_DIRECT descriptor of the file behind `fd`; None where refused or not worth it."""
    if direct is False or not hasattr(os, "O_DIRECT"):
        return None
    if direct is None:
        if size < _WORTH_DIRECT or pagecache.in_memory(fd):
            return None
        share = pagecache.cached_share(fd, size)
        if share is not None and share > _MOSTLY_CACHED:
            return None
    try:
        # Through /proc it is the same file, even one without a name; O_EXCL was for the first.
        again = flags & ~(os.O_EXCL | os.O_CREAT | getattr(os, "O_TMPFILE", 0)) | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{fd}", again | os.O_DIRECT)
    except OSError:
        return None


def is_in_memory(device: Device) -> bool:
    """Whether nothing below it waits for a disk or a network."""
    if isinstance(device, FileDevice):
        return device.direct_fd is None and pagecache.in_memory(device.fd)
    return device.kind in (Kind.MEMORY, Kind.ZERO, Kind.NULL)


__all__ = [
    "ALIGNMENT",
    "is_in_memory",
    "made_device",
    "open_device",
    "open_path",
    "refuse",
    "same_device",
    "second_descriptor",
]
