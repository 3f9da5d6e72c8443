"""Clock lists: which of many entries is to go next, where a hit costs one store.

It drops nothing: it asks a *judge* about each entry it passes, and takes out what the judge wants gone.
A hit leaves a stamp in `touched`; that is the reference bit, and the time of the last use as well. The
hand passes over a touched entry once, taking the stamp away (it is kept in `aged`); so a hit protects
for one lap. A new entry goes in just behind the hand, untouched, since it would otherwise have two laps.

The ring is an ordered mapping whose front is where the hand points: to pass over is to move the front to
the end, to go in behind the hand is to be appended, and taking any entry out is O(1).

Bound: one walk asks about each entry at most once, and passes over each at most twice.

Source: Linux ``drivers/md/dm-bufio.c`` (``lru_insert``, ``lru_evict``, 6.12). Departure: the hand is the
front of the list, so there is no cursor to mend when an entry is removed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar, final


class Verdict(Enum):
    """What a judge says of an entry."""

    EVICT = "evict"
    KEEP = "keep"  # not this one; ask about the next
    STOP = "stop"  # neither this one nor any after it


EVICT: Final = Verdict.EVICT
KEEP: Final = Verdict.KEEP
STOP: Final = Verdict.STOP


class Entry(Protocol):
    """What a clock keeps. Both in seconds of the runtime's clock."""

    #: When it was last used, if that was since the hand passed; set by anybody.
    touched: float | None
    #: When it was last used before that; changed only by the hand.
    aged: float


E = TypeVar("E", bound=Entry)


@final
class Clock(Generic[E]):
    """A ring of entries and a hand. Without a guard of its own: whoever owns it holds one."""

    __slots__ = ("_ring",)

    def __init__(self) -> None:
        self._ring: OrderedDict[E, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[E]:
        """From the hand on; not to be changed meanwhile."""
        return iter(self._ring)

    def __contains__(self, entry: E) -> bool:
        return entry in self._ring

    def add(self, entry: E) -> None:
        """Put an entry in, just behind the hand."""
        assert entry not in self._ring
        self._ring[entry] = None

    def remove(self, entry: E) -> None:
        del self._ring[entry]

    def evict(self, judge: Callable[[E], Verdict]) -> E | None:
        """Take out the first entry that the judge wants gone; None if there is none.

        The walk goes on next time where it ended now.
        """
        ring = self._ring
        asked, passed = len(ring), len(ring)
        while asked:
            entry = next(iter(ring))
            if entry.touched is not None and passed:
                entry.aged, entry.touched = entry.touched, None
                passed -= 1  # hits may come as fast as the hand goes: they do not keep it going
                ring.move_to_end(entry)
                continue
            verdict = judge(entry)
            if verdict is EVICT:
                del ring[entry]
                return entry
            if verdict is STOP:
                return None
            ring.move_to_end(entry)
            asked -= 1
        return None

    def __repr__(self) -> str:
        return f"<Clock of {len(self._ring)}>"


def last_used(entry: Entry) -> float:
    """When it was last used, as far as it was noted. Units: seconds of the runtime's clock."""
    touched = entry.touched
    return entry.aged if touched is None else touched
