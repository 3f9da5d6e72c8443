"""Whether the queues made at one place are pools or roads: by what comes back, by whose hand, from which line.

A pool is filled, and then what was got is put back; on a road things pass. So this speaks for a pool: the same
object comes back by the hand of whoever got it, or of his parent or child. This speaks against one: something
else is put after the first was got, and what was got does not come back though whoever got it has ended, or
asks again from the same line. The majority decides, and may change. Some things are no return at all: a put from
a line that also puts what is new (a producer in a loop); and of a value that is the same object everywhere (a
number, a string, None) the first put from each line, and any by another's hand. A queue whose `task_done` is called
is a road for good.

Bound: a look at what is out for each judgement; 32 lines are remembered, and 8 elements that one owner has. It is a
road for good, and what is got is not remembered any more, when 64 were got and none came back, or 64 new ones were
put and fewer than a quarter as many came back.
"""

from __future__ import annotations

import weakref
from collections import Counter
from enum import Enum
from typing import Any, Final, final

from headway.watch.alive import living
from headway.watch.places import Place

_LINES: Final = 32
SURE: Final = 16  # so many came back: from which line no longer matters
_PASSED: Final = 64
_UNRETURNED: Final = 8  # so many of one owner are remembered
_VALUES: Final = (type(None), int, float, str, bytes, tuple, frozenset, type, Enum)


@final
class Road:
    """What was seen of all queues made at one place."""

    __slots__ = ("back", "gets", "late", "lost", "pools", "returns", "settled", "supplies")

    def __init__(self) -> None:
        self.back = 0  # what was got came back
        self.gets = 0  # while nothing came back
        self.late = 0  # something else was put, after the first had been got
        self.lost = 0  # will not come back: forgotten, or put again as something new
        self.settled = False  # it is a road, for good
        self.supplies: set[Place] = set()  # lines that put what is new
        self.returns: set[Place] = set()  # lines that put back a value once
        self.pools: weakref.WeakSet[Any] = weakref.WeakSet()

    def is_pool(self) -> bool:
        """What the evidence says now."""
        return (
            not self.settled
            and self.back >= max(1, self.late)
            and self.back > self.lost + sum(map(_astray, living(self.pools)))
        )

    def pays_back(self, holding: Any, owner: Any, place: Place) -> bool | None:
        """Whether `owner` gives back what he puts from here; None: he may, and it proves nothing."""
        taker, value = holding.owner, isinstance(holding.element, _VALUES)
        if taker is not owner:
            if value or (taker.parent is not owner and owner.parent is not taker):
                return False
        if self.back >= SURE:
            return True
        if place in self.supplies:
            return False
        if value and place not in self.returns:
            if len(self.returns) < _LINES:
                self.returns.add(place)
            return None
        return True

    def supplied(self, place: Place, late: bool) -> None:
        """Something new was put."""
        if len(self.supplies) < _LINES:
            self.supplies.add(place)
        if late:
            self.late += 1
            if self.late >= _PASSED and self.late > 4 * self.back:
                self.settle()

    def settle(self) -> None:
        """It is a road from now on."""
        self.settled, self.back = True, 0

    def spent(self, held: list[Any]) -> list[Any]:
        """What the next one displaces of all that an owner holds: the oldest, if he has so many from here."""
        if len(held) < _UNRETURNED:
            return []
        mine = [holding for holding in held if holding.pool.cls.road is self]
        return mine[:1] if len(mine) >= _UNRETURNED else []

    def passes(self) -> bool:
        """Whether what is got now is not worth remembering."""
        if not self.back and not self.settled:
            self.gets += 1
            if self.gets >= _PASSED:
                self.settle()
        return self.settled


def _astray(pool: Any) -> int:
    """How much of what is out will hardly come back: its taker has ended, or asks again from the same line."""
    out = list(pool.out)
    gone = sum(1 for holding in out if not holding.owner.alive())
    lines: Counter[Any] = Counter(
        (id(holding.owner), holding.place) for holding in out if holding.owner.alive()
    )
    for wait in list(pool.waiters):
        lines[id(wait.owner), wait.place] += 1
    return gone + sum(count - 1 for count in lines.values())
