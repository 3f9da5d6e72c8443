"""Objects in the order of their last use, counted exactly, in one list for each group.

It does not free anything: a walk asks a callback about each object, oldest first, and does what
the callback says. It is what a shrinker is usually made of.

The counts are kept apart from the lists, so that `count_objects` reads one integer and takes no
lock. Hence the invariant that is easy to break (a bug in it gave one kernel thread its name):
every list's count is its length, the total is their sum, an object is in one list at most, and
moving a whole group to another moves its count with it. `check_invariants` proves it.

Bound: a walk asks no more often than its budget, which is charged *before* each callback, so one
that always says RETRY, or ROTATE, ends too. It copies a window of the list at a time, each twice as
wide as the last, so that a storm of RETRYs costs its budget and not its budget's square.

Source: Linux ``mm/list_lru.c`` (6.12).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from itertools import islice
from typing import Final, Generic, TypeVar, final

from headway.core.plan import Guard, Runtime

K = TypeVar("K", bound=Hashable)


class Walk(Enum):
    """What a callback says about an object."""

    REMOVED = "removed"  # take it off the list
    REMOVED_RETRY = "removed, retry"  # take it off; the guard was dropped: start again
    ROTATE = "rotate"  # used again: to the young end
    SKIP = "skip"  # leave it where it is
    RETRY = "retry"  # the guard was dropped: start again
    STOP = "stop"  # end the walk, the object stays


Visit = Callable[[K, Guard], Walk]

_WINDOW: Final = 32
_TAKES_OFF: Final = (Walk.REMOVED, Walk.REMOVED_RETRY)
_STARTS_AGAIN: Final = (Walk.RETRY, Walk.REMOVED_RETRY)


@final
class ListLru(Generic[K]):
    """Lists of distinct objects, one for each group. Thread-safe; each operation is one step."""

    __slots__ = ("_counts", "_guard", "_lists", "_where", "count")

    def __init__(self, runtime: Runtime) -> None:
        self._guard = runtime.guard()
        self._lists: dict[str, OrderedDict[K, None]] = {}  # oldest first
        self._counts: dict[str, int] = {}
        self._where: dict[K, str] = {}
        #: Objects in all lists; may be read without the guard.
        self.count = 0

    def count_of(self, group: str) -> int:
        """Objects of one group; takes no lock."""
        return self._counts.get(group, 0)

    def add(self, item: K, group: str = "") -> bool:
        """Put an object at the young end; False if it is in some list already."""
        with self._guard:
            if item in self._where:
                return False
            self._lists.setdefault(group, OrderedDict())[item] = None
            self._where[item] = group
            self._account(group, 1)
            return True

    def remove(self, item: K) -> bool:
        """Take an object off its list; False if it was in none."""
        with self._guard:
            group = self._where.get(item)
            if group is None:
                return False
            self._take_off(item, group)
            return True

    def use(self, item: K) -> bool:
        """Note a use: the object moves to the young end; False if it is in no list."""
        with self._guard:
            group = self._where.get(item)
            if group is None:
                return False
            self._lists[group].move_to_end(item)
            return True

    def move_group(self, group: str, to: str) -> int:
        """Give a group's objects to another, as its youngest; how many."""
        with self._guard:
            moved = self._lists.pop(group, None) if group != to else None
            if not moved:
                return 0
            self._lists.setdefault(to, OrderedDict()).update(moved)
            for item in moved:
                self._where[item] = to
            self._account(group, -len(moved))
            self._account(to, len(moved))
            return len(moved)

    def walk(self, visit: Visit[K], budget: int, group: str = "") -> int:
        """Ask `visit` about at most `budget` objects, oldest first; how many were taken off.

        `visit` is called with the guard held, and gets it: it may release it, must take it again
        before it returns, and then has to say RETRY or REMOVED_RETRY.
        """
        removed = passed = 0  # `passed`: left where they are, so at the old end of the list
        window = _WINDOW
        with self._guard:
            while budget > 0:
                items = list(islice(self._lists.get(group, ()), passed, passed + window))
                if not items:
                    break
                window *= 2
                for item in items[:budget]:
                    budget -= 1
                    said = visit(item, self._guard)
                    if said in _TAKES_OFF:
                        if self._where.get(item) == group:  # else gone while the guard was free
                            self._take_off(item, group)
                            removed += 1
                    elif said is Walk.ROTATE:
                        self._lists[group].move_to_end(item)
                    elif said is Walk.SKIP:
                        passed += 1
                    if said in _STARTS_AGAIN:
                        passed, window = 0, _WINDOW
                        break
                    if said is Walk.STOP:
                        return removed
        return removed

    def _take_off(self, item: K, group: str) -> None:
        del self._lists[group][item]
        del self._where[item]
        self._account(group, -1)

    def _account(self, group: str, change: int) -> None:
        self._counts[group] = self._counts.get(group, 0) + change
        self.count += change

    def __len__(self) -> int:
        return self.count

    def __contains__(self, item: object) -> bool:
        return item in self._where

    def __repr__(self) -> str:
        return f"<ListLru: {self.count} objects in {len(self._lists)} lists>"

    def check_invariants(self) -> None:
        with self._guard:
            assert self.count == sum(self._counts.values()) == len(self._where)
            for group, count in self._counts.items():
                items = self._lists.get(group, OrderedDict[K, None]())
                assert count == len(items), "a list's count is not its length"
                for item in items:
                    assert self._where[item] == group, "an object is in a list that is not its own"
