"""Who holds which element: the events a pool tells, and the record it keeps when asked to.

It does not decide who gets an element. Ownership has three ends: *free* (I give it back), *hand over*
(it is in flight, and its completion gives it back) and *transfer* (another task owns it now). Without
the second nobody could tell the bounce-buffer deadlock of 2009 from its cure: what is in flight comes
back by itself, what is held comes back only if its holder moves on.

Source: lockdep's "held" list, with the ownership move that its cross-release lacked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

from headway.errors import UsageError


@final
@dataclass(
    slots=True
)  # frozen it took a microsecond more to make, and there are two to a watched pair
class Event:
    """One thing that happened to a pool: request, grant, release, hand_over, transfer or give_up. Not to be changed."""

    kind: str
    pool: Any
    owner: str
    count: int = 1
    element: Any = None
    to: str | None = None
    mask: int = 0  # of a request: what it may do (`Gfp`), without what the scope took away
    gives_up: str = ""  # of a request: how it ends if it gets nothing: "none" or "PoolTimeout"
    part: int = 0  # of a request for several budgets at once: which of them this is


Hook: TypeAlias = Callable[[Event], object]


@final
@dataclass(frozen=True, slots=True)
class Holding:
    """An element, or `count` units, that is out: since when (seconds on the pool's clock), taken where."""

    pool: str
    owner: str
    since_s: float
    where: tuple[str, ...]
    in_flight: bool = False
    count: int = 1

    def describe(self, now_s: float) -> str:
        verb = "put in flight" if self.in_flight else "held"
        if self.count != 1:
            verb = f"{self.count} {verb}"
        place = f" at {self.where[0]}" if self.where else ""
        return f"{verb} by {self.owner} for {now_s - self.since_s:.3f} s{place}"


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits: for `need` elements or units, since when (seconds on the pool's clock)."""

    owner: str
    need: int
    since_s: float | None


@final
class Record:
    """Every element that is out, by identity.

    Each change is one atomic operation on a dictionary, so no guard is needed, and `free` may interrupt.
    """

    __slots__ = ("_complete", "_holdings", "_pool", "_twins")

    def __init__(self, pool: str, complete: bool) -> None:
        self._pool = pool
        self._complete = complete  # tracing from birth: whatever is not in here is not out
        self._holdings: dict[int, Holding] = {}
        self._twins: list[tuple[int, Holding]] = []  # an element that is in the pool more than once

    def took(self, key: int, owner: str, since_s: float, where: tuple[str, ...]) -> None:
        holding = Holding(self._pool, owner, since_s, where)
        if self._holdings.setdefault(key, holding) is not holding:
            self._twins.append((key, holding))

    def gave(self, key: int) -> None:
        """Raises: UsageError if the element is not out (freed twice, or not of this pool)."""
        for twin in self._twins:
            if twin[0] == key:
                self._twins.remove(twin)
                return
        if self._holdings.pop(key, None) is None and self._complete:
            raise UsageError(
                f"pool {self._pool!r}: an element was freed that is not out: freed twice, or of another pool"
            )

    def moved(self, key: int, *, owner: str | None = None, in_flight: bool = False) -> None:
        holding = self._holdings.get(key)
        if holding is not None:
            self._holdings[key] = replace(
                holding, owner=owner or holding.owner, in_flight=in_flight
            )
        elif self._complete:
            raise UsageError(f"pool {self._pool!r}: an element was handed on that is not out")

    def holdings(self) -> tuple[Holding, ...]:
        """Oldest first."""
        out = [*self._holdings.values(), *(holding for _, holding in self._twins)]
        return tuple(sorted(out, key=lambda holding: holding.since_s))
