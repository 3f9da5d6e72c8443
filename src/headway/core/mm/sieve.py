"""Which of the cached objects goes next: SIEVE, a queue by age that spares what was used.

It does not count what is kept, and does not know who wants room (`headway.core.mm.cache` does).
Objects stand in the order of their arrival. A hand goes from the oldest to the youngest and round
again; what was used since it last came by is spared where it stands, the first that was not goes.
A use only sets a mark on the object, so a hit needs no lock and moves nothing; newcomers that are
never used again go before what has proved itself, which least-recently-used order cannot see.

Bound: a look at an object is one step; after one round with nothing used meanwhile, every object
that may go has been offered.

Source: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU", NSDI 2024; the mark and
the second chance are those of Linux ``fs/dcache.c``, ``dentry_lru_isolate``.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, final

K = TypeVar("K")
V = TypeVar("V")

LEAST: Final = 64  # bytes that a look at an object is charged for, however little it costs


@final
class Entry(Generic[K, V]):
    """One cached object. `used` is set by anybody; the rest changes under the cache's guard."""

    __slots__ = (
        "cost", "dirtied_s", "dirty", "key", "linked", "newer", "older", "used", "value",
    )  # fmt: skip

    def __init__(self, key: K, value: V, cost: int) -> None:
        self.key = key
        self.value = value
        self.cost = cost  # bytes
        self.used = False
        self.dirty = False  # what it holds is stored nowhere else
        self.dirtied_s = 0.0
        self.linked = False
        self.older: Entry[K, V] | None = None
        self.newer: Entry[K, V] | None = None


@final
class Sieve(Generic[K, V]):
    """Entries by age, and the hand. The owner holds its guard around each call."""

    __slots__ = ("_hand", "_newest", "_oldest", "count")

    def __init__(self) -> None:
        self.count = 0
        self._oldest: Entry[K, V] | None = None
        self._newest: Entry[K, V] | None = None
        self._hand: Entry[K, V] | None = None  # the next to look at; None: the oldest

    def add(self, entry: Entry[K, V]) -> None:
        """Enter as the youngest."""
        assert not entry.linked
        entry.linked = True
        last = entry.older = self._newest
        if last is None:
            self._oldest = entry
        else:
            last.newer = entry
        self._newest = entry
        self.count += 1

    def remove(self, entry: Entry[K, V]) -> None:
        """Leave, from any place."""
        assert entry.linked
        entry.linked = False
        older, newer = entry.older, entry.newer
        if self._hand is entry:
            self._hand = newer
        if older is None:
            self._oldest = newer
        else:
            older.newer = newer
        if newer is None:
            self._newest = older
        else:
            newer.older = older
        entry.older = entry.newer = None
        self.count -= 1

    def look(self) -> Entry[K, V] | None:
        """The next in turn, and the hand moves on; None if there is nobody."""
        entry = self._hand or self._oldest
        if entry is not None:
            self._hand = entry.newer
        return entry

    def sift(self, budget: int, wanted: int | None, dropped: list[Entry[K, V]]) -> tuple[int, int]:
        """Look at objects worth `budget` bytes, or until `wanted` bytes are gone: bytes looked at, and gone.

        What was not used since the hand came by, and is clean, leaves, and is put into `dropped`.
        """
        looked = gone = 0
        while looked < budget and (wanted is None or gone < wanted):
            entry = self.look()
            if entry is None:
                break
            cost = entry.cost
            looked += cost if cost > LEAST else LEAST
            if entry.used:
                entry.used = False
            elif not entry.dirty:
                self.remove(entry)
                gone += cost
                dropped.append(entry)
        return looked, gone

    def check_invariants(self) -> None:
        seen, hand = 0, self._hand is None
        entry, before = self._oldest, None
        while entry is not None:
            assert entry.linked and entry.older is before
            hand = hand or entry is self._hand
            before, entry = entry, entry.newer
            seen += 1
        assert seen == self.count and before is self._newest
        assert hand, "the hand points at one that has left"
