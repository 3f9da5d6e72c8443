"""The ambient part: which scope and which runtime are in force, who runs this, and where.

It decides nothing about masks (`headway.core.mm.gfp` does). Scopes are context variables, so they
follow a thread, a task, and whatever copies its context; a driver that runs an effect on someone's
behalf enters that one's scope with `applied`. Only what has been opened is closed: leaving an inner
scope never ends the outer one, in whatever order they are left.

Source: Linux ``memalloc_noio_save`` and its kin, which return the bits they really added.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from headway.core.mm.gfp import Gfp, for_allocator
from headway.core.plan import Runtime

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("headway")

# How often each of NOFS, NOIO, NORECLAIM is open here; counts, so that scopes may close in any order.
_open: ContextVar[tuple[int, int, int]] = ContextVar("headway_scopes", default=(0, 0, 0))
_ambient: ContextVar[Runtime | None] = ContextVar("headway_runtime", default=None)
_said: set[str] = set()


def current() -> int:
    """The scope in force, as bits of `Scope`."""
    nofs, noio, noreclaim = _open.get()
    return (1 if nofs else 0) | (2 if noio else 0) | (4 if noreclaim else 0)


class Opened(AbstractContextManager[None]):
    """A scope for a ``with`` block; it may be entered again inside itself."""

    __slots__ = ("_depth", "_index")

    def __init__(self, index: int) -> None:
        self._index = index
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        _add(self._index, 1)

    def __exit__(self, *exc: object) -> None:
        if self._depth:
            self._depth -= 1
            _add(self._index, -1)


def _add(index: int, step: int) -> None:
    counts = list(_open.get())
    counts[index] = max(0, counts[index] + step)  # never closes here what was opened elsewhere
    _open.set((counts[0], counts[1], counts[2]))


def nofs() -> Opened:
    """No allocation in here may call, or wait for, code above us."""
    return Opened(0)


def noio() -> Opened:
    """No allocation in here may start or wait for device I/O, nor call code above us.

    >>> with noio():
    ...     effective(Gfp.KERNEL) == Gfp.NOIO
    True
    """
    return Opened(1)


def noreclaim() -> Opened:
    """No allocation in here may reclaim: it is itself part of reclaim.

    It gives back what others wait for, so it may take from the reserves of budgets.
    """
    return Opened(2)


def effective(gfp: Gfp = Gfp.KERNEL) -> Gfp:
    """The mask an allocator sees here: `gfp` without what the open scopes take away."""
    return for_allocator(gfp, current())


@contextmanager
def applied(scope: int) -> Iterator[None]:
    """Run on someone's behalf: their scope on top of ours."""
    if not scope & ~current():
        yield
        return
    nofs_, noio_, noreclaim_ = _open.get()
    token = _open.set(
        (nofs_ + (scope & 1), noio_ + (scope >> 1 & 1), noreclaim_ + (scope >> 2 & 1))
    )
    try:
        yield
    finally:
        _open.reset(token)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """A callback that runs under the scopes open here and now, on whatever thread it is called."""
    scope = current()

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        with applied(scope):
            return function(*args, **kwargs)

    return carried


def in_copied_context(effect: Callable[..., T], *args: Any) -> Callable[[], T]:
    """`effect(*args)` to be called on another thread, in a copy of this context."""
    return functools.partial(copy_context().run, effect, *args)


def ambient() -> Runtime | None:
    """The runtime that pools made here take when none is passed: set while code is under check."""
    return _ambient.get()


@contextmanager
def made_for(runtime: Runtime) -> Iterator[None]:
    """Pools made in here, without saying otherwise, are made for `runtime`."""
    token = _ambient.set(runtime)
    try:
        yield
    finally:
        _ambient.reset(token)


def let_pass() -> None:
    """Raise once more the interrupt that is on its way out of a task: giving back on that way is no step of a run."""
    error = sys.exc_info()[1]
    if isinstance(error, KeyboardInterrupt) or getattr(error, "ends_the_program", False):
        assert error is not None
        raise error


def owner() -> str:
    """The name of the running task, else of the thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        loop = asyncio._get_running_loop()  # does not raise where there is none: 1 us less
        task = None if loop is None else asyncio.current_task(loop)
        if task is not None:
            return str(task.get_name())
    return threading.current_thread().name


def where(depth: int = 4) -> tuple[str, ...]:
    """The innermost callers outside headway, innermost first."""
    frames: list[str] = []
    frame = sys._getframe(1)
    while frame is not None and len(frames) < depth:
        if not str(frame.f_globals.get("__name__", "")).startswith("headway."):
            frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return tuple(frames)


def report(message: str, *, once: bool = False) -> None:
    """Log a warning; `once`: not if the same was said before."""
    if once:
        if message in _said:
            return
        _said.add(message)
    log.warning("%s", message)
