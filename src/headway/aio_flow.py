"""Budgets, and the queue and executor on them, for asyncio: the same, awaited.

It decides nothing. A budget or queue may serve threads and several loops at once: ``aio.Budget(budget)``
and ``aio.BudgetQueue(queue)`` give an existing one this face, any other argument makes one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from queue import Full
from typing import Any, Generic, TypeVar, final

from headway import budgets, flow
from headway.core.mm import budget as core
from headway.core.mm.gfp import Gfp
from headway.core.mm.together import Together as CoreTogether
from headway.core.mm.unit_lease import UnitLease
from headway.errors import PoolClosed
from headway.runtimes import scopes, tasks

E = TypeVar("E")
KERNEL = Gfp.KERNEL


@final
class Budget:
    """A budget whose waits suspend the task: `headway.Budget` with ``await`` where it may wait."""

    __slots__ = ("budget", "free", "hand_over", "kick", "resize", "stats", "transfer", "try_alloc")

    def __init__(self, budget: Any = None, **options: Any) -> None:
        if not isinstance(budget, core.Budget):
            budget = budgets.Budget(budget, **options)
        self.budget: core.Budget = budget
        # What never waits is the budget's own method.
        self.try_alloc = self.budget.try_alloc
        self.free = self.budget.free
        self.hand_over = self.budget.hand_over
        self.transfer = self.budget.transfer
        self.resize = self.budget.resize
        self.kick = self.budget.kick
        self.stats = self.budget.stats

    async def alloc(
        self,
        units: int | str,
        gfp: Gfp = KERNEL,
        timeout_s: float | None = None,
        *,
        entitled: bool = False,
    ) -> bool:
        """Take `units`; waits and raises as `headway.Budget.alloc`; a cancelled wait loses nothing."""
        if gfp is KERNEL and self.budget.take_now(units):
            return True
        return await tasks.run(
            self.budget.alloc_plan(
                units, gfp, scopes.current(), scopes.owner(), timeout_s, entitled
            )
        )

    def lease(
        self,
        units: int | str,
        gfp: Gfp = KERNEL,
        timeout_s: float | None = None,
        *,
        entitled: bool = False,
    ) -> UnitLease:
        """Units for an ``async with`` block, given back however it ends."""
        return UnitLease(self, (units,), gfp, timeout_s, entitled)

    def close(self) -> None:
        """End the budget; see `headway.Budget.close`."""
        self.budget.close()

    def __repr__(self) -> str:
        return f"<aio {repr(self.budget)[1:]}"


@final
class Together:
    """Units of several budgets in one event: `headway.Together`, awaited."""

    __slots__ = ("free", "hand_over", "together", "try_alloc")

    def __init__(self, *parts: Any) -> None:
        self.together = CoreTogether(
            *((part.budget if isinstance(part, Budget) else part, units) for part, units in parts)
        )
        self.free = self.together.free
        self.hand_over = self.together.hand_over
        self.try_alloc = self.together.try_alloc

    async def alloc(
        self, gfp: Gfp = KERNEL, timeout_s: float | None = None, *, entitled: bool = False
    ) -> bool:
        """Take them all, or wait holding nothing."""
        return await tasks.run(
            self.together.alloc_plan(gfp, scopes.current(), scopes.owner(), timeout_s, entitled)
        )

    def lease(
        self, gfp: Gfp = KERNEL, timeout_s: float | None = None, *, entitled: bool = False
    ) -> UnitLease:
        """All of them for an ``async with`` block."""
        return UnitLease(self, (), gfp, timeout_s, entitled)


@final
class BudgetQueue(Generic[E]):
    """`asyncio.Queue` with a limit in bytes: `headway.BudgetQueue`, awaited."""

    __slots__ = (
        "close", "empty", "full", "put_paid", "qsize", "queue", "stats", "task_done",
    )  # fmt: skip

    def __init__(self, queue: Any, **options: Any) -> None:
        if not isinstance(queue, flow.BudgetQueue):
            queue = flow.BudgetQueue(
                queue.budget if isinstance(queue, Budget) else queue, **options
            )
        self.queue: flow.BudgetQueue[E] = queue
        self.put_paid = self.queue.put_paid
        self.task_done = self.queue.task_done
        self.close = self.queue.close
        self.qsize = self.queue.qsize
        self.empty = self.queue.empty
        self.full = self.queue.full
        self.stats = self.queue.stats

    @property
    def budget(self) -> Budget:
        """What its items weigh, to be awaited."""
        return Budget(self.queue.budget)

    async def put(self, item: E) -> None:
        """Put an item; waits in line until its bytes fit. Raises: UsageError if they never can; PoolClosed."""
        units = self.queue._cost(item)
        if not self.queue.put_now(item, units):
            scope, who = scopes.current(), scopes.owner()
            await tasks.run(self.queue.put_plan(item, units, KERNEL, scope, who, None))

    def put_nowait(self, item: E) -> None:
        """Put an item that fits now. Raises: asyncio.QueueFull; UsageError if it never can; PoolClosed."""
        try:
            self.queue.put_nowait(item)  # waits for nothing
        except Full as error:
            raise asyncio.QueueFull(str(error)) from error

    async def get(self) -> E:
        """Take the oldest item, and give its bytes back. Raises: PoolClosed once closed and empty."""
        item, units = await self._get()
        self.queue.budget.free(units)
        return item

    def get_nowait(self) -> E:
        """Take an item that is there. Raises: asyncio.QueueEmpty; PoolClosed."""
        entry = self.queue.get_now()
        if entry is None:
            if self.queue.closed:
                raise PoolClosed(f"queue {self.queue.name!r} is closed")
            raise asyncio.QueueEmpty(f"queue {self.queue.name!r} is empty")
        self.queue.budget.free(entry[1])
        return entry[0]

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[E]:
        """The oldest item for an ``async with`` block: done, and its bytes back, at the end."""
        item, units = await self._get()
        try:
            yield item
        finally:
            del item
            self.queue.budget.free(units)
            self.queue.task_done()

    async def _get(self) -> tuple[E, int]:
        entry = self.queue.get_now()
        if entry is None:
            entry = await tasks.run(self.queue.get_plan(scopes.owner(), None))
        return entry

    async def join(self) -> None:
        """Wait until ``task_done()`` was called for every item that was put."""
        await tasks.run(self.queue.join_plan(scopes.owner()))

    async def __aiter__(self) -> AsyncIterator[E]:
        while True:
            try:
                item = await self.get()
            except PoolClosed:
                return
            yield item
            del item

    def __repr__(self) -> str:
        return f"<aio {repr(self.queue)[1:]}"


@final
class BudgetExecutor:
    """Work that weighs something: ``await submit(...)`` waits until it fits, and gives its future.

    A coroutine function becomes a task of the running loop; any other function runs on `executor`,
    or on threads of its own (`max_workers`). Leaving ``async with`` waits for all of it. Units go
    back when the work has really ended: a thread's work goes on after its future was cancelled.
    """

    __slots__ = ("_cost", "_executor", "_own", "_work", "budget")

    def __init__(
        self,
        limit: Any,
        *,
        cost: Callable[..., int],
        executor: Executor | None = None,
        max_workers: int | None = None,
        name: str = "executor",
    ) -> None:
        limit = limit.budget if isinstance(limit, Budget) else limit
        self.budget = Budget(flow.budget_of(limit, name))
        self._cost = cost
        self._own = executor is None
        self._executor = executor or ThreadPoolExecutor(max_workers, thread_name_prefix=name)
        self._work: set[asyncio.Future[Any]] = set()

    async def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Start ``fn(*args, **kwargs)`` once its weight fits. Raises: UsageError if it never can; PoolClosed."""
        return await self.submit_cost(self._cost(*args, **kwargs), fn, *args, **kwargs)

    async def submit_cost(
        self, units: int, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """`submit` of work that weighs `units`."""
        await self.budget.alloc(units)
        self.budget.hand_over(units)  # they come back with the work, not with whoever submits it
        loop = asyncio.get_running_loop()
        work: asyncio.Future[Any]
        try:
            if inspect.iscoroutinefunction(fn):
                work = loop.create_task(fn(*args, **kwargs))
                work.add_done_callback(lambda _: self.budget.free(units))
            else:
                run = scopes.in_copied_context(functools.partial(fn, *args, **kwargs))
                inner = self._executor.submit(run)
                inner.add_done_callback(lambda _: self.budget.free(units))
                work = asyncio.wrap_future(inner, loop=loop)
        except BaseException:
            self.budget.free(units)
            raise
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return work

    async def aclose(self) -> None:
        """Take no more work, and wait for what is under way; its errors are its futures'."""
        self.budget.budget.shut()
        if self._work:
            await asyncio.wait(list(self._work))
        if self._own:
            self._executor.shutdown(wait=False)

    async def __aenter__(self) -> BudgetExecutor:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
