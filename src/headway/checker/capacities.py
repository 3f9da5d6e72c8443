"""Which capacities of one pool are safe: every one of them, for sizes can have holes.

Two tasks that take two and then one, served as they fit, hang on four units and not on three; so there
is no bisection here: each capacity is searched. From the sum of the most that each task holds and
asks for, nobody ever waits for the pool, and all larger ones behave alike: the search ends there.

*Safe* is: no schedule ends in a deadlock. Units that are never given back do not make a size unsafe;
``headway check`` calls that a leak, and no size cures it.

Source: T3 of the theory of reserves, the reserve anomaly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from headway.checker.counts import MAX_STATES, Search
from headway.checker.locals import Locals
from headway.checker.model import Model
from headway.errors import HeadwayError

Progress = Callable[[str, int, int], None]


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """The capacities 1 to N of a pool, told apart; `smallest` is where only safe ones follow, at any size."""

    smallest: int | None
    safe: tuple[int, ...]
    unsafe: tuple[int, ...]
    law: dict[str, Any] | None = None

    def json(self) -> dict[str, Any]:
        return {
            "smallest": self.smallest,
            "safe": list(self.safe),
            "unsafe": list(self.unsafe),
            "law": self.law,
        }


def sizes(
    model: Model, pool: str, most: int | None = None, progress: Progress | None = None
) -> Sizes:
    """Judge every capacity of `pool` from 1 to `most` (twice the sum of all takes), the others as they are.

    Raises: UsageError if there is no such pool; HeadwayError if a capacity has too many states to see all.
    """
    index = model.index(pool)
    if most is None:
        most = max(1, 2 * model.taken(index))
    is_safe = judged(Locals(model), model, index, progress)
    last = len(is_safe) - 1  # from here on all are alike
    safe = tuple(n for n in range(1, most + 1) if is_safe[min(n, last)])
    unsafe = tuple(n for n in range(1, most + 1) if not is_safe[min(n, last)])
    return Sizes(first_of_safe(is_safe), safe, unsafe)


def judged(
    locals_: Locals,
    model: Model,
    pool: int,
    progress: Progress | None = None,
    max_states: int = MAX_STATES,
) -> list[bool]:
    """Whether each capacity from 1 on is safe, up to one from which on all are alike; at 0 stands False."""
    enough = max(1, locals_.enough()[pool])
    verdicts = [False]
    for size in range(1, enough + 1):
        found = Search(locals_, model.at(pool, size).capacities, max_states).run(shortest=False)
        if not found.dead and not found.complete:
            raise HeadwayError(
                f"size {size} of pool {model.pools[pool]}: over {max_states} states, not all seen; "
                "lower the counts of the actors, or the steps"
            )
        verdicts.append(not found.dead)
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
