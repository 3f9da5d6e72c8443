"""A `ThreadPoolExecutor` that keeps threads for the work that gives back: ``reserve=1`` is the whole change.

It does not run anything itself: the standard executor does. Work waits here, in two lines, until a slot
is free; those of `reserve` slots are only for entitled work: what is submitted through
``executor.entitled``, or under ``noreclaim()``. So when all ordinary threads wait for a connection, a
lock or a slot, the work that returns one still finds a thread. The reserve is used last.

Bound: at most `max_workers - reserve` threads ever do ordinary work at one time.

Source: the fix of the FastAPI freeze (a kept thread for the release path); a mempool's reserve.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import ThreadPoolExecutor as StandardExecutor
from typing import Any, ParamSpec, TypeVar, final

from headway.budgets import Budget
from headway.core.mm.gfp import Scope
from headway.runtimes import scopes

P = ParamSpec("P")
T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


class ThreadPoolExecutor(StandardExecutor):
    """The standard one, with `reserve` of its `max_workers` threads for entitled work.

    >>> import threading
    >>> opened = threading.Event()
    >>> with ThreadPoolExecutor(2, reserve=1) as executor:
    ...     waiting = [executor.submit(opened.wait) for _ in range(5)]
    ...     executor.entitled.submit(opened.set).result()
    ...     all(future.result() for future in waiting)
    True

    Raises: UsageError unless ``0 <= reserve < max_workers``.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        reserve: int = 0,
    ) -> None:
        super().__init__(max_workers, thread_name_prefix, initializer, initargs)
        self.slots = Budget(
            self._max_workers, reserve=reserve, name=thread_name_prefix or "threads"
        )
        self.entitled: Executor = _Entitled(self)
        self._deciding = threading.Lock()
        self._lines: tuple[deque[_Work], deque[_Work]] = (deque(), deque())  # ordinary, entitled
        self._stopped = False
        self._under_way = 0
        self._drained = threading.Event()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` when a slot is free; never waits."""
        return self.enter(bool(scopes.current() & Scope.NORECLAIM), lambda: fn(*args, **kwargs))

    def enter(self, entitled: bool, work: Callable[[], T]) -> Future[T]:
        """Stand in line. Raises: RuntimeError after ``shutdown``."""
        future: Future[T] = Future()
        with self._deciding:
            if self._stopped:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._lines[entitled].append((future, work))
            self._under_way += 1
        self._start()
        return future

    def _start(self) -> None:
        """Start what may start now: the entitled first."""
        while (next_ := self._choose()) is not None:
            try:
                super().submit(self._carry_out, *next_)
            except RuntimeError as error:  # the interpreter ends
                next_[0].set_exception(error)
                self._finish()

    def _choose(self) -> _Work | None:
        with self._deciding:
            for entitled in (True, False):
                line = self._lines[entitled]
                if line and self.slots.try_alloc(1, entitled=entitled):
                    return line.popleft()
        return None

    def _carry_out(self, future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            del future, work
            self._finish()
            self._start()

    def _finish(self) -> None:
        self.slots.free(1)
        with self._deciding:
            self._under_way -= 1
            last = self._stopped and not self._under_way
        if last:
            self._drained.set()
            super().shutdown(wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As the standard one: what was submitted is done first, unless it is to be cancelled."""
        with self._deciding:
            self._stopped = True
            dropped = [work for line in self._lines for work in line if cancel_futures]
            if cancel_futures:
                for line in self._lines:
                    line.clear()
            self._under_way -= len(dropped)
            idle = not self._under_way
        for future, _ in dropped:
            future.cancel()
            future.set_running_or_notify_cancel()
        if idle:
            self._drained.set()
            super().shutdown(wait=False)
        if wait:
            self._drained.wait()
            super().shutdown(wait=True)


@final
class _Entitled(Executor):
    """The same threads, for the work that gives back."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._executor.enter(True, lambda: fn(*args, **kwargs))
