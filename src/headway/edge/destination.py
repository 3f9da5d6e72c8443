"""Where a copy goes: a file that appears only when complete, or a device written in place.

It moves no data. A file is written without a name (O_TMPFILE) in the directory of its destination,
or under a hidden temporary name where that is not possible; `commit` syncs it, gives it its mode
and its name in one step, and syncs the directory; `discard` leaves nothing. The old destination is
whole until the new one takes its name, whatever happens to this process in between.

An old destination's mode, owner and extended attributes pass to the new file as far as this process
may; a new one follows the umask. A symlink stays, and what it points to is replaced. A block device
is written in place. Hard links of the old destination keep the old contents.

Source: open(2) O_TMPFILE, linkat(2); rename(2)'s atomic replacement; the order file, name,
directory.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from headway.core.block.device import Device, Kind
from headway.edge.files import FileDevice
from headway.edge.opening import (
    failed_to_open,
    made_device,
    open_path,
    refuse,
    same_device,
    second_descriptor,
)
from headway.edge.pagecache import in_memory
from headway.errors import BlockError, UsageError

_DESCRIPTORS = re.compile(r"/proc/[^/]+(/task/[^/]+)?/fd")


class Destination(Protocol):
    """What a copy writes to. Exactly one of `commit` and `discard` ends it."""

    @property
    def device(self) -> Device: ...

    def commit(self, preserve: os.stat_result | None) -> None:
        """Make the copy durable and visible, with the mode and times of `preserve` if given."""

    def discard(self) -> None:
        """Forget the copy, as far as it can be forgotten."""


class InPlace:
    """A block device or a made one: what is written is there at once."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def commit(self, preserve: os.stat_result | None) -> None:
        self.device.flush()
        self.device.close()

    def discard(self) -> None:
        self.device.close()


class NewFile:
    """A file written beside `path`, which it replaces on `commit`."""

    device: FileDevice

    def __init__(self, path: str, shown: str, size: int, direct: bool | None) -> None:
        self._path = path  # with symlinks followed
        self._shown = shown  # as the user wrote it
        self._temporary: str | None = None  # set before the name exists, cleared after it is gone
        self._directory = os.path.dirname(path) or "."
        self._old = _stat_old(path, shown)
        self._directory_fd = -1
        fd = -1
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0)
            self._directory_fd = os.open(self._directory, flags)
            fd, flags = self._create()
            self._mode = stat.S_IMODE(os.fstat(fd).st_mode)  # 0666 less the umask
            os.fchmod(fd, 0o600)  # nobody else reads it before it is complete
            os.ftruncate(fd, size)
        except BaseException as error:
            if fd >= 0:
                os.close(fd)
            self._forget()
            if isinstance(error, OSError):
                raise failed_to_open(f"{shown} (a new file beside it)", "create", error) from error
            raise
        direct_fd = second_descriptor(fd, flags, size, direct)
        self.device = FileDevice(
            fd,
            shown,
            size=size,
            direct_fd=direct_fd,
            starts_zeroed=True,
            write_behind=direct_fd is None and not in_memory(fd),
        )

    def commit(self, preserve: os.stat_result | None) -> None:
        fd = self.device.fd
        try:
            self._dress(fd, preserve)
        except OSError as error:
            raise _failed(self._shown, "set the mode of", error) from error
        self.device.flush()
        try:
            self._take_name(fd)
        except OSError as error:
            raise _failed(self._shown, "give the finished copy the name", error) from error
        try:
            os.fsync(self._directory_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a directory that cannot be synced at all
                raise BlockError(
                    error.errno or errno.EIO,
                    f"{self._shown} is complete, but sync of its directory failed: "
                    f"{error.strerror}",
                ) from error
        self.device.close()
        self._forget()

    def discard(self) -> None:
        self.device.close()
        self._forget()

    def _create(self) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_CLOEXEC
        if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
            try:
                return os.open(self._directory, flags | os.O_TMPFILE, 0o666), flags
            except OSError as error:
                # EISDIR, ENOTSUP: this file system, or kernel, has no files without a name
                if error.errno not in (errno.EISDIR, errno.EOPNOTSUPP, errno.ENOENT):
                    raise
        self._temporary = _temporary_name()
        flags |= os.O_CREAT | os.O_EXCL
        return os.open(self._temporary, flags, 0o666, dir_fd=self._directory_fd), flags

    def _dress(self, fd: int, preserve: os.stat_result | None) -> None:
        """Give it the old file's owner, attributes and mode, or the source's mode and times."""
        mode = self._mode
        old = self._old
        if old is not None:
            mode = stat.S_IMODE(old.st_mode)
            if not _take_owner(fd, old):
                mode &= 0o777  # set-id bits mean the owner they were set for
            _take_attributes(fd, self._path)
        if preserve is not None:
            mode = stat.S_IMODE(preserve.st_mode)
            mine = os.fstat(fd)
            if (mine.st_uid, mine.st_gid) != (preserve.st_uid, preserve.st_gid):
                mode &= 0o777
        os.fchmod(fd, mode)
        if preserve is not None:
            os.utime(fd, ns=(preserve.st_atime_ns, preserve.st_mtime_ns))

    def _take_name(self, fd: int) -> None:
        name = os.path.basename(self._path)
        where = self._directory_fd
        if self._temporary is None:
            if self._old is None and self._link(fd, name):
                return
            temporary = _temporary_name()
            self._temporary = temporary
            if not self._link(fd, temporary):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(self._temporary, name, src_dir_fd=where, dst_dir_fd=where)
        self._temporary = None

    def _link(self, fd: int, name: str) -> bool:
        """Name the nameless file; False if the name is taken."""
        where = self._directory_fd
        try:
            # With directory descriptors this is linkat(AT_SYMLINK_FOLLOW), by /proc to the file.
            os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=where, dst_dir_fd=where)
        except FileExistsError:
            return False
        return True

    def _forget(self) -> None:
        temporary, directory_fd = self._temporary, self._directory_fd
        if directory_fd < 0:
            return
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory_fd)
        self._temporary = None
        self._directory_fd = -1
        os.close(directory_fd)


