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
@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a pool: request, grant, release, hand_over, transfer or give_up."""

    kind: str
    pool: Any
    owner: str
    count: int = 1
    element: Any = None
    to: str | None = None


Hook: TypeAlias = Callable[[Event], object]


@final
@dataclass(frozen=True, slots=True)
class Holding:
    """An element that is out: since when (seconds on the pool's clock), and taken where."""

    pool: str
    owner: str
    since_s: float
    where: tuple[str, ...]
    in_flight: bool = False

    def describe(self, now_s: float) -> str:
        verb = "put in flight" if self.in_flight else "held"
        place = f" at {self.where[0]}" if self.where else ""
        return f"{verb} by {self.owner} for {now_s - self.since_s:.3f} s{place}"


@final
class Record:
    """Every element that is out, by identity.

    Each change is one atomic operation on a dictionary, so no guard is needed, and `free` may interrupt.
    """

    __slots__ = ("_complete", "_holdings", "_pool")

    def __init__(self, pool: str, complete: bool) -> None:
        self._pool = pool
        self._complete = complete  # tracing from birth: whatever is not in here is not out
        self._holdings: dict[int, Holding] = {}

    def took(self, key: int, owner: str, since_s: float, where: tuple[str, ...]) -> None:
        self._holdings[key] = Holding(self._pool, owner, since_s, where)

    def gave(self, key: int) -> None:
        """Raises: UsageError if the element is not out (freed twice, or not of this pool)."""
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
        return tuple(sorted(self._holdings.values(), key=lambda holding: holding.since_s))
