"""What one cache is charged: whole pages, to its zone and to the budget it belongs to, if it has one.

It does not know what is cached (`headway.core.mm.cache` does), and asks nobody to give way. The units of a
budget are bytes here. Both are charged before a value is entered, and given back together, so that for the
budget, too, ``used bytes <= charged pages``, always, and never one page more.

The quick way to pay is a test and a subtraction in the budget, under the cache's guard. Where that does not
do (too little room, or somebody watches the budget) `pay` is the plan: it has those who belong to the level
that is short give way, and never waits. To the budget's records the cache is who holds the units, not the
one who put the value: he will not give them back. To those who watch it for what can hang, nobody holds them:
whoever needs them has them.

Source: Linux ``mm/memcontrol.c``, page cache charged to a group (6.12). Departure: a value goes to the budget of
its cache, not of the task that was the first to touch it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, final

from headway.core.mm import dirty_part
from headway.core.mm.budget import Budget
from headway.core.mm.charge import Charge
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.giver import Give, Giver
from headway.core.mm.watched import TRACED, WATCHED
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Runtime
from headway.errors import PoolClosed, UsageError

#: A cache's own request: only what is clean and needs no code above us may be dropped for it.
MASK: Final = Gfp.RECLAIM | Gfp.NORETRY | Gfp.NOMEMALLOC | Gfp.NOWARN
#: Inside reclaim: nothing is dropped to keep something else.
QUIET: Final = Gfp.NOMEMALLOC | Gfp.NOWARN
_NOTED: Final = WATCHED | TRACED
_NORECLAIM: Final = int(Scope.NORECLAIM)


@final
class Holding:
    """One cache's bytes. `used` and `pages` change under the cache's guard."""

    __slots__ = (
        "_giver",
        "_throttle",
        "_zone",
        "budget",
        "charge",
        "max_bytes",
        "page_bytes",
        "pages",
        "used",
    )

    def __init__(
        self, zone: Zone, name: str, max_bytes: int | None, budget: Budget | None, runtime: Runtime
    ) -> None:
        if budget is not None and budget.runtime is not runtime:
            raise UsageError(
                f"cache {name!r}: its budget {budget.name!r} was made for another runtime"
            )
        self.charge = Charge(zone, name)
        self.budget = budget
        self.max_bytes = max_bytes
        self.page_bytes = zone.page_bytes
        self.used = 0  # bytes, entered or about to be
        self.pages = 0  # charged
        self._zone = zone
        self._giver: Giver | None = None
        self._throttle: Any = None  # for which its budget limits what is dirty

    def join(self, give: Give) -> None:
        """Have `give` asked when the budget, or a level above it, has too little."""
        if self.budget is not None:
            self._giver = self.budget.adopt(f"cache {self.charge.name!r}", give)

    def dirty_group(self, throttle: Any) -> Domain | None:
        """The limit on what caches of its budget may have dirty in a zone, if it has a budget; until `close`."""
        budget = self.budget
        if budget is None:
            return None
        self._throttle = throttle
        return budget._meeting.change(partial(dirty_part.enter, budget, throttle, self.page_bytes))

    # -- under the cache's guard -----------------------------------------------------------------------

    def missing(self, cost: int) -> int:
        """Pages to be charged before `cost` bytes more can be used."""
        missing = self.used + cost - self.pages * self.page_bytes
        return -(-missing // self.page_bytes) if missing > 0 else 0

    def book(self, cost: int, paid: int = 0) -> tuple[bool, int]:
        """Count `cost` bytes as used, if they are charged or can be; and how many pages to `refund` after the guard.

        `paid` pages are the budget's already. It waits for nobody who is in the budget's guard, and wakes nobody
        under ours: `refund` does that, which is to be called in any case.
        """
        if self.max_bytes is not None and self.used + cost > self.max_bytes:
            return False, paid
        pages, budget = self.missing(cost), self.budget
        if pages:
            more = pages - paid
            if budget is not None and more > 0:
                if not budget.take_inside(more * self.page_bytes):
                    return False, paid
                paid = pages
            if not self.charge.take(self._zone.marks.low, pages):
                return False, paid
            self.pages += pages
        self.used += cost
        return True, max(paid - pages, 0)

    def surplus(self) -> int:
        """Pages that are charged and not used; they are ours no longer: `give` them."""
        surplus = self.pages + -self.used // self.page_bytes
        self.pages -= surplus
        return surplus

    def excess(self, pages: int) -> int:
        """Bytes that have to go before so many pages are not used any more."""
        return self.used - (self.pages - pages) * self.page_bytes

    # -- outside it ------------------------------------------------------------------------------------

    def pay(self, pages: int, scope: int, who: str) -> Plan[bool]:
        """Take so many pages' worth of the budget, on behalf of `who`; False if that would take a wait."""
        budget = self.budget
        if budget is None or not pages:
            return True
        units = pages * self.page_bytes
        gfp = QUIET if scope & _NORECLAIM else MASK
        try:
            if not (yield from budget.alloc_plan(units, gfp, scope, who, None, False)):
                return False
        except (PoolClosed, UsageError):  # it has ended, or is smaller than the value
            return False
        if budget._gate & _NOTED:
            self._note_taken(budget, units, who)
        return True

    def _note_taken(self, budget: Budget, units: int, who: str) -> None:
        record: Any = budget._record
        if record is not None:
            record.moved(units, who, to=self._label)
            record.gather(self._label)
        budget.tell("release", units, owner=who)

    def refund(self, pages: int) -> None:
        """Give back to the budget what was paid, or charged. Waits: never; may run in a finaliser."""
        budget = self.budget
        if budget is None:
            return
        if pages:
            units = pages * self.page_bytes
            record: Any = budget._record
            if record is not None:
                record.gave(units, self._label)
            budget.bring(units)
        budget.settle()  # `book` left that to us

    def give(self, pages: int) -> None:
        """So many charged pages are free. Waits: never; may be called from a finaliser."""
        if pages:
            self.charge.give(pages)
            self.refund(pages)

    def tell(self) -> None:
        """Something can be given that could not before: who waits for the budget asks again. Without any guard."""
        budget = self.budget
        if budget is not None and budget.is_wanted:
            budget.kick()

    def close(self) -> None:
        """Leave zone and budget, with nothing charged."""
        self.charge.close()
        budget = self.budget
        if budget is not None and self._throttle is not None:
            budget._meeting.change(partial(dirty_part.leave, budget, self._throttle))
        if budget is not None and self._giver is not None:
            budget.disown(self._giver)

    @property
    def _label(self) -> str:
        return f"cache {self.charge.name!r}"
