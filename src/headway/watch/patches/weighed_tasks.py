"""headway's `aio.BudgetExecutor`: as `weighed_work`, awaited; a coroutine function is work without a thread."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from headway.watch.patches import Patcher
from headway.watch.patches.weights import weighed, working
from headway.watch.places import near

MODULE = "headway.aio_flow"


def install(patcher: Patcher) -> None:
    from headway.aio_flow import BudgetExecutor

    ledger = patcher.ledger

    def submit(original: Any) -> Any:
        async def submit_cost(self: Any, units: int, fn: Any, /, *args: Any, **options: Any) -> Any:
            place, budget = near(sys._getframe(0)), self.budget.budget
            if not inspect.iscoroutinefunction(fn):
                work = weighed(ledger, budget, units, self._executor, fn, place)
                return await original(self, units, work, *args, **options)

            @functools.wraps(fn)
            async def task(*args: Any, **options: Any) -> Any:
                with working(ledger, budget, units, None, place):
                    return await fn(*args, **options)

            return await original(self, units, task, *args, **options)

        return submit_cost

    patcher.replace(BudgetExecutor, "submit_cost", submit)
