"""From a model to a report: search, play the trace by the rules, say who waits for what, and which sizes would do.

It does not search (`counts`) and knows no rules (`play`). A deadlock goes before a leak, for what never
ends cannot come home. What is found is played step by step before it is told; the replay line plays it again.

The smallest safe size of each pool takes the others as they are; if none is safe so, as large as anybody asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, final

from headway.checker import play as playing
from headway.checker.capacities import Meter, Progress, first_of_safe, judged
from headway.checker.counts import MAX_STATES, Found, Search
from headway.checker.crew import Crew
from headway.checker.law import law
from headway.checker.locals import Locals
from headway.checker.model import FIFO, Actor, Amounts, Model, amounts_text
from headway.checker.play import Play
from headway.checker.profile import Reserves, reserves
from headway.checker.report import Report
from headway.checker.sums import is_plain, unsafe_sizes
from headway.checker.telling import tell_verdict
from headway.errors import HeadwayError, UsageError

FORMULA = "sizes by formula: safe together, and the smallest where the other pools are roomy"
_MOST_SIZES = 1_000_000
# Sizes in all; more are not judged one by one where a formula says the same: of several pools, and of one.
_FOR_FORMULA, _FOR_SUMS = 1000, 20_000


@final
@dataclass(frozen=True, slots=True)
class Sizes:
    """The capacities 1 to N of a pool, told apart; `smallest` is where only safe ones follow, at any size."""

    smallest: int | None
    safe: tuple[int, ...]
    unsafe: tuple[int, ...]
    law: dict[str, Any] | None

    def json(self) -> dict[str, Any]:
        return {
            "smallest": self.smallest,
            "safe": list(self.safe),
            "unsafe": list(self.unsafe),
            "law": self.law,
        }


def check(
    model: Model,
    *,
    target: str = "",
    max_states: int = MAX_STATES,
    sizes: bool = True,
    crew: Crew | None = None,
) -> Report:
    """Search all states of a model, at most `max_states`; `complete` is False if there were more.

    Raises: UsageError if `max_states` is below 1.
    """
    if max_states < 1:
        raise UsageError(f"at most {max_states} states are to be seen; the least is 1")
    locals_ = Locals(model)
    found = Search(locals_, model.capacities, max_states).run()
    play = Play(model)
    for task, choice in found.moves or (_to_a_leak(model) if not found.dead else ()):
        play.step(task, choice)
    report = replace(_judged(play, target), states=found.states)
    if report.verdict == "ok":
        reason = _none(found)
        if not play.names:
            reason = "no actor of the model has a task: there was nothing to judge"
        report = replace(report, reason=reason, trace=(), replay=None, schedules=0)
    assert found.dead == (report.verdict == "deadlock"), "search and rules disagree"
    tell_verdict(f"{replace(report, complete=found.complete).shown}: {report.reason}")
    alone: list[str] = []
    least = smallest_sizes(locals_, model, max_states, crew, alone) if sizes else {}
    notes = (*report.notes, FORMULA) if least and by_formula(locals_, model) else report.notes
    complete = found.complete and not found.dead
    return replace(report, complete=complete, min_reserve=least, notes=notes, alone=tuple(alone))


def replay(model: Model, schedule: str, *, target: str = "") -> Report:
    """Play one schedule, and say what it led to.

    Raises: UsageError if the text is no schedule, or not one of this model.
    """
    return replace(_judged(playing.follow(model, schedule), target), states=1)


def sizes(
    model: Model,
    pool: str,
    most: int | None = None,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Sizes:
    """Judge every capacity of `pool` from 1 to `most` (twice the sum of all takes), the others as they are.

    Raises: UsageError if there is no such pool; HeadwayError if a capacity has too many states to see all.
    """
    index = model.index(pool)
    if most is None:
        most = max(1, 2 * model.taken(index))
    if most > _MOST_SIZES:
        raise UsageError(
            f"pool {pool}: {most} sizes are to be listed; give --max, at most {_MOST_SIZES}"
        )
    locals_ = Locals(model)
    if (formula := by_formula(locals_, model)) is not None and is_plain(locals_):
        bits = unsafe_sizes(locals_, most)
        listed = range(1, most + 1)
        safe = tuple(n for n in listed if not bits >> n & 1)
        return Sizes(
            formula.sizes[0],
            safe,
            tuple(n for n in listed if bits >> n & 1),
            law(model, index, crew),
        )
    is_safe = judged(locals_, model, index, progress, crew=crew)
    last = len(is_safe) - 1  # from here on all are alike
    safe = tuple(n for n in range(1, most + 1) if is_safe[min(n, last)])
    unsafe = tuple(n for n in range(1, most + 1) if not is_safe[min(n, last)])
    return Sizes(first_of_safe(is_safe), safe, unsafe, law(model, index, crew))


def _judged(play: Play, target: str) -> Report:
    """What the state is that a run came to."""
    model = play.model
    sizes = dict(zip(model.pools, model.capacities, strict=True))
    report = Report(
        target, "ok", "this schedule stops half-way", schedules=1, trace=tuple(play.trace),
        replay=playing.render(play.taken), counts=sizes, method="model",
    )  # fmt: skip
    if stuck := play.stuck():
        names = tuple(play.names[task] for task in stuck)
        reason, release = _deadlock(play, stuck), _releases(play, stuck)
        return replace(report, verdict="deadlock", reason=reason, stuck=names, release=release)
    if not play.over():
        return report
    kept = amounts_text(model, [n - f for n, f in zip(model.capacities, play.free, strict=True)])
    if not kept:
        return replace(report, reason="this schedule ends well")
    who = ", ".join(name for name, held in zip(play.names, play.held, strict=True) if any(held))
    reason = f"every task ended, and units never came home: {kept}; last held by {who}"
    return replace(report, verdict="leak", reason=reason)


def _none(found: Found) -> str:
    seen = (
        "no schedule"
        if found.complete
        else f"none of the {found.states} states seen, and there are more,"
    )
    return f"{seen} leads to a deadlock or a leak; each actor makes its steps once, so none goes on for ever"


def _deadlock(play: Play, stuck: list[int]) -> str:
    """Who waits for what; tasks that are alike are named together."""
    said = []
    for words, group in groupby(stuck, lambda task: _describe(play, task)):
        names = [play.names[task] for task in group]
        if len(names) > 4:
            names = [names[0], names[1], f"... {names[-1]}"]
        each = "each of " if len(names) > 1 else ""
        said.append(f"{each}{', '.join(names)} {words}")
    waits = "task waits" if len(stuck) == 1 else "tasks wait"
    rest = len(play.names) - len(stuck)
    others = f"; {rest} others hold nothing that would free them" if rest else ""
    return f"{len(stuck)} {waits} for ever: {'; '.join(said)}{others}"


def _describe(play: Play, task: int) -> str:
    model, wants = play.model, play.waiting[task].amounts
    held = amounts_text(model, play.held[task])
    for pool, n, size in zip(model.pools, wants, model.capacities, strict=True):
        if n > size:
            return f"{_holds(held)}waits for {n} of {pool}, which is larger than the pool: it has {size}"
    behind = ""
    if model.wake == FIFO and all(n <= f for n, f in zip(wants, play.free, strict=True)):
        behind = ", which would fit, behind a request that does not"
    more = "more " if any(h and n for h, n in zip(play.held[task], wants, strict=True)) else ""
    return f"{_holds(held)}waits for {amounts_text(model, wants, more)}{behind}"


def _holds(held: str) -> str:
    return f"holds {held} and " if held else ""


def _releases(play: Play, stuck: list[int]) -> tuple[str, ...]:
    """Which single unit given back would free a waiter, for each pool."""
    found: dict[int, str] = {}
    ahead: set[int] = set()
    for task in stuck:
        wants = play.waiting[task].amounts
        named = {pool for pool, n in enumerate(wants) if n}
        short = [(pool, wants[pool] - play.free[pool]) for pool in sorted(named)]
        short = [(pool, n) for pool, n in short if n > 0]
        is_head = play.model.wake != FIFO or not named & ahead
        ahead |= named
        if not is_head or len(short) != 1 or short[0][1] != 1 or short[0][0] in found:
            continue
        pool = short[0][0]
        holders = [other for other in stuck if play.held[other][pool]]
        if holders:
            by = " or ".join(play.names[other] for other in holders[:3])
            by += f" or {len(holders) - 3} others" if len(holders) > 3 else ""
            found[pool] = (
                f"one {play.model.pools[pool]} given back by {by} frees {play.names[task]}"
            )
    return tuple(found.values())


def _to_a_leak(model: Model) -> list[tuple[int, int]]:
    """The steps of a run in which units stay out, one task after the other; empty if all come home."""
    paths = [_kept(actor) for actor in model.actors]
    if not any(path for path, actor in zip(paths, model.actors, strict=True) if actor.count):
        return []
    moves = []
    task = 0
    for actor, path in zip(model.actors, paths, strict=True):
        for _ in range(actor.count):
            moves += [(task, choice) for choice in path or [0] * len(actor.steps)]
            task += 1
    return moves


def _kept(actor: Actor) -> list[int] | None:
    """Choices after which an actor ends and still holds something; None if it never does."""
    nothing = (0,) * len(actor.steps[0][0].amounts)
    paths: dict[Amounts, list[int]] = {nothing: []}
    for step in actor.steps:
        after: dict[Amounts, list[int]] = {}
        for held, path in paths.items():
            for choice, act in enumerate(step):
                sign = 1 if act.takes else -1
                left = tuple(h + sign * n for h, n in zip(held, act.amounts, strict=True))
                after.setdefault(left, [*path, choice])
        paths = after
    return next((path for held, path in paths.items() if any(held)), None)


def by_formula(locals_: Locals, model: Model) -> Reserves | None:
    """The sizes by formula, where there are too many to be judged one by one."""
    if sum(locals_.enough()) <= (_FOR_SUMS if len(model.pools) == 1 else _FOR_FORMULA):
        return None
    formula = reserves(model, locals_)
    return formula if formula is not None and formula.is_exact else None


def smallest_sizes(
    locals_: Locals,
    model: Model,
    max_states: int,
    crew: Crew | None = None,
    alone: list[str] | None = None,
) -> dict[str, int | None]:
    """For each pool the smallest size from which on all are safe; None where that is not known.

    `alone` takes the names of those for which it is so with the others as they are.
    """
    found: dict[str, int | None] = {}
    if (formula := by_formula(locals_, model)) is not None:
        return dict(zip(model.pools, formula.sizes, strict=True))
    for pool, name in enumerate(model.pools):
        roomy = model
        for other, n in enumerate(locals_.enough()):
            if other != pool:
                roomy = roomy.at(other, max(n, 1))
        found[name] = None
        for those in dict.fromkeys((model, roomy)):
            try:
                found[name] = first_of_safe(
                    judged(locals_, those, pool, meter=Meter(max_states), crew=crew)
                )
            except HeadwayError:
                break
            if found[name] is not None:
                if alone is not None and those is model:
                    alone.append(name)
                break
    return found
