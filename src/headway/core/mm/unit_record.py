"""Who holds how many units of a budget: the record it keeps when asked to.

A unit has no identity, so what comes back has to be guessed: of what the one who gives back holds, the
latest, and what is in flight last; beyond that (someone gives back on another's behalf), of the others
the oldest, and what is in flight first.

It does not decide who gets units, nor refuse any: only a return of more than is out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import final

from headway.core.mm.ownership import Holding
from headway.core.plan import Guard
from headway.errors import UsageError


@final
class UnitRecord:
    """Holdings in the order they were taken. Its guard is its own, and tried, never waited for.

    A finaliser that interrupts it leaves its change in `_late`, for the next one who looks.
    """

    __slots__ = ("_complete", "_guard", "_holdings", "_late", "_name")

    def __init__(self, name: str, complete: bool, guard: Guard) -> None:
        self._name = name
        self._complete = complete  # tracing from birth: whatever is not in here is not out
        self._guard = guard
        self._holdings: list[Holding] = []
        self._late: list[tuple[str, int]] = []

    def took(self, units: int, owner: str, since_s: float, where: tuple[str, ...]) -> None:
        self._holdings.append(Holding(self._name, owner, since_s, where, count=units))
        self._settle()

    def gave(self, units: int, owner: str) -> None:
        """Raises: UsageError if so many are not out."""
        self._refuse(units, "were given back")
        self._late.append((owner, units))
        self._settle()

    def moved(
        self, units: int, owner: str, *, to: str | None = None, in_flight: bool = False
    ) -> None:
        """Raises: UsageError if so many are not out."""
        self._refuse(units, "were handed on")
        with self._guard:
            for part in self._pull(owner, units):
                self._holdings.append(replace(part, owner=to or part.owner, in_flight=in_flight))
        self._settle()

    def gather(self, owner: str) -> None:
        """Make one of all that `owner` holds, in flight, since the first of it: there may be thousands."""
        with self._guard:
            his = [holding for holding in self._holdings if holding.owner == owner]
            if his:
                count = sum(holding.count for holding in his)
                others = [holding for holding in self._holdings if holding.owner != owner]
                self._holdings = [replace(his[0], count=count, in_flight=True), *others]
        self._settle()

    def holdings(self) -> tuple[Holding, ...]:
        """Oldest first."""
        return tuple(sorted(self._holdings, key=lambda holding: holding.since_s))

    def _refuse(self, units: int, what: str) -> None:
        out = sum(holding.count for holding in list(self._holdings))
        out -= sum(late for _, late in list(self._late))
        if self._complete and units > out:
            raise UsageError(f"budget {self._name!r}: {units} units {what}, and {out} are out")

    def _settle(self) -> None:
        while self._late:
            if not self._guard.acquire(False):
                return  # whoever holds it looks again after letting go
            try:
                for owner, units in [self._late.pop() for _ in range(len(self._late))]:
                    self._pull(owner, units)
            finally:
                self._guard.release()

    def _pull(self, owner: str, units: int) -> list[Holding]:
        """Under the guard: take `units` off the record; what was taken off."""
        mine = [holding for holding in reversed(self._holdings) if holding.owner == owner]
        mine.sort(key=lambda holding: holding.in_flight)
        others = [holding for holding in self._holdings if holding.owner != owner]
        others.sort(key=lambda holding: not holding.in_flight)
        pulled = []
        for holding in mine + others:
            if units == 0:
                break
            count = min(units, holding.count)
            units -= count
            at = next(n for n, known in enumerate(self._holdings) if known is holding)
            if count == holding.count:
                del self._holdings[at]
            else:
                self._holdings[at] = replace(holding, count=holding.count - count)
            pulled.append(replace(holding, count=count))
        return pulled
