"""A queue and an executor for threads that make a fast producer wait: limited by bytes, not by items.

It decides nothing: the queue is `headway.core.mm.budget_queue`, and both weigh with a budget. The names
and arguments are those of ``queue`` and ``concurrent.futures``.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from headway.budgets import Budget
from headway.core.mm import budget as budgeting
from headway.core.mm import budget_queue as core
from headway.core.mm.gfp import Gfp
from headway.errors import PoolClosed, PoolTimeout, UsageError
from headway.runtimes import scopes

E = TypeVar("E")
P = ParamSpec("P")
T = TypeVar("T")
Limit = int | str | budgeting.Budget


def weigh(item: Any) -> int:
    """The bytes of a buffer: its ``nbytes``, or the length of bytes; at least 1.

    Raises: UsageError for anything else: what it holds on to is not known.
    """
    if isinstance(item, (bytes, bytearray)):
        return len(item) or 1
    size = getattr(item, "nbytes", None)
    if size is None:
        raise UsageError(
            f"the weight of a {type(item).__name__} is not known: give cost=, a function of the item"
        )
    return max(1, int(size))


def budget_of(limit: Limit, name: str) -> budgeting.Budget:
    """A budget of its own: of this size, or a child that shares the limit of a given one."""
    if isinstance(limit, budgeting.Budget):
        return Budget(parent=limit, name=name)
    return Budget(limit, name=name)


class BudgetQueue(core.BudgetQueue[E], Generic[E]):
    """`queue.Queue` with a limit in bytes: ``put`` waits until the item's bytes fit.

    `limit` is a size, or a `Budget` whose limit it shares with others. `cost` is what an item
    weighs (default: `nbytes`, or the length of bytes). Bytes come back when the item is got; with
    ``lease()``, when the block ends. To have the producer's own item counted too, take
    ``queue.budget.alloc(n)`` before making it, and ``put_paid(item, n)``.

    >>> chunks = BudgetQueue("32MiB", name="chunks")
    >>> chunks.put(bytes(20 << 20))
    >>> chunks.put(bytes(20 << 20), block=False)
    Traceback (most recent call last):
    queue.Full: queue 'chunks': 20MiB do not fit: 20MiB of 32MiB are in it
    >>> with chunks.lease() as chunk:
    ...     len(chunk), chunks.budget.used
    (20971520, 20971520)
    >>> chunks
    <BudgetQueue 'chunks': 0 items, 0B of 32MiB, 0 putters and 0 getters waiting>
    """

    __slots__ = ("_cost",)

    def __init__(
        self, limit: Limit, *, cost: Callable[[E], int] = weigh, name: str = "queue"
    ) -> None:
        super().__init__(budget_of(limit, name))
        self._cost = cost

    def put(self, item: E, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; waits in line until its bytes fit, at most `timeout` seconds.

        Raises: queue.Full if they do not; UsageError at once if they never can; PoolClosed.
        """
        units = self._cost(item)
        if self.put_now(item, units):
            return
        plan = self.put_plan(
            item, units, Gfp.KERNEL if block else Gfp.NOWAIT,
            scopes.current(), scopes.owner(), timeout if block else None,
        )  # fmt: skip
        try:
            done = self.budget.runtime.run(plan)
        except PoolTimeout as error:
            raise queue.Full(str(error)) from error
        if not done:
            raise queue.Full(full(self, units))

    def put_nowait(self, item: E) -> None:
        """`put` that does not wait."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> E:
        """Take the oldest item, and give its bytes back; waits for one at most `timeout` seconds.

        Raises: queue.Empty if there is none; PoolClosed if the queue is closed and empty.
        """
        item, units = self._get(block, timeout)
        self.budget.free(units)
        return item

    def get_nowait(self) -> E:
        """`get` that does not wait."""
        return self.get(block=False)

    @contextmanager
    def lease(self, timeout: float | None = None) -> Iterator[E]:
        """The oldest item for a ``with`` block: its bytes go back, and it counts as done, at the end."""
        item, units = self._get(True, timeout)
        try:
            yield item
        finally:
            del item
            self.budget.free(units)
            self.task_done()

    def _get(self, block: bool, timeout: float | None) -> tuple[E, int]:
        entry = self.get_now()
        if entry is not None:
            return entry
        if not block and not self.closed:
            raise queue.Empty(f"queue {self.name!r} is empty")
        try:
            return self.budget.runtime.run(self.get_plan(scopes.owner(), timeout))
        except PoolTimeout as error:
            raise queue.Empty(str(error)) from error

    def join(self) -> None:
        """Wait until ``task_done()`` was called for every item that was put."""
        self.budget.runtime.run(self.join_plan(scopes.owner()))

    def __iter__(self) -> Iterator[E]:
        """The items, until the queue is closed and empty."""
        while True:
            try:
                item = self.get()
            except PoolClosed:
                return
            yield item
            del item

    def empty(self) -> bool:
        """Whether nothing is in it now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether not even one byte more would fit now."""
        return self.budget.room == 0


def full(of: core.BudgetQueue[Any], units: int) -> str:
    """The message of a put that would have to wait."""
    show = of.budget.show
    return (
        f"queue {of.name!r}: {show(units)} do not fit: {show(of.budget.used)} of "
        f"{show(of.budget.capacity)} are in it"
    )


class BudgetExecutor(Executor):
    """An executor whose ``submit`` waits while the work under way weighs too much.

    `limit` is a size or a `Budget`; `cost` says what a piece of work weighs, given its arguments. It
    runs on `executor`, or on threads of its own (`max_workers`). Units come back when the work is
    done or cancelled; what a future's result weighs is not counted.

    >>> with BudgetExecutor("1MiB", cost=len, max_workers=2) as executor:
    ...     list(executor.map(len, [bytes(400_000)] * 5))
    [400000, 400000, 400000, 400000, 400000]

    Do not submit from work that runs on it: it would wait for units that it holds itself.
    """

    def __init__(
        self,
        limit: Limit,
        *,
        cost: Callable[..., int],
        executor: Executor | None = None,
        max_workers: int | None = None,
        name: str = "executor",
    ) -> None:
        self.budget = budget_of(limit, name)
        self._cost = cost
        self._own = executor is None
        self._executor = executor or ThreadPoolExecutor(max_workers, thread_name_prefix=name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)``; waits until its weight fits.

        Raises: UsageError at once if it never can; RuntimeError after ``shutdown``.
        """
        return self.submit_cost(self._cost(*args, **kwargs), fn, *args, **kwargs)

    def submit_cost(
        self, units: int, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """`submit` of work that weighs `units`."""
        try:
            self.budget.alloc(units)
        except PoolClosed as error:
            raise RuntimeError(str(error)) from error
        self.budget.hand_over(units)  # they come back with the work, not with whoever submits it
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except BaseException:
            self.budget.free(units)
            raise
        future.add_done_callback(lambda _: self.budget.free(units))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; those who wait in ``submit`` get RuntimeError."""
        self.budget.shut()
        if self._own:
            self._executor.shutdown(wait, cancel_futures=cancel_futures)

    def __repr__(self) -> str:
        return f"<BudgetExecutor: {self.budget!r}>"
