"""The face for devices: opened by name, alone or with layers on them.

It decides nothing about requests: it opens, gives what a layer needs to the stack, and sees that no device is
in it twice. `headway.aio` has no twin: what waits on a device runs in a worker there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from headway.core.block.bottom import Bottom
from headway.core.block.device import Device
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.core.block.stacked import StackedDevice
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Runtime
from headway.edge import opening
from headway.edge.crypto import Crypto
from headway.edge.quick import quick_of
from headway.errors import UsageError
from headway.roster import ROSTER
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS
from headway.threaded import Mempool, Zone

_STEADY = 256 << 10  # bytes of a buffer that writes are copied into, where they must not change
_STEADY_PART = 16  # of the memory, where that is small: there are two such buffers


def open_device(
    spec: str, *, writable: bool = False, direct: bool | None = None, deadline_s: float = 30.0
) -> Device:
    """Open a path, an NBD URI, `memory:SIZE`, `zero:SIZE` or `null:[SIZE]`; a file must exist.

    `direct` None means O_DIRECT where it pays; memory or offsets that are not aligned for it go
    through a bounce buffer from a pool of the device's own, made when first needed. `deadline_s` is
    how long an NBD server may take for each request.

    >>> device = open_device("memory:64KiB", writable=True)
    >>> device.size
    65536

    Raises: UsageError if `spec` is no device; BlockError if it cannot be opened.
    Waits: for an NBD server, at most `deadline_s`; never on a FIFO or socket, which are refused.
    """
    device = opening.open_device(
        spec, writable=writable, direct=direct, bounce=_OwnBounce(spec), deadline_s=deadline_s
    )
    adopt = getattr(ambient(), "adopt_device", None)  # under check a request may fail
    return device if adopt is None else adopt(device)


def open_stack(
    device: Device | str,
    layers: Sequence[str] = (),
    *,
    memory: Room | None = None,
    writable: bool = False,
    in_flight: int = 16,
    starve: bool = False, prompt: bool = False, create: bool = False, any_bytes: bool = False,
    private: bool = False, apart_from: Sequence[os.stat_result] = (), runtime: Runtime | None = None,
) -> StackedDevice:  # fmt: skip
    """A device with layers on it, the outermost last, ready for use; close it to end it.

    `device` is opened, and closed with the stack, if it is a name; so are the devices that `layers` name.
    Buffers of layers come from `memory`, if given. At most `in_flight` requests are under way at once,
    the others wait. With `starve` every reserve is at its minimum and every allocation beyond it fails:
    slower, never stuck. `prompt` is for servers: its `read_now` and `write_now` do only what needs no wait.

    >>> with open_stack("memory:1MiB", ["linear,offset=4KiB"], writable=True) as device:
    ...     device.pwrite(memoryview(b"hello"), 0)
    ...     device.size
    1044480

    With `create` layers that have a format of their own (crypt) write it anew, whatever was there. With
    `any_bytes` requests need not be whole blocks. Memory that is being written may be changed: what must
    not see that (a mirror's legs, a log with checksums) has it copied first, unless it is `private`. No
    device may be in it twice, or be one of `apart_from`.

    Raises: UsageError if something named is no device or no layer, or is in use; NoMemory; BlockError.
    """
    runtime = runtime or ambient() or THREADS
    opened = _Opened(Site(runtime, "device", starve=starve), memory, writable, prompt, apart_from)
    try:
        bottom = opened.bottom(device, in_flight)
        stack = Stack(
            runtime,
            bottom,
            layers,
            in_flight=in_flight,
            memory=None if memory is None else opened.buffers,
            opener=opened.open,
            crypto=Crypto(runtime.report),
            starve=starve,
            create=create,
            any_bytes=any_bytes,
            steady_bytes=0 if private else _steady(memory, starve),
            ground=opened.site,
        )
        try:
            stack.runtime.run(stack.start())
        except BaseException:
            stack.give_back()
            raise
    except BaseException:
        opened.close()
        raise
    for pool in stack.pools():
        ROSTER.enter(pool)
    kind, held, files = bottom.device.kind, opened.memory_bytes(), opened.files
    return StackedDevice(stack, kind=kind, memory_bytes=held, uses=files, ending=opened.close)


def _steady(memory: Room | None, starve: bool) -> int:
    """Bytes of the buffers that writes are copied into: a power of two, of whole pages."""
    size = getattr(memory, "size", None)
    if starve:
        return 4096
    return (
        _STEADY
        if size is None
        else max(4096, min(_STEADY, 1 << (size // _STEADY_PART).bit_length() - 1))
    )


class Room(Protocol):
    """What gives layers their buffers: a `Zone`, usually."""

    def buffers(self, size: int, *, name: str) -> Any: ...


class _Opened:
    """What was opened for a stack, and is closed after it."""

    __slots__ = (
        "_apart",
        "_buffers",
        "_devices",
        "_memory",
        "_prompt",
        "_writable",
        "files",
        "site",
    )

    def __init__(
        self,
        site: Site,
        memory: Room | None,
        writable: bool,
        prompt: bool,
        apart_from: Sequence[os.stat_result],
    ) -> None:
        self.site = site  # of the main device
        self._apart = list(apart_from)
        self.files: list[os.stat_result] = []  # what is in use here
        self._memory = memory
        self._prompt = prompt
        self._writable = writable
        self._devices: list[Device] = []
        self._buffers: list[tuple[Any, int]] = []

    def bottom(self, device: Device | str, in_flight: int) -> Bottom:
        """The main device. For a server it has workers, not a thread for each request that may wait: one
        that cannot be started would fail the request, and a flush for good."""
        workers = self.site.workers("requests", limit=in_flight) if self._prompt else None
        if isinstance(device, str):
            device = self._open(device, 30.0)
        return self._layer(device, workers)

    def open(self, name: str, site: Site) -> Bottom:
        """A device that a layer asks for; it has workers, so that all legs work at once."""
        limit_s = 30.0 if site.deadline_s is None else site.deadline_s
        return self._layer(self._open(name, limit_s), site.workers("leg", limit=4))

    def _open(self, name: str, limit_s: float) -> Device:
        direct = False if self._prompt else None
        device = open_device(name, writable=self._writable, direct=direct, deadline_s=limit_s)
        self._devices.append(device)
        return device

    def _layer(self, device: Device, workers: Workqueue | None) -> Bottom:
        self.note(device)
        return Bottom(device, workers=workers, quick=quick_of(device) if self._prompt else None)

    def note(self, device: Device) -> None:
        """Raises: UsageError if the same file or block device is in use here already."""
        descriptor = getattr(device, "fd", None)
        if descriptor is None:
            return
        found = os.fstat(descriptor)
        for other in self._apart:
            if opening.same_device(found, other):
                raise UsageError(
                    f"{device.name} would be used twice: as a leg, and as the source, the destination or "
                    "another leg; name another device"
                )
        self._apart.append(found)
        self.files.append(found)

    def buffers(self, size: int, name: str) -> Any:
        assert self._memory is not None
        user = self._memory.buffers(size, name=name)
        self._buffers.append((user, 1 << max(12, (size - 1).bit_length())))  # runs of 2**k pages
        return user

    def memory_bytes(self) -> int:
        """Bytes that are held of the memory now."""
        return sum(user.held_count * size for user, size in self._buffers)

    def close(self) -> None:
        """All of it ends, whatever fails. Raises: the first failure."""
        failures: list[BaseException] = []
        for opened in [*(user for user, _ in self._buffers), *reversed(self._devices)]:
            try:
                opened.close()
            except BaseException as error:
                failures.append(error)
        del failures[1:]
        if failures:
            raise failures.pop()


class _OwnBounce:
    """Bounce buffers for one device: two, so that one can be filled while the other is written."""

    __slots__ = ("_making", "_pool", "_spec")

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._making = threading.Lock()
        self._pool: Mempool[memoryview] | None = None

    def lease(self) -> AbstractContextManager[memoryview]:
        with self._making:
            if self._pool is None:
                name = f"bounce of {self._spec}"
                zone = Zone("512KiB", name=name, min_free=0, huge=False)
                self._pool = Mempool(zone.buffers("256KiB"), min_count=2, name=name)
        return self._pool.lease()
