"""The face for threads: pools whose waits block the calling thread.

It decides nothing: it chooses the kind of pool, and the runtime where none is passed.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, final
from weakref import WeakMethod

from headway.core.mm import mempool as core
from headway.core.mm import pools
from headway.core.mm.composite import Backend, Callables
from headway.core.mm.ladder import Ladder, Wake
from headway.core.mm.refused import unregister
from headway.core.plan import Runtime
from headway.edge import process
from headway.edge import zone as edge
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
        return FixedMempool(elements, **options)


class FixedMempool(pools.FixedMempool[E], Mempool[E], Generic[E]):
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

    def _call_back(self) -> Callable[[], object]:
        return _Kick(self, self._backend)


@final
class _Kick:
    """A pool's `kick`, for its backend, which must not keep alive a pool that was dropped unclosed."""

    __slots__ = ("_backend", "_kick")

    def __init__(self, pool: pools.BackedMempool[Any], backend: Any) -> None:
        self._kick = WeakMethod(pool.kick)
        self._backend = backend

    def __call__(self) -> None:
        kick = self._kick()
        if kick is None:
            unregister(self._backend, self)
        else:
            kick()


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
