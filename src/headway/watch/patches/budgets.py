"""headway's budgets: what is asked, granted and given back in units.

A budget is watched as a pool of grants: as many as its largest request fits into it. A grant that comes
back in parts is out until the last of them. Who may take the reserve waits for nobody who has not. Only the
budget that is asked is seen, not those above it.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

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
                hook = _hook(ledger, maps, known, self)
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


def _hook(ledger: Ledger, maps: Maps, known: Pool, of: Any) -> Any:
    """What tells the ledger of one budget's events."""
    budget = weakref.ref(of)
    largest, flying = 1, 0  # flying: units handed on, which others give back

    def request(units: int, mask: int) -> None:
        nonlocal largest
        asked = budget()
        if units > largest and asked is not None:
            largest = units
            known.resized(max(1, asked.capacity // largest))
        if mask & _MEMALLOC and asked is not None and asked.reserve:
            return  # it has the reserve, which nobody holds who waits for others
        if mask & (_WAITS | _NORETRY) == _WAITS:
            owner = ledger.ask(known)
            touch(maps, Gfp(mask))
            if len(known.out) >= (known.size or 0) and owner.wait is None:
                ledger.wait("a budget", known, owner=owner)

    def over() -> None:
        wait = ledger.current().wait
        if wait is not None and wait.pool is known:
            ledger.waited(wait)

    def back(units: int, holdings: list[Any]) -> int:
        for holding in [h for h in reversed(holdings) if h.pool is known]:
            left = holding.element  # a list of one: how many units of this grant are out
            part = min(left[0], units)
            left[0] -= part
            units -= part
            if not left[0]:
                ledger.release(known, left)
        return units

    def release(units: int) -> None:
        nonlocal flying
        units = back(units, ledger.current().held)
        landed = min(units, flying)
        flying -= landed
        back(units - landed, known.out)

    def fly(units: int) -> None:
        nonlocal flying
        flying += units

    def hook(event: Any) -> None:
        match event.kind:
            case "request":
                request(event.count, event.mask)
            case "grant":
                over()
                ledger.grant(known, [event.count])
            case "give_up":
                over()
            case "release":
                release(event.count)
            case "hand_over" | "transfer":  # it comes back by itself, or by another's hand
                release(event.count)
                fly(event.count)

    return hook
