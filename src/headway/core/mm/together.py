"""Units of several budgets in one event: all of them or none.

It does not decide anything: the meeting of the budgets does, which they share. Whoever takes several
budgets one after the other may hold the first while it waits for the second (R3); this one never does.
"""

from __future__ import annotations

from typing import Final, final

from headway.core.mm.budget import Budget
from headway.core.mm.charging import charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.unit_lease import UnitLease
from headway.core.plan import Plan
from headway.errors import UsageError

KERNEL: Final = Gfp.KERNEL


@final
class Together:
    """Units of several budgets, taken in one event or not at all; nothing is held while it waits."""

    __slots__ = ("_meeting", "parts", "runtime")

    def __init__(self, *parts: tuple[Budget, int | str]) -> None:
        counts: dict[Budget, int] = {}
        for budget, units in parts:
            counts[budget] = counts.get(budget, 0) + budget.checked(units)
        if not counts:
            raise UsageError("together needs at least one budget")
        first = next(iter(counts))
        self._meeting, self.runtime = first._meeting, first.runtime
        for budget in counts:
            if budget._meeting is not self._meeting:
                raise UsageError(
                    f"budgets {first.name!r} and {budget.name!r} were made for different runtimes"
                )
        self.parts: tuple[tuple[Budget, int], ...] = tuple(counts.items())

    def alloc(
        self, gfp: Gfp = KERNEL, timeout_s: float | None = None, *, entitled: bool = False
    ) -> bool:
        """Take them all; waits and raises as `Budget.alloc`."""
        runtime = self.runtime
        return runtime.run(
            self.alloc_plan(gfp, runtime.scope(), runtime.owner(), timeout_s, entitled)
        )

    def try_alloc(self, *, entitled: bool = False) -> bool:
        """Take them all if that needs no wait."""
        return self.alloc(Gfp.NOWAIT, entitled=entitled)

    def alloc_plan(
        self, gfp: Gfp, scope: int, who: str, timeout_s: float | None, entitled: bool
    ) -> Plan[bool]:
        return charge(self._meeting, self.parts, gfp, scope, who, timeout_s, entitled)

    def free(self) -> None:
        """Give them all back. Waits: never."""
        for budget, units in self.parts:
            budget.free(units)

    def hand_over(self) -> None:
        """Say that they are all in flight."""
        for budget, units in self.parts:
            budget.hand_over(units)

    def lease(
        self, gfp: Gfp = KERNEL, timeout_s: float | None = None, *, entitled: bool = False
    ) -> UnitLease:
        """All of them for a ``with`` block."""
        return UnitLease(self, (), gfp, timeout_s, entitled)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{account.show(units)} of {account.name!r}" for account, units in self.parts
        )
        return f"<Together: {parts}>"
