"""A scope in which no finaliser re-enters what is being done: Python's own reclaim, told to wait.

The cyclic collector runs inside whatever allocates, on whatever thread, and calls ``__del__`` of what
it finds there. If one of those gives something back to a pool whose lock this very thread holds, the
thread waits for itself. The kernel has NOFS against its like; Python has nothing, so:

- in a `nofinalisers` scope the cyclic collector does not run (in the whole process: that is the only
  switch there is, so keep it short; it is on again at the outermost end, if it was on before);
- what is wrapped by `put_off` is not called in such a scope of the same thread, however it comes to be
  called, but at a safe point: the outermost scope's end. Elsewhere it is called at once.

headway's own pools need neither for `free`: it takes no lock that a finaliser could find held.

It does not stop ``gc.collect()`` that somebody calls, nor plain ``__del__`` by reference count that is
not wrapped. A scope must not be open across an ``await``: it belongs to a thread.

Bound: calls put off wait at most for the scope. They run in the order they came, each once, also after
one that raised.

Source: redis-py #2883 and dask #7547; the shape of Linux ``memalloc_nofs_save``.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, Final, ParamSpec, final

P = ParamSpec("P")

# Re-entrant: between taking it and switching the collector off, a collection may come, and a finaliser
# that opens a scope of its own. It then opens and closes it whole, inside this one's first step.
_switch: Final = threading.RLock()


@final
class _Process:
    """How many scopes are open in the process, and whether the collector was on before the first."""

    __slots__ = ("count", "was_on")

    def __init__(self) -> None:
        self.count = 0
        self.was_on = False


@final
class _Here(threading.local):
    """This thread's scopes, and what waits for their end."""

    def __init__(self) -> None:
        self.depth = 0
        self.waiting: deque[Callable[[], object]] = deque()


_process = _Process()
_here = _Here()


@final
class NoFinalisers(AbstractContextManager[None]):
    """The scope; it may be entered again inside itself, and used any number of times."""

    __slots__ = ()

    def __enter__(self) -> None:
        _here.depth += 1
        with _switch:
            if not _process.count:
                _process.was_on = gc.isenabled()
                gc.disable()
            _process.count += 1

    def __exit__(self, *exc: object) -> None:
        with _switch:
            _process.count -= 1
            if not _process.count and _process.was_on:
                gc.enable()
        _here.depth -= 1
        if not _here.depth and _here.waiting:
            _run_waiting()


_SCOPE: Final = NoFinalisers()


def nofinalisers() -> NoFinalisers:
    """Nothing in here is interrupted by the cyclic collector, or by what is wrapped in `put_off`.

    For critical sections of pools that are not headway's: ``with nofinalisers(), pool.lock: ...``.

    >>> import gc
    >>> with nofinalisers():
    ...     gc.isenabled()
    False
    """
    return _SCOPE


def put_off(function: Callable[P, object]) -> Callable[P, None]:
    """`function`, to be called where it does no harm: at once, or at the end of this thread's scope.

    Meant for ``__del__``, for the callback of `weakref.finalize`, and for a pool's ``release`` that
    finalisers call. Its result is dropped, its arguments are kept alive until then. What it raises when
    it was put off goes to `sys.unraisablehook`, as from any finaliser.

    >>> done = []
    >>> release = put_off(done.append)
    >>> with nofinalisers():
    ...     release(1)
    ...     done
    []
    >>> done
    [1]
    """

    @functools.wraps(function)
    def later(*args: P.args, **kwargs: P.kwargs) -> None:
        if _here.depth:
            _here.waiting.append(functools.partial(function, *args, **kwargs))
        else:
            function(*args, **kwargs)

    return later


def _run_waiting() -> None:
    """The safe point. What these calls put off in scopes of their own runs at the end of those."""
    waiting = _here.waiting
    while waiting:
        try:
            effect = waiting.popleft()
        except IndexError:
            return  # a collection came in between, and its finaliser's scope ended here
        try:
            effect()
        except Exception as error:
            _complain(error, effect)


def _complain(error: Exception, source: object) -> None:
    """As the interpreter does for a finaliser; the hook's own type cannot be made by hand."""
    said: Any = SimpleNamespace(
        exc_type=type(error),
        exc_value=error,
        exc_traceback=error.__traceback__,
        err_msg="Exception ignored in a call that was put off",
        object=source,
    )
    sys.unraisablehook(said)