def open_destination(
    spec: str, *, size: int, apart: Sequence[os.stat_result] = (), direct: bool | None = None
) -> Destination:
    """Open `spec` for a copy of `size` bytes from files with the status of those in `apart`.

    Raises: UsageError if `spec` is no place for a copy, is one of `apart`, or is too small;
    BlockError if it cannot be opened. Waits: never.
    """
    made = made_device(spec, writable=True)
    if made is not None:
        if made.kind is Kind.ZERO:
            raise UsageError(f"{spec} cannot be written: use null: to forget what is copied")
        return InPlace(_large_enough(made, size))
    _refuse_descriptor(spec)
    path = os.path.realpath(spec)
    try:
        found: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise failed_to_open(spec, "write", error) from error
    if found is not None:
        refuse(spec, found.st_mode)
        if any(same_device(found, one) for one in apart):
            raise UsageError(
                f"{spec} is the source, or what the source is made of: a copy would destroy it"
            )
        if stat.S_ISBLK(found.st_mode):
            return InPlace(_large_enough(open_path(spec, writable=True, direct=direct), size))
    elif spec.endswith("/"):
        raise UsageError(f"{spec} names a directory that does not exist: name a file")
    return NewFile(path, spec, size, direct)


def _refuse_descriptor(spec: str) -> None:
    """A name like /dev/stdout stands for what is open: a new file would take the place of that, unseen."""
    link, most = spec, 40  # as many links as the kernel follows
    while os.path.islink(link) and most:
        where = os.path.realpath(os.path.dirname(link) or ".")
        if _DESCRIPTORS.fullmatch(where):
            raise UsageError(
                f"{spec} is an open descriptor, which a new file cannot take the place of: name a file"
            )
        link, most = os.path.join(where, os.readlink(link)), most - 1


def _large_enough(device: Device, size: int) -> Device:
    capacity = device.capacity
    if capacity is None or size <= capacity:
        return device
    device.close()
    raise UsageError(
        f"{device.name} holds {capacity} bytes, and the source has {size}: nothing was written"
    )


def _stat_old(path: str, shown: str) -> os.stat_result | None:
    """The status of what will be replaced; refused if this process could not have written it."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return None
    effective = os.access in os.supports_effective_ids
    if not os.access(path, os.W_OK, effective_ids=effective):
        raise BlockError(errno.EACCES, f"cannot write {shown}: {os.strerror(errno.EACCES)}")
    return old


def _take_owner(fd: int, old: os.stat_result) -> bool:
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) == (old.st_uid, old.st_gid):
        return True
    try:
        os.fchown(fd, old.st_uid, old.st_gid)
    except OSError:
        return False
    return True


def _take_attributes(fd: int, path: str) -> None:
    """Access lists, labels and user attributes, as far as they may be set."""
    if not hasattr(os, "listxattr"):
        return
    with suppress(OSError):
        for name in os.listxattr(path):
            with suppress(OSError):
                os.setxattr(fd, name, os.getxattr(path, name))


def _temporary_name() -> str:
    return f".headway-{os.urandom(8).hex()}.part"


def _failed(shown: str, what: str, error: OSError) -> BlockError:
    return BlockError(
        error.errno or errno.EIO,
        f"cannot {what} {shown}: {error.strerror or error}; it is as it was before",
    )
