"""Which capacities of one pool are safe: every one of them, for sizes can have holes.

Two tasks that take two and then one, served as they fit, hang on four units and not on three; so there
is no bisection here: each capacity is searched or, in the plain case, added up (`sums`). From the sum of
the most that each task holds and asks for, nobody ever waits for the pool, and all larger ones behave
alike: the search ends there.

*Safe* is: no schedule ends in a deadlock. Units that are never given back do not make a size unsafe;
``headway check`` calls that a leak, and no size cures it.

Source: T3 of the theory of reserves, the reserve anomaly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, final

from headway.checker.counts import MAX_STATES, Found, Search
from headway.checker.crew import Crew
from headway.checker.locals import Locals
from headway.checker.model import Model
from headway.checker.sums import is_plain, unsafe_sizes
from headway.checker.telling import tell
from headway.errors import HeadwayError

_MOST_STATES = 10 * MAX_STATES

Progress = Callable[[str, int, int], None]


@final
class _Cell:
    """What the searches of all capacities share: in another process only the model, and the limit as it was."""

    def __init__(self, locals_: Locals, model: Model, pool: int, meter: Meter) -> None:
        self.locals_ = locals_
        self.model = model
        self.pool = pool
        self.meter = meter

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.model, self.pool, self.meter.left)


def _again(model: Model, pool: int, states: int) -> _Cell:
    return _Cell(_locals(model), model, pool, Meter(states))


@lru_cache(maxsize=4)
def _locals(model: Model) -> Locals:
    return Locals(model)


def _searched(cell: _Cell, size: int) -> Found:
    capacities = cell.model.at(cell.pool, size).capacities
    return Search(cell.locals_, capacities, cell.meter.left).run(shortest=False)


@final
class Meter:
    """How many states may still be opened, of `all`, by searches that share it."""

    __slots__ = ("all", "left")

    def __init__(self, states: int) -> None:
        self.all = self.left = states


def judged(
    locals_: Locals,
    model: Model,
    pool: int,
    progress: Progress | None = None,
    meter: Meter | None = None,
    crew: Crew | None = None,
) -> list[bool]:
    """Whether each capacity from 1 on is safe, up to one from which on all are alike; at 0 stands False."""
    enough = max(1, locals_.enough()[pool])
    if is_plain(locals_):
        unsafe = unsafe_sizes(locals_)
        return [size > 0 and not unsafe >> size & 1 for size in range(enough + 1)]
    meter = meter or Meter(_MOST_STATES)
    verdicts = [False]
    sizes = range(1, enough + 1)
    cell = _Cell(locals_, model, pool, meter)
    for size, found in zip(sizes, (crew or Crew()).map(_searched, cell, sizes), strict=True):
        meter.left -= (
            found.states
        )  # below 0: what was done ahead has seen more than was left in its turn
        if meter.left < 0 or (not found.dead and not found.complete):
            raise HeadwayError(
                f"size {size} of pool {model.pools[pool]}: {meter.all} states, and not all seen; "
                "lower the counts of the actors, or the steps"
            )
        verdicts.append(not found.dead)
        tell(f"sizes of {model.pools[pool]}", size, enough)
        if progress is not None:
            progress("capacities", size, enough)
    return verdicts


def first_of_safe(is_safe: list[bool]) -> int | None:
    """The smallest capacity from which all are safe, of what `judged` found."""
    if not is_safe[-1]:
        return None
    size = len(is_safe) - 1
    while size > 1 and is_safe[size - 1]:
        size -= 1
    return size
