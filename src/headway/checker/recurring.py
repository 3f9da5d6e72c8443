"""A model judged: by counts if it ends (`modelled`); else as code, with a function for each actor on the real pools.

It does not search or judge by itself. Where an actor loops, or begins again because a try came to nothing, a run
need not end; so it can be a livelock or starve somebody, which is told only of rounds that were carried out
(`branched`). The code says what the file says, step by step; there is no choice in it and no request for several
pools (`model`). A request larger than its pool waits in line, for ever, as in a model that ends; a try for so many
always comes to nothing.

Departure from models that end: who is served *as it fits* is who came first among those who fit, as in the pools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import headway
from headway.checker import modelled
from headway.checker import target as checking
from headway.checker.capacities import Progress, first_of_safe
from headway.checker.crew import Crew
from headway.checker.model import FIFO, Act, Actor, Model
from headway.checker.modelled import Sizes
from headway.checker.report import Report
from headway.core.mm.ladder import Wake
from headway.core.mm.pools import Climbing
from headway.errors import HeadwayError, UsageError
from headway.runtimes.scopes import made_for
from headway.threaded import FixedMempool

_STATES = 50  # of a model that ends, to a schedule
_SCHEDULES = 1000  # to judge one size by
_MOST_SIZES = 1000


class _Pool(FixedMempool[int]):
    """A pool of a model: what is larger than it waits in line as the rules say, and is not refused at once."""

    __slots__ = ()

    takes_any_request = True

    def check_count(self, count: int) -> None:
        Climbing.check_count(self, count)


def check(
    model: Model,
    *,
    target: str = "",
    max_schedules: int,
    sizes: bool = True,
    crew: Crew | None = None,
) -> Report:
    """The report on a model: by counts if it ends, as code if it recurs.

    Raises: UsageError if `max_schedules` is below 1, or if a model that recurs has no task.
    """
    if not model.recurs:
        states = _STATES * max_schedules
        return modelled.check(model, target=target, max_states=states, sizes=sizes, crew=crew)
    report = checking.check(
        program_of(model), target=target, max_schedules=max_schedules, sizes=sizes, ambient=made_for
    )
    assumed = report.assumed
    if model.wake != FIFO:
        assumed = (*assumed, "of those whose request fits, who came first is served first")
    return replace(report, method="recurring", assumed=assumed)


def replay(model: Model, schedule: str, *, target: str = "") -> Report:
    """Run one schedule of the report on a model. Raises: UsageError if it is none of this model."""
    if not model.recurs:
        return modelled.replay(model, schedule, target=target)
    return checking.replay(program_of(model), schedule, target=target, ambient=made_for)


def sizes(
    model: Model,
    pool: str,
    most: int | None = None,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Sizes:
    """Judge every capacity of `pool` from 1 to `most` (twice the sum of all takes), the others as they are.

    Of a model that recurs each size is judged as `check` does, but for leaks, which no size cures; one is safe if
    nobody is stuck, goes round in vain or starves. From the sum of the takes of one round on, nobody waits for the
    pool and no try of it fails, so all those are alike. There is no law of it.
    Raises: UsageError if there is no such pool, or there are too many sizes; HeadwayError if one of them has
    too many states to see all.
    """
    if not model.recurs:
        return modelled.sizes(model, pool, most, progress, crew)
    index = model.index(pool)
    last = max(1, model.taken(index))
    most = 2 * last if most is None else most
    if max(most, last) > _MOST_SIZES:
        raise UsageError(
            f"pool {pool}: {max(most, last)} sizes of a model that recurs are to be judged, one by one; at most "
            f"{_MOST_SIZES} can be"
        )
    is_safe = [False]  # of none
    for size in range(1, last + 1):
        capacities = tuple(size if n == index else had for n, had in enumerate(model.capacities))
        report = checking.check(
            program_of(replace(model, capacities=capacities)), max_schedules=_SCHEDULES, sizes=False,
            leaks=False, ambient=made_for,
        )  # fmt: skip
        if report.verdict == "ok" and not report.complete:
            raise HeadwayError(
                f"pool {pool}: size {size} has more schedules than {_SCHEDULES}, and not all were seen"
            )
        is_safe.append(report.verdict == "ok")
        if progress is not None:
            progress("capacities", size, last)
    safe = [n for n in range(1, most + 1) if is_safe[min(n, last)]]
    unsafe = [n for n in range(1, most + 1) if not is_safe[min(n, last)]]
    return Sizes(first_of_safe(is_safe), tuple(safe), tuple(unsafe), None)


def program_of(model: Model) -> Callable[[], None]:
    """A function that makes the pools of a model and starts its actors."""
    wake = Wake.FIFO if model.wake == FIFO else Wake.ANY_FIT
    bodies = [(_function(actor), actor.count) for actor in model.actors]

    def main() -> None:
        pools = [
            _Pool(range(size), name=name, wake=wake)
            for name, size in zip(model.pools, model.capacities, strict=True)
        ]
        for body, count in bodies:
            for _ in range(count):
                headway.spawn(body, *pools)

    main.__name__ = main.__qualname__ = "model"
    return main


def _function(actor: Actor) -> Callable[..., None]:
    """An actor as a function of all pools; of each pool it keeps what it holds in a tuple."""
    width = len(actor.steps[0][0].amounts)
    pools = [f"pool{n}" for n in range(width)]
    lines = [f"def actor({', '.join(pools)}):", "    while True:"]
    lines += [f"        held{n} = ()" for n in range(width)]
    for (act,) in actor.steps:
        lines += [f"        {line}" for line in _step(act, width)]
    lines += [] if actor.loops else ["        return"]
    # Not of headway's own modules: their frames are not looked at when a loop is to be known again.
    names: dict[str, Any] = {"__name__": "model", "try_bulk": _try_bulk}
    exec(
        compile("\n".join(lines), f"actor {actor.name}", "exec"), names
    )  # the text is ours, numbers and all
    body: Callable[..., None] = names["actor"]
    body.__name__ = body.__qualname__ = actor.name
    return body


def _try_bulk(pool: Any, count: int) -> list[Any] | None:
    """So many elements if they are there at once; else None."""
    runtime = pool.runtime
    taken: list[Any] | None = runtime.run(
        pool.alloc_plan(headway.Gfp.NOWAIT, runtime.scope(), runtime.owner(), count, None)
    )
    return taken


def _step(act: Act, width: int) -> list[str]:
    named = [(pool, n) for pool, n in enumerate(act.amounts) if n]
    if not act.takes:
        lines = []
        for pool, n in named:
            lines.append(f"pool{pool}.free_bulk(held{pool}[:{n}])")
            lines.append(f"held{pool} = held{pool}[{n}:]")
        return lines
    ((pool, n),) = named
    if not act.tries:
        return [f"held{pool} += tuple(pool{pool}.alloc_bulk({n}))"]
    lines = [f"more = try_bulk(pool{pool}, {n})", "if more is None:"]
    for other in range(width):
        lines += [f"    if held{other}:", f"        pool{other}.free_bulk(held{other})"]
    return [*lines, "    continue", f"held{pool} += tuple(more)", "more = None"]
