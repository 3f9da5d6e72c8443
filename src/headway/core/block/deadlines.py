"""When requests are due: in, out and the earliest, each in constant time.

It does not look at a clock or wake anybody. Requests with the same timeout fall due in the order of
their start, so each timeout has a queue of its own, and the earliest of all is the first of one of
them. A heap would keep what has ended until it is due: a million entries for fast requests with a
long timeout.

Bound: one entry for each request under way, one queue for each timeout in use.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final


@final
class Deadlines:
    """Tags and their deadlines, in seconds; all methods under the owner's guard."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[int, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, tag: int, now_s: float, timeout_s: float) -> float:
        """The deadline."""
        deadline_s = now_s + timeout_s
        self._queues.setdefault(timeout_s, OrderedDict())[tag] = deadline_s
        return deadline_s

    def drop(self, tag: int, timeout_s: float | None) -> None:
        """Forget it, if it is there."""
        queue = None if timeout_s is None else self._queues.get(timeout_s)
        if queue is not None and timeout_s is not None:
            queue.pop(tag, None)
            if not queue:
                del self._queues[timeout_s]

    def passed(self, now_s: float) -> list[int]:
        """What is due by now; it stays in."""
        due = []
        for queue in self._queues.values():
            for tag, deadline_s in queue.items():
                if deadline_s > now_s:
                    break
                due.append(tag)
        return due

    def next_s(self, but: int = 0) -> float | None:
        """The earliest, leaving out one tag; None if there is none."""
        firsts = []
        for queue in self._queues.values():
            first = next((at_s for tag, at_s in queue.items() if tag != but), None)
            if first is not None:
                firsts.append(first)
        return min(firsts, default=None)
