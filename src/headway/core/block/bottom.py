"""The lowest layer: a device that moves bytes, seen as a layer.

It does not decide what a device is (`device` does). With a work queue, bios are carried out by its
workers, several at once, and `submit` returns at once; without, by whoever submits, or, if that may
take long, by a task for each. `inline` says whether `submit_now` may move the bytes here and now: right
for memory, wrong where a device may take long and the caller serves others. Where only the request
tells (is it in the page cache?), `quick` tries, and says whether it did.

What a device cannot do is made up here: ZERO writes zeros unless the device has ``zero(offset, length)``
and it answers True; DISCARD is advice, and does nothing unless it has ``discard(offset, length)``; `fua`
flushes after the write.

Source: own.
"""

from __future__ import annotations

import errno
from typing import Any, Final, Protocol

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, Bio, refused, withdrawn
from headway.core.block.device import Device, Extent, Kind
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Plan, offload, spawn
from headway.errors import BlockError

_ENDLESS: Final = 1 << 62  # null: takes writes anywhere
_ZEROS: Final = memoryview(bytes(1 << 16))


class Quick(Protocol):
    """Moves bytes if that needs no wait. False: nothing was done (a view may hold rubbish)."""

    def read_now(self, view: memoryview, offset: int) -> bool: ...
    def write_now(self, view: memoryview, offset: int) -> bool: ...


class Bottom(Layer):
    """A `Device` as a layer. `limits` are the device's; None: its `grain`, or none, if it takes whatever comes.

    With `quick`, `inline` is off for everything else.
    """

    def __init__(
        self,
        device: Device,
        *,
        workers: Workqueue | None = None,
        inline: bool = True,
        quick: Quick | None = None,
        limits: Limits | None = None,
        splits: Any = None,
    ) -> None:
        self.device = device
        self.name = device.name
        endless = device.kind is Kind.NULL and device.capacity is None
        self.size = _ENDLESS if endless else device.size
        self.keeps_zeros = device.starts_zeroed
        self.discard_granularity = getattr(device, "discard_granularity", 1)
        self.stable_writes = getattr(device, "stable_writes", False)
        self.inline = inline and quick is None
        self._quick_read = None if quick is None else quick.read_now
        self._quick_write = None if quick is None else quick.write_now
        self._workers = workers
        grain = getattr(device, "grain", 1)  # what it refuses anything else than multiples of
        if limits is not None or grain > 1:
            self.limits = limits or Limits(alignment=grain)
        self.splits = splits
        self._checked = not self.limits.free
        self._read, self._write = device.pread_into, device.pwrite
        self._zero = getattr(device, "zero", None)
        self._discard = getattr(device, "discard", None)

    def submit_now(self, bio: Bio) -> bool:
        if self._checked and not self.limits.fits(bio.offset, bio.length):
            return False
        if not self.inline:
            return self._try(bio)
        if (
            bio.op is READ and 0 <= bio.offset <= self.size - bio.length
        ):  # the usual one, without a call
            try:
                self._read(bio.view, bio.offset)  # type: ignore[arg-type]  # a READ has one
            except BlockError as error:
                bio.error = error
        else:
            self._move(bio)
        return True

    def _try(self, bio: Bio) -> bool:
        move = self._quick_read if bio.op is READ else self._quick_write
        view, offset = bio.view, bio.offset
        if move is None or view is None or bio.fua or not 0 <= offset <= self.size - bio.length:
            return False
        try:
            return move(view, offset)
        except BlockError as error:
            bio.error = error
            return True

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if self._workers is not None:
            self._workers.queue(self._carry_out, bio)
        elif (
            not self.inline
        ):  # beside the submitter, who may be cancelled when bytes are being moved
            return spawn(self._carry_out(bio), self.name)
        else:
            self._move_late(bio)
            bio.complete()
        return None

    def _carry_out(self, bio: Bio) -> Plan[None]:
        """Whoever is cancelled leaves the bio to the worker: its memory is in use until that is done."""
        try:
            yield from offload(self._move_late, bio, undo=lambda done: bio.complete())
        except Exception as error:  # no worker could be started
            bio.complete(error)
        else:
            bio.complete()

    def _move_late(self, bio: Bio) -> None:
        """Where nobody is there to be told: it completes the bio if that is interrupted."""
        try:
            self._move(bio)
        except Exception as error:
            bio.error = bio.error or error
        except BaseException:
            bio.complete(withdrawn(bio, self.name))
            raise

    def _move(self, bio: Bio) -> None:
        """Move the bytes; what goes wrong is the bio's error. Waits: as long as the device does."""
        op, offset = bio.op, bio.offset
        try:
            if offset < 0 or offset + bio.length > self.size:
                raise refused(bio, self.name, f"it has {self.size} bytes", errno.EINVAL)
            if op is READ:
                assert bio.view is not None
                self._read(bio.view, offset)
            elif op is WRITE:
                assert bio.view is not None
                self._write(bio.view, offset)
                if bio.fua:
                    self.device.flush()
            elif op is FLUSH:
                self.device.flush()
            elif op is DISCARD:
                if self._discard is not None:
                    self._discard(offset, bio.length)
            elif self._zero is None or not self._zero(offset, bio.length):
                self._write_zeros(offset, bio.length)
        except BlockError as error:
            bio.error = error
        except OSError as error:
            bio.error = refused(bio, self.name, str(error), error.errno or errno.EIO)

    def _write_zeros(self, offset: int, length: int) -> None:
        while length:
            part = min(length, len(_ZEROS))
            self._write(_ZEROS[:part], offset)
            offset, length = offset + part, length - part

    def extent(self, offset: int) -> Plan[Extent]:
        return (yield from offload(self.device.extent, offset))

    def close(self) -> None:
        """The device stays open: whoever opened it closes it."""
