"""The face for threads: pools whose waits block the calling thread.

It decides nothing: it chooses the kind of pool, and the runtime where none is passed.
"""

from __future__ import annotations

import inspect
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from headway.core.block.bottom import Bottom
from headway.core.block.device import Device
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.core.block.stacked import StackedDevice
from headway.core.block.workqueue import Workqueue
from headway.core.mm import mempool as core
from headway.core.mm import pools
from headway.core.mm.composite import Backend, Callables
from headway.core.mm.ladder import Ladder, Wake
from headway.core.plan import Runtime
from headway.edge import opening, process
from headway.edge import zone as edge
from headway.edge.crypto import Crypto
from headway.edge.quick import quick_of
from headway.errors import UsageError
from headway.roster import ROSTER
from headway.runtimes.scopes import ambient, noio
from headway.runtimes.threads import THREADS

E = TypeVar("E")


class Mempool(core.Mempool[E], Generic[E]):
    """A pool that guarantees forward progress: an allocation that may wait gets its element.

    Over a backend (anything with ``alloc(gfp)`` and ``free(element)``, such as ``zone.buffers("1MiB")``
    or another pool), over two functions, or (`Mempool.of`) over a fixed set of elements. It keeps
    `min_count` elements in reserve, filled when it is made.

    `ladder` is the order of tries, `wake` who gets a returned element, `unplug` is called before
    every wait to push out what the caller has queued, `trace` records who holds what (also
    ``HEADWAY_TRACE=1``), `poison` marks freed buffers and reports who wrote to them.

    >>> pool = Mempool(alloc=lambda gfp: bytearray(4096), free=lambda element: None, min_count=2)
    >>> with pool.lease() as buffer:
    ...     len(buffer)
    4096

    Raises: NoMemory if the backend cannot fill the reserve; UsageError if the arguments make no pool.
    """

    __slots__ = ()

    def __new__(
        cls,
        backend: Any = None,
        *,
        alloc: Callable[..., Any] | None = None,
        free: Callable[[Any], object] | None = None,
        light: Callable[..., Any] | None = None,
        min_count: int = 2,
        name: str | None = None,
        ladder: Ladder = Ladder.HALF_FULL,
        wake: Wake = Wake.FIFO,
        unplug: Callable[[], object] | None = None,
        trace: bool | None = None,
        poison: bool = False,
        runtime: Runtime | None = None,
    ) -> Mempool[E]:
        return super().__new__(_BackedMempool if cls is Mempool else cls)

    @staticmethod
    def of(elements: Iterable[E], **options: Any) -> Mempool[E]:
        """A pool of exactly these elements.

        >>> slots = Mempool.of(range(4), name="slots")
        >>> slots
        <Mempool 'slots': 4 of 4 in reserve, 0 out, 0 waiting>
        """
        return _FixedMempool(elements, **options)


class _FixedMempool(pools.FixedMempool[E], Mempool[E], Generic[E]):
    __slots__ = ()

    def __init__(self, elements: Iterable[E], **options: Any) -> None:
        pools.FixedMempool.__init__(self, elements, **_settled(options))
        _show(self)


class _BackedMempool(pools.BackedMempool[E], Mempool[E], Generic[E]):
    __slots__ = ()

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        alloc: Callable[..., Any] | None = None,
        free: Callable[[Any], object] | None = None,
        light: Callable[..., Any] | None = None,
        min_count: int = 2,
        **options: Any,
    ) -> None:
        if backend is None:
            if alloc is None:
                raise UsageError(
                    "a mempool needs a backend, or alloc= and free=; Mempool.of(elements) needs neither"
                )
            backend = Callables(
                _with_mask(alloc), free or _drop, None if light is None else _with_mask(light)
            )
        elif alloc is not None or free is not None or light is not None:
            raise UsageError("a mempool takes a backend or alloc=, free= and light=, not both")
        elif not callable(getattr(backend, "alloc", None)):
            raise UsageError(
                f"a mempool's backend has alloc and free, and {backend!r:.60} has not; "
                "Mempool.of(elements) makes a pool of what is given"
            )
        pools.BackedMempool.__init__(self, backend, min_count=min_count, **_settled(options))
        _show(self)


