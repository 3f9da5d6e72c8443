"""Make allocations fail on purpose, so that the reserve does the work: a public, documented option.

It does not make a pool fail: a hit skips the allocator, and the request goes to the reserve and then
waits. A fault is any callable that answers True for "fail this one"; chance is passed in by the
caller, so a run can be repeated.

Source: Linux ``lib/fault-inject.c`` (interval, times, space, probability).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, final

from headway.errors import UsageError

Fault: TypeAlias = Callable[[], bool]


@final
class FailAlloc:
    """Every `interval`-th allocation fails, after the first `space`, at most `times` times (None: for ever).

    With `chance` (a callable giving 0.0 to 1.0, such as ``random.Random(7).random``) only the share
    `probability` of those does.
    """

    __slots__ = ("chance", "hits", "interval", "probability", "seen", "space", "times")

    def __init__(
        self,
        interval: int = 1,
        *,
        space: int = 0,
        times: int | None = None,
        probability: float = 1.0,
        chance: Callable[[], float] | None = None,
    ) -> None:
        if interval < 1:
            raise UsageError(
                f"FailAlloc: interval is {interval}; every how many-th fails? 1 or more"
            )
        self.interval = interval
        self.space = space
        self.times = times
        self.probability = probability
        self.chance = chance
        self.seen = 0
        self.hits = 0

    def __call__(self) -> bool:
        self.seen += 1
        past = self.seen - self.space
        if (
            past <= 0
            or past % self.interval
            or (self.times is not None and self.hits >= self.times)
        ):
            return False
        if self.chance is not None and self.chance() >= self.probability:
            return False
        self.hits += 1
        return True

    def __repr__(self) -> str:
        return f"<FailAlloc every {self.interval}, {self.hits} of {self.seen} failed>"
