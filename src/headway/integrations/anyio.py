"""An anyio `CapacityLimiter` that keeps tokens for the path that gives back: ``reserve=1`` is the change.

It decides nothing: the tokens are a budget's units. Who waits is served in order of arrival; whoever
uses ``limiter.entitled`` (the same tokens, one argument of ``to_thread.run_sync``), or runs under
``noreclaim()``, may take the reserve too, and does not queue behind those who wait for it.

It needs asyncio under anyio: headway has no driver for trio.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp
from headway.errors import MissingExtra, UsageError
from headway.runtimes import scopes, tasks

try:
    import anyio
    from anyio.lowlevel import checkpoint_if_cancelled
except ImportError as error:
    raise MissingExtra("the limiter for anyio", "anyio") from error

NO_LIMIT = 1 << 40  # tokens; anyio writes math.inf


class CapacityLimiter(anyio.CapacityLimiter):
    """anyio's, with `reserve` of its tokens for those who use ``limiter.entitled``.

    Everything else is as in anyio: a borrower (by default the task) holds at most one token of it.
    ``limiter.budget`` says who holds what, and raises no alarm by itself.

    Raises: UsageError unless ``0 <= reserve < total_tokens``.
    """

    __slots__ = ("_entitled", "_held", "budget", "entitled")

    def __new__(cls, *args: Any, **options: Any) -> CapacityLimiter:
        return object.__new__(cls)

    def __init__(
        self, total_tokens: float, *, reserve: int = 0, name: str = "limiter", trace: bool = False
    ) -> None:
        self.budget = Budget(_count(total_tokens), reserve=reserve, name=name, trace=trace)
        self._held: set[object] = set()
        self._entitled = False
        self.entitled: CapacityLimiter = object.__new__(CapacityLimiter)
        self.entitled.budget = self.budget
        self.entitled._held = set()
        self.entitled._entitled = True
        self.entitled.entitled = self.entitled

    async def acquire(self) -> None:
        """Take a token for this task; waits in line."""
        await self.acquire_on_behalf_of(anyio.get_current_task().id)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Take a token for `borrower`. Raises: RuntimeError if it holds one of these already."""
        self._check(borrower)
        await checkpoint_if_cancelled()
        self._held.add(borrower)
        try:
            if self._entitled or not self.budget.take_now(1):
                plan = self.budget.alloc_plan(
                    1, Gfp.KERNEL, scopes.current(), scopes.owner(), None, self._entitled
                )
                await tasks.run(plan)
        except BaseException:
            self._held.discard(borrower)
            raise

    def acquire_nowait(self) -> None:
        """Take a token for this task. Raises: anyio.WouldBlock."""
        self.acquire_on_behalf_of_nowait(anyio.get_current_task().id)

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        """Take a token for `borrower`. Raises: anyio.WouldBlock; RuntimeError if it holds one."""
        self._check(borrower)
        if not self.budget.try_alloc(1, entitled=self._entitled):
            raise anyio.WouldBlock
        self._held.add(borrower)

    def release(self) -> None:
        """Give this task's token back."""
        self.release_on_behalf_of(anyio.get_current_task().id)

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give a token back. Raises: RuntimeError if the borrower holds none of these."""
        try:
            self._held.remove(borrower)
        except KeyError:
            raise RuntimeError("this borrower isn't holding any of this limiter's tokens") from None
        self.budget.free(1)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _check(self, borrower: object) -> None:
        if borrower in self._held:
            raise RuntimeError("this borrower is already holding one of this limiter's tokens")

    @property
    def total_tokens(self) -> float:
        """How many tokens there are, the reserve included; it can be set."""
        capacity = self.budget.capacity
        return math.inf if capacity == NO_LIMIT else capacity

    @total_tokens.setter
    def total_tokens(self, value: float) -> None:
        self.budget.resize(_count(value))

    @property
    def borrowed_tokens(self) -> int:
        """How many are out, through both doors."""
        return self.budget.used

    @property
    def available_tokens(self) -> float:
        """How many could be taken here now."""
        spare = self.budget.reserve if self._entitled else 0
        return math.inf if self.total_tokens == math.inf else self.budget.room + spare

    def statistics(self) -> anyio.CapacityLimiterStatistics:
        return anyio.CapacityLimiterStatistics(
            self.borrowed_tokens, self.total_tokens, tuple(self._held), self.budget.waiters
        )

    def __repr__(self) -> str:
        return f"<CapacityLimiter on {self.budget!r}>"


def _count(tokens: float) -> int:
    if tokens == math.inf:
        return NO_LIMIT
    if not isinstance(tokens, int):
        raise UsageError(f"total_tokens is {tokens!r}; give an int, or math.inf")
    return tokens
