"""The smallest safe size of each pool: from which on every larger one, up to a sum, is safe as well.

It does not invent a formula: each size is searched on the real code, and a size counts as safe only
if its search was complete. Sizes can have holes (two tasks that take two and then one hang on four
elements, and not on three), so it goes *down* from a size that is enough and stops at the first
that is not safe.

What is enough: the sum over all tasks of the most each holds and asks for; then nobody ever waits. It
is learned from one run in pools so large that nobody waits.

Source: T2 and T3 of the theory of reserves; N*(K-1)+1 is HikariCP's rule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from headway.checker.crew import Crew
from headway.checker.explore import Result, Search
from headway.checker.trial import Settings

_ROUNDS = 64  # no pool is tried at more sizes than this


def resized(pool: Any, size: int) -> None:
    """Make a pool that was just made another size, before anybody uses it."""
    if hasattr(pool, "capacity"):
        elements = pool._reserve
        for number in range(pool.capacity, size):
            last = elements[-1] if elements else number
            elements.append(last + 1 if isinstance(last, int) else copy.copy(last))
        del elements[size:]
        pool.capacity = pool.min_count = size
    else:
        pool.resize(size)


def smallest_sizes(
    program: Callable[[], Any],
    settings: Settings,
    first: Result,
    max_schedules: int,
    crew: Crew | None = None,
) -> dict[str, int | None]:
    """For each pool the smallest safe size, the others as they are; None where that is not known.

    If no size of one pool alone is safe, the others are made large enough. At most `max_schedules` runs.
    """
    bounds = _enough(program, settings, first)
    if bounds is None:
        return dict.fromkeys(first.counts)
    spent = 0

    def search(sizes: Mapping[str, int]) -> Result:
        nonlocal spent
        at = replace(settings, sizes=dict(sizes), resize=resized)
        most = max(1, max_schedules - spent)
        result = Search(program, at, most, sampled=False, crew=crew).run()
        spent += result.schedules
        return result

    found: dict[str, int | None] = {}
    for name in first.counts:
        grain = max(1, first.grain.get(name, 1))
        alone = {other: first.counts[other] for other in first.counts if other != name}
        found[name] = _descend(name, bounds[name], grain, alone, search)
        if found[name] is None:
            others = {other: bounds[other] for other in first.counts if other != name}
            found[name] = _descend(name, bounds[name], grain, others, search)
    return found


def _enough(program: Callable[[], Any], settings: Settings, first: Result) -> dict[str, int] | None:
    """Sizes at which nobody waits; None if the tasks do not end well even so."""
    # Nothing is known yet of what the code asks for after its first wait: be generous, then look again,
    # because the reserve of a pool over a pool is itself an asking.
    bounds = {name: max(first.wanted.get(name, 1), n) * 8 for name, n in first.counts.items()}
    for _ in range(3):
        roomy = Search(program, replace(settings, sizes=bounds, resize=resized), 1)
        if not roomy.learn():
            return None
        bounds = {name: max(1, roomy.result.wanted.get(name, 1)) for name in bounds}
    return bounds


def _descend(
    name: str,
    bound: int,
    grain: int,
    others: Mapping[str, int],
    search: Callable[[Mapping[str, int]], Result],
) -> int | None:
    """Sizes between two multiples of the grain are like the lower one: all that is asked for are multiples."""
    safe: int | None = None
    for size in range(bound, max(0, bound - _ROUNDS * grain), -grain):
        result = search({**others, name: size})
        if result.finding is not None:
            return safe
        if not result.complete:
            return None
        safe = size
    return safe if safe is not None and safe <= grain else None
