"""headway's budgets: what is asked, granted and given back in units.

A budget is watched as a pool of grants: as many as its largest request fits into it. A grant that comes
back in parts is out until the last of them. Who may take the reserve waits for nobody who has not. Only the
budget that is asked is seen, not those above it.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, final

from headway.core.mm.gfp import Gfp
from headway.runtimes import scopes
from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.maps import Maps
from headway.watch.patches import Patcher
from headway.watch.patches.reclaiming import touch

MODULE = "headway.budgets"
_NO_LIMIT = 1 << 40  # what the integrations write for none
_SEEN = ("headway.integrations.sqlalchemy", "headway.integrations.executor")  # by a patch of theirs
_MEMALLOC = int(Gfp.MEMALLOC)
_WAITS, _NORETRY = int(Gfp.DIRECT_RECLAIM), int(Gfp.NORETRY)


def install(patcher: Patcher) -> None:
    from headway import budgets

    ledger = patcher.ledger
    maps = Maps(ledger)
    hooked: list[tuple[Any, Any]] = []

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            inside = sys._getframe(1).f_globals.get("__name__") in _SEEN
            if not inside and scopes.ambient() is None and self.capacity < _NO_LIMIT:
                known = ledger.pool("budget", f"budget {self.name!r}", self.capacity, of=self)
                hook = Grants(ledger, maps, known, self).hook
                self.watch(hook)
                hooked.append((weakref.ref(self), hook))

        return __init__

    def unhook() -> None:
        for ref, hook in hooked:
            budget = ref()
            if budget is not None:
                budget.unwatch(hook)

    patcher.on_undo(unhook)
    patcher.replace(budgets.Budget, "__init__", init)


@final
class Grants:
    """What tells the ledger of one budget's events."""

    def __init__(self, ledger: Ledger, maps: Maps, known: Pool, budget: Any) -> None:
        self._ledger = ledger
        self._maps = maps
        self.known = known
        self._budget = weakref.ref(budget)
        self._largest = 1
        self._flying = 0  # units handed on, which others give back

    @classmethod
    def of(cls, budget: Any) -> Grants | None:
        """What watches a budget, if it is watched."""
        found = (getattr(hook, "__self__", None) for hook in budget._hooks)
        return next((one for one in found if isinstance(one, cls)), None)

    def hook(self, event: Any) -> None:
        match event.kind:
            case "request":
                self._request(event.count, event.mask, bool(event.gives_up))
            case "grant":
                self._over()
                self._ledger.grant(self.known, [event.count])
            case "give_up":
                self._over()
            case "release":
                self._release(event.count)
            case "hand_over" | "transfer":  # it comes back by itself, or by another's hand
                self._release(event.count)
                self._flying += event.count

    def _request(self, units: int, mask: int, timed: bool) -> None:
        known, budget = self.known, self._budget()
        if units > self._largest and budget is not None:
            self._largest = units
            known.resized(max(1, budget.capacity // units))
        if mask & _MEMALLOC and budget is not None and budget.reserve:
            return  # it has the reserve, which nobody holds who waits for others
        if mask & (_WAITS | _NORETRY) == _WAITS:
            owner = self._ledger.ask(known, timed)
            touch(self._maps, Gfp(mask))
            full = len(known.out) >= (known.size or 0) or (budget and budget.room < units)
            if full and owner.wait is None:
                self._ledger.wait("a budget", known, owner=owner)

    def _over(self) -> None:
        wait = self._ledger.current().wait
        if wait is not None and wait.pool is self.known:
            self._ledger.waited(wait)

    def _release(self, units: int) -> None:
        units = self._back(units, self._ledger.current().held)
        landed = min(units, self._flying)
        self._flying -= landed
        self._back(units - landed, self.known.out)

    def _back(self, units: int, holdings: list[Any]) -> int:
        for holding in [h for h in reversed(holdings) if h.pool is self.known]:
            left = holding.element  # a list of one: how many units of this grant are out
            part = min(left[0], units)
            left[0] -= part
            units -= part
            if not left[0]:
                self._ledger.release(self.known, left)
        return units
