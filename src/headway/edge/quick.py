"""What of a device needs no wait: tried at once, by a thread that serves others meanwhile.

It decides one thing: whether a call is quick enough for that thread. Reads of a buffered file are
tried with RWF_NOWAIT, which refuses what is not in the page cache. A file system that keeps its data
in memory is always quick. A write into the page cache is quick until one takes longer than `_SLOW_S`
(the kernel throttles who makes pages dirty faster than the disk writes); then nothing is for
`_PATIENCE_S`. What is not known to be quick never is.

`read_now` and `write_now` give True if it is done, or False if it is to be done where one may wait (the
view may hold rubbish, some of the bytes may be written); they do not raise.

Source: preadv2(2) on RWF_NOWAIT.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final, final

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.device import Device, Kind
from headway.core.block.stacked import StackedDevice
from headway.edge import pagecache
from headway.edge.files import FileDevice
from headway.errors import BlockError

_SLOW_S: Final = 0.005
_PATIENCE_S: Final = 1.0
_MADE: Final = (Kind.MEMORY, Kind.ZERO, Kind.NULL)


class Quick:
    """Of a device that may always wait: nothing. Used by one thread at a time, if not said otherwise."""

    def read_now(self, view: memoryview, offset: int) -> bool:
        return False

    def write_now(self, view: memoryview, offset: int) -> bool:
        return False


@final
class QuickMade(Quick):
    """A device in memory, or of zeros: nothing about it waits. Any number of threads."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def read_now(self, view: memoryview, offset: int) -> bool:
        try:
            self._device.pread_into(view, offset)
        except BlockError:
            return False  # who may wait will meet it again, and say so
        return True

    def write_now(self, view: memoryview, offset: int) -> bool:
        try:
            self._device.pwrite(view, offset)
        except BlockError:
            return False
        return True


@final
class QuickFile(Quick):
    """A buffered file or block device. Any number of threads."""

    def __init__(self, device: FileDevice) -> None:
        self._fd = device.fd
        self._in_memory = device.kind is Kind.FILE and pagecache.in_memory(device.fd)
        nowait: int | None = getattr(os, "RWF_NOWAIT", None)
        self._flags = 0 if self._in_memory else nowait
        self._slow_until_s = 0.0

    def read_now(self, view: memoryview, offset: int) -> bool:
        if self._flags is None:
            return False
        try:
            return os.preadv(self._fd, (view,), offset, self._flags) == len(view)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                self._flags = None  # this file system cannot say: every read may wait
            return False  # not in the page cache, or a failure that will be met again

    def write_now(self, view: memoryview, offset: int) -> bool:
        if self._in_memory:
            try:
                return os.pwrite(self._fd, view, offset) == len(view)
            except OSError:
                return False
        began_s = time.monotonic()
        if began_s < self._slow_until_s:
            return False
        try:
            done = os.pwrite(self._fd, view, offset) == len(view)
        except OSError:
            return False
        ended_s = time.monotonic()
        if ended_s - began_s > _SLOW_S:
            self._slow_until_s = ended_s + _PATIENCE_S
        return done


@final
class QuickStack(Quick):
    """A stack whose devices all say what is quick: through all its layers, in a bio of its own.

    For one thread: the bio is used again and again.
    """

    def __init__(self, device: StackedDevice) -> None:
        self._bio = Bio()
        self._top_now = device.stack.top.submit_now

    def read_now(self, view: memoryview, offset: int) -> bool:
        bio = self._bio
        bio.op, bio.offset, bio.length, bio.view = READ, offset, len(view), view
        try:
            done = self._top_now(bio)
        except (BlockError, MemoryError) as error:  # of a layer's own work
            bio.error, done = error, False
        if bio.error is not None:
            bio.error = None
            return False  # who may wait will meet it again
        return done

    def write_now(self, view: memoryview, offset: int) -> bool:
        bio = self._bio
        bio.op, bio.offset, bio.length, bio.view = WRITE, offset, len(view), view
        try:
            done = self._top_now(bio)
        except (BlockError, MemoryError) as error:  # of a layer's own work
            bio.error, done = error, False
        if bio.error is not None:
            bio.error = None
            return False
        return done


def quick_of(device: Device) -> Quick:
    """What is known to be quick of a device."""
    if isinstance(device, StackedDevice):
        return QuickStack(device) if device.prompt else Quick()
    if isinstance(device, FileDevice) and device.direct_fd is None:
        return QuickFile(device)
    return QuickMade(device) if device.kind in _MADE else Quick()
