"""What caches of a budget, and of those below it, may have dirty in a zone: a fifth, at every level.

It counts nothing by itself (`headway.core.mm.dirty` does), and ends with the last cache that counts in it, so
a budget that outlives its zones keeps nothing of them. A value counts at its cache's budget and at all above, as
its units do. The limit follows `Budget.resize`; what is dirty already is written when more is made dirty, or when
room is made.

Bound: a fifth of each budget, a page at least, plus one value for each thread that dirties. Else a budget could
be all dirty, and who may not do I/O would wait for a background that has a whole zone to fill.

Source: Linux ``mm/page-writeback.c``, the domain of a memory cgroup (6.12). Departure: it holds at every level.
"""

from __future__ import annotations

from typing import Any, Final, final

from headway.core.mm.domain import Domain

DIRTY_PART: Final = 5  # of a budget may be dirty, and half of that before it is written


@final
class DirtyPart(Domain):
    """One budget's, in one zone. `caches` changes under the budget's guard."""

    __slots__ = ("_least", "caches")

    def __init__(self, name: str, capacity: int, least: int, above: Domain | None) -> None:
        super().__init__(f"dirty in budget {name}", max(capacity // DIRTY_PART, least), None, above)
        self._least = least
        self.caches = 0

    def follow(self, capacity: int) -> None:
        """The budget has another limit."""
        self.limit = max(capacity // DIRTY_PART, self._least)
        self.background = self.limit // 2


def enter(budget: Any, throttle: Any, least: int) -> DirtyPart:
    """Under the budget's guard: one cache more counts its dirty data there, and above; `least` is a page."""
    above = None if budget.parent is None else enter(budget.parent, throttle, least)
    part: DirtyPart | None = budget.dirty.get(throttle)
    if part is None:
        part = budget.dirty[throttle] = DirtyPart(budget.name, budget.capacity, least, above)
    part.caches += 1
    return part


def leave(budget: Any, throttle: Any) -> None:
    """Under the budget's guard: the cache is closed."""
    for level in budget.levels():
        part = level.dirty[throttle]
        part.caches -= 1
        if not part.caches:
            del level.dirty[throttle]
