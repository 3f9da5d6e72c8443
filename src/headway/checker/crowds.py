"""How many tasks a given size bears: the largest count of an actor at which no schedule deadlocks, or all of them.

*More tasks are never safer*: the others may simply not have started. So safe counts are 1 to some number, and
doubling and halving finds it. *And there is a count that stands for all*: tasks of a deadlock that hold something
hold a unit at least, so there are no more of them than units in all pools; who holds nothing matters only by standing
in front, once for each pool. A model that is safe at that many is safe at every number.

Source: cut-offs for parameterised systems (Emerson and Namjoshi 1995); T2 read backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from headway.checker.capacities import Meter
from headway.checker.counts import MAX_STATES, Search
from headway.checker.locals import Locals
from headway.checker.model import Model
from headway.checker.sums import is_plain, unsafe_sizes
from headway.errors import HeadwayError, UsageError


@final
@dataclass(frozen=True, slots=True)
class Crowd:
    """`largest` is the largest safe count, 0 if not even one is; None with `every` if all counts are safe."""

    actor: str
    largest: int | None
    every: bool
    cutoff: int

    def text(self) -> str:
        if self.every:
            return f"{self.actor}: any number of tasks is safe, the pools as they are"
        most = self.largest or 0
        return f"{self.actor}: safe up to a count of {most}, the pools as they are; {most + 1} can deadlock"

    def json(self) -> dict[str, Any]:
        return {"actor": self.actor, "largest": self.largest, "every": self.every}


def largest(model: Model, actor: str) -> Crowd:
    """The largest count of an actor that is safe, the pools and the other actors as they are.

    Raises: UsageError if there is no such actor; HeadwayError if a count has too many states to see all.
    """
    names = [known.name for known in model.actors]
    if actor not in names:
        raise UsageError(f"no actor {actor!r} in the model; it has {', '.join(names)}")
    index = names.index(actor)
    cutoff = sum(model.capacities) + len(model.pools) + 1
    meter = Meter(MAX_STATES)
    safe, count = 0, 1
    while _is_safe(model, index, count, meter):
        if count == cutoff:
            return Crowd(actor, None, True, cutoff)
        safe, count = count, min(2 * count, cutoff)
    while count - safe > 1:
        middle = (safe + count) // 2
        if _is_safe(model, index, middle, meter):
            safe = middle
        else:
            count = middle
    return Crowd(actor, safe, False, cutoff)


def _is_safe(model: Model, index: int, count: int, meter: Meter) -> bool:
    actors = list(model.actors)
    actors[index] = replace(actors[index], count=count)
    crowd = replace(model, actors=tuple(actors))
    locals_ = Locals(crowd)
    if is_plain(locals_):
        return not unsafe_sizes(locals_) >> model.capacities[0] & 1
    found = Search(locals_, crowd.capacities, meter.left).run(shortest=False)
    meter.left -= found.states
    if not found.dead and not found.complete:
        raise HeadwayError(
            f"{count} of {actors[index].name}: more than {meter.all} states, and not all seen; "
            "lower the other counts, or the steps"
        )
    return not found.dead
