"""A budget as the checker sees it: with the face of a pool whose elements have no name.

It decides nothing: what is granted is the budget's own doing. It counts what is out of this level alone (a budget
counts what is out of those below as well), and says whether a request could be served if everybody outside a circle
of waiting tasks gave back what it holds: at this level, and at each above what its floors do not cover.

Source: graph reduction of reusable resources (Holt 1972), for levels as in ``headway.core.mm.account``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from headway.core.mm.account import Account
from headway.core.plan import Ticket


@final
@dataclass(frozen=True, slots=True)
class Numbers:
    """What is asked of any pool: its size, what lies ready, what is out."""

    min_count: int
    reserve_count: int
    outstanding: int


@final
class Units:
    """The face of one budget; `out` is what tasks have, or have in flight, of this very level."""

    def __init__(self, budget: Any) -> None:
        self.budget = budget
        self.name: str = budget.name
        self.out = 0
        self.flight = 0

    @property
    def wake(self) -> Any:
        return self.budget.wake

    @property
    def reserve_count(self) -> int:
        room: int = min(level.room for level in self.budget.levels())
        return room

    @property
    def in_bytes(self) -> bool:
        """Whether its units are bytes: so it was made by a size in words."""
        return self.show(1) != "1"

    @property
    def closed(self) -> bool:
        closed: bool = self.budget.closed
        return closed

    @property
    def is_flat(self) -> bool:
        """Whether it is a pool of units and no more: no level above, no reserve, nothing to reclaim or to force."""
        budget = self.budget
        return not (
            budget.parent is not None
            or budget.reserve
            or budget.floors
            or budget.force
            or budget.gives_way
        )

    @property
    def min_count(self) -> int:
        capacity: int = self.budget.capacity
        return capacity

    def show(self, units: int) -> str:
        shown: str = self.budget.show(units)
        return shown

    def stats(self) -> Numbers:
        return Numbers(self.budget.capacity, self.reserve_count, self.out)

    @property
    def kept(self) -> tuple[int, int]:
        """What ordinary requests at this level never get: its reserve, and the floors below it."""
        return self.budget.reserve, self.budget.floors

    def resize(self, size: int) -> None:
        self.budget.resize(size)

    def state(self, ranks: Mapping[Ticket, int]) -> tuple[Any, ...]:
        """What the future depends on beside what tasks did: room, limit, and who starves here, by order of arrival."""
        budget = self.budget
        starving = sorted(
            (ranks.get(ask.ticket, -1), ask.entitled, ask.asked is ask.short)
            for ask in budget.starving
            if ask.ticket is not None
        )
        return budget._room + sum(budget._home), budget.floors, budget.closed, tuple(starving)


def could_serve(
    faces: Sequence[Any], index: int, units: int, entitled: bool, inside: Sequence[int]
) -> bool:
    """Whether `units` of a budget could be had, if of each level only what stands in `inside` were out."""
    held = {face.budget: inside[n] for n, face in enumerate(faces) if isinstance(face, Units)}

    def drawn(level: Account) -> int:
        below = (other for other in held if other.parent is level)
        above: int = sum(max(0, drawn(other) - other.floor) for other in below)
        return held[level] + above

    for level in faces[index].budget.levels():
        if not units or (entitled and level.force):
            return True
        if level not in held:
            return True
        before = drawn(level)
        if before + units > level.most(entitled):
            return False
        units = max(level.floor, before + units) - max(level.floor, before)
    return True
