"""A pool as it was made, and how more of what it gives is made, so that no request need wait while code is learned.

It does not decide when (`learn` does). An element is one like the first of its pool; a unit of a budget has no
looks, so its limit is raised.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, final

from headway.checker.budgets import Units


@final
@dataclass(slots=True)
class PoolFacts:
    """A pool as it was made, before anything was taken."""

    pool: Any
    name: str
    size: int
    is_fixed: bool
    sample: Any = None
    asked: int = 0  # by the request made last
    supplied: int = 0  # units made for a budget

    @property
    def is_budget(self) -> bool:
        return isinstance(self.pool, Units)

    @property
    def takes_any_request(self) -> bool:
        """Whether a request larger than the pool waits in its line (a model's), and is not refused at once."""
        return bool(getattr(self.pool, "takes_any_request", False))

    @property
    def is_resized(self) -> bool:
        """Whether the code has changed its size: a fixed pool has none to change, and grows by what is made here."""
        fixed = self.is_fixed and not self.is_budget
        return not fixed and self.pool.min_count != self.size + self.supplied

    def supply(self, count: int) -> None:
        """Make so many more, of elements like its own, or of units."""
        if self.is_budget:
            self.pool.resize(self.pool.min_count + count)
            self.supplied += count
            return
        for _ in range(count):
            self.pool.capacity += 1
            self.pool.put_back(_another(self))


def _another(facts: PoolFacts) -> Any:
    """One more element like those of a fixed pool."""
    if isinstance(facts.sample, int):
        facts.sample = max(facts.sample, facts.pool.capacity + 1_000_000) + 1
        return facts.sample
    return copy.copy(facts.sample)