class Zone(edge.Zone):
    """One arena of `size`, shared by any number of users: a hard limit, and memory that is there.

    `min_free` is kept back from ordinary requests; None chooses it by the kernel's formula, 0 keeps
    nothing back. `lock` keeps the arena from being swapped out; `huge` asks for huge pages; `debug`
    catches use after free; `oom` is what a request gets that finds nothing, not even by reclaim: a
    policy, or a callback that makes somebody give back. A size that is no whole number of pages is
    rounded down.

    >>> zone = Zone("1MiB", min_free=0)
    >>> frames = Mempool(zone.buffers("256KiB"), min_count=4, name="frames")
    >>> with frames.lease() as frame:
    ...     len(frame)
    262144

    Raises: UsageError if the size or `min_free` make no zone; NoMemory if the memory cannot be had
    now, or cannot be locked.
    """

    __slots__ = ()

    def __init__(
        self, size: int | str, *, runtime: Runtime | None = None, name: str = "zone", **options: Any
    ) -> None:
        super().__init__(size, runtime=runtime or ambient() or THREADS, name=name, **options)
        ROSTER.enter(self)


def open_device(
    spec: str, *, writable: bool = False, direct: bool | None = None, deadline_s: float = 30.0
) -> Device:
    """Open a path, an NBD URI, `memory:SIZE`, `zero:SIZE` or `null:`; a file must exist.

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
    starve: bool = False,
    prompt: bool = False,
    create: bool = False,
    apart_from: Sequence[os.stat_result] = (),
    runtime: Runtime | None = None,
) -> StackedDevice:
    """A device with layers on it, the outermost last, ready for use; close it to end it.

    `device` is opened, and closed with the stack, if it is a name; so are the devices that `layers` name.
    Buffers of layers come from `memory`, if given. At most `in_flight` requests are under way at once,
    the others wait. With `starve` every reserve is at its minimum and every allocation beyond it fails:
    slower, never stuck. `prompt` is for servers: its `read_now` and `write_now` do only what needs no wait.

    >>> with open_stack("memory:1MiB", ["linear,offset=4KiB"], writable=True) as device:
    ...     device.pwrite(memoryview(b"hello"), 0)
    ...     device.size
    1044480

    With `create` layers that have a format of their own (crypt) write it anew, whatever was there; else
    they open what they find.

    No device may be in it twice, or be one of `apart_from`.

    Raises: UsageError if something named is no device or no layer, or is in use; NoMemory; BlockError.
    """
    opened = _Opened(memory, writable, prompt, apart_from)
    try:
        if isinstance(device, str):
            bottom = opened.open(device)
        else:
            bottom = opened.layer(device)
        runtime = runtime or ambient() or THREADS
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
    kind, held = bottom.device.kind, opened.memory_bytes()
    return StackedDevice(stack, kind=kind, memory_bytes=held, ending=opened.close)


class Room(Protocol):
    """What gives layers their buffers: a `Zone`, usually."""

    def buffers(self, size: int, *, name: str) -> Any: ...


class _Opened:
    """What was opened for a stack, and is closed after it."""

    __slots__ = ("_apart", "_buffers", "_devices", "_memory", "_prompt", "_writable")

    def __init__(
        self,
        memory: Room | None,
        writable: bool,
        prompt: bool,
        apart_from: Sequence[os.stat_result],
    ) -> None:
        self._apart = list(apart_from)
        self._memory = memory
        self._prompt = prompt
        self._writable = writable
        self._devices: list[Device] = []
        self._buffers: list[tuple[Any, int]] = []

    def open(self, name: str, site: Site | None = None) -> Bottom:
        """A device; one that a layer asks for has workers, so that all legs work at once."""
        limit_s = 30.0 if site is None or site.deadline_s is None else site.deadline_s
        direct = False if self._prompt else None
        device = open_device(name, writable=self._writable, direct=direct, deadline_s=limit_s)
        self._devices.append(device)
        return self.layer(device, None if site is None else site.workers("leg", limit=4))

    def layer(self, device: Device, workers: Workqueue | None = None) -> Bottom:
        self.note(device)
        return Bottom(device, workers=workers, quick=quick_of(device) if self._prompt else None)

    def note(self, device: Device) -> None:
        """Raises: UsageError if the same file or block device is in use here already."""
        descriptor = getattr(device, "fd", None)
        if descriptor is None:
            return
        found = os.fstat(descriptor)
        for other in self._apart:
            block = stat.S_ISBLK(found.st_mode) and stat.S_ISBLK(other.st_mode)
            same = found.st_rdev == other.st_rdev if block else os.path.samestat(found, other)
            if same:
                raise UsageError(
                    f"{device.name} would be used twice: as a leg, and as the source, the destination or "
                    "another leg; name another device"
                )
        self._apart.append(found)

    def buffers(self, size: int, name: str) -> Any:
        assert self._memory is not None
        user = self._memory.buffers(size, name=name)
        self._buffers.append((user, 1 << max(12, (size - 1).bit_length())))  # runs of 2**k pages
        return user

    def memory_bytes(self) -> int:
        """Bytes that are held of the memory now."""
        return sum(user.held_count * size for user, size in self._buffers)

    def close(self) -> None:
        for user, _ in self._buffers:
            user.close()
        for device in reversed(self._devices):
            device.close()


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


def _settled(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("runtime") is None:
        options["runtime"] = ambient() or THREADS
    if options.get("name") is None:
        options["name"] = "pool"
    if options.get("trace") is None:
        options["trace"] = os.environ.get("HEADWAY_TRACE", "") not in ("", "0")
    return options


def _show(pool: core.Mempool[Any]) -> None:
    """Let a runtime that watches its pools (the checker's) know of a new one."""
    adopt = getattr(pool.runtime, "adopt", None)
    if adopt is not None:
        adopt(pool)
    else:
        ROSTER.enter(pool)


def spawn(fn: Callable[..., Any], *args: Any) -> None:
    """Start ``fn(*args)`` as a task, in code under ``headway check``; a coroutine function too.

    Raises: UsageError outside a check: there, start a thread or a task of your own.
    """
    start = getattr(ambient(), "spawn", None)
    if start is None:
        name = getattr(fn, "__name__", repr(fn))
        raise UsageError(
            f"hw.spawn({name}) was called outside a check: run it with headway check FILE.py:FUNCTION, "
            "or start a thread or a task of your own"
        )
    start(fn, *args)


def _drop(element: object) -> None:
    """The `free` of a pool that was given none: the element is left to the garbage collector."""


def _with_mask(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that can do without an argument (``open_socket``) stand where one takes a mask.

    It is given the mask if it needs an argument, or has one of the name ``gfp``.

    Raises: UsageError for a coroutine function: it would give a coroutine, not an element.
    """
    if inspect.iscoroutinefunction(function):
        raise UsageError(
            f"{function!r} is a coroutine function; a pool's allocator is a plain function"
        )
    try:
        signature = inspect.signature(function)
        if "gfp" in signature.parameters:
            return function
        signature.bind()
    except TypeError:
        return function  # it cannot be called without an argument
    except ValueError:
        pass  # a builtin without a signature: dict, bytearray
    return lambda gfp: function()


def io_flusher(*, required: bool = False) -> process.IoFlusher:
    """Run a block as part of somebody's I/O path: ``with io_flusher() as flusher:``.

    Opens `noio`, and asks Linux not to start I/O for this thread's memory either. ``flusher.kernel``
    is False, and ``flusher.reason`` says why, if Linux refused (one warning is logged).

    Raises: UsageError if `required` and the kernel refuses.
    """
    return process.IoFlusher(noio(), required)
