"""Whose job comes next, so that a client with many of them does not keep the others waiting.

It runs nothing: workers take jobs from here, under a lock of theirs. Clients take turns, one job
each; and one client has at most `most` jobs running, so that calls that hang do not take every
worker. A newcomer's first job waits for one job of each other client at most, and for no more than
one of them if a worker is free.

Source: round-robin service of flows; Nagle, "On packet switches with infinite storage" (RFC 970).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar, final

Item = TypeVar("Item")


@final
class FairQueue(Generic[Item]):
    """Items by key; keys take turns. Changed only under the lock of whoever owns it."""

    __slots__ = ("_most", "_ready", "_running", "_waiting")

    def __init__(self, most: int) -> None:
        assert most > 0
        self._most = most  # items of one key that may be out at once
        self._ready: OrderedDict[object, None] = OrderedDict()  # keys whose turn will come
        self._waiting: dict[object, deque[Item]] = {}  # never empty
        self._running: dict[object, int] = {}  # never 0

    def put(self, key: object, item: Item) -> bool:
        """Add an item; True if there is something to take for one more taker."""
        line = self._waiting.get(key)
        if line is None:
            line = self._waiting[key] = deque()
        line.append(item)
        return self._admit(key)

    def take(self) -> Item | None:
        """The item whose turn it is, or None; its key must be given to `done` when it is done."""
        if not self._ready:
            return None
        key, _ = self._ready.popitem(last=False)
        line = self._waiting[key]
        item = line.popleft()
        if not line:
            del self._waiting[key]
        self._running[key] = self._running.get(key, 0) + 1
        self._admit(key)
        return item

    def done(self, key: object) -> bool:
        """An item of `key` is done; True if there is something to take because of it."""
        left = self._running[key] - 1
        if left:
            self._running[key] = left
        else:
            del self._running[key]
        return self._admit(key)

    def _admit(self, key: object) -> bool:
        """Let a key take its turn, at the end of the line, if it may."""
        if key in self._waiting and self._running.get(key, 0) < self._most:
            self._ready.setdefault(key)
            return True
        return False

    def check_invariants(self) -> None:
        assert all(self._waiting.values()) and all(self._running.values())
        for key in self._waiting:
            assert (key in self._ready) == (self._running.get(key, 0) < self._most)
        assert all(key in self._waiting for key in self._ready)
