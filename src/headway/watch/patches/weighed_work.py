"""headway's `BudgetExecutor` on threads: work under way holds units, and work that submits there waits for some.

Who submits holds nothing: the units are the work's. Work that is submitted needs a thread while it has its units,
and work that runs has a thread while it submits: so both waits are told.
"""

from __future__ import annotations

import sys
from typing import Any

from headway.watch.patches import Patcher
from headway.watch.patches.weights import weighed
from headway.watch.places import near

MODULE = "headway.flow"


def install(patcher: Patcher) -> None:
    from headway.flow import BudgetExecutor

    ledger = patcher.ledger

    def submit(original: Any) -> Any:
        def submit_cost(self: Any, units: int, fn: Any, /, *args: Any, **options: Any) -> Any:
            place = near(sys._getframe(1))
            work = weighed(ledger, self.budget, units, self._executor, fn, place)
            return original(self, units, work, *args, **options)

        return submit_cost

    patcher.replace(BudgetExecutor, "submit_cost", submit)
