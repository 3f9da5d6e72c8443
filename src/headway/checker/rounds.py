"""A way in and a round, carried out on the real code: does it come round, is it fair, and who gets nowhere?

It does not search (`lasso` proposes, and so may a replay line: ``stem~round``). The round is run three times; it
is one if the last two times leave the same lines in the trace and the same counts in the pools. What it is
called is read off the real run: who moved, who was refused, who waited all along, who could have moved and was
never let.

Source: lassos as counter-examples to liveness (Vardi and Wolper 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

from headway.checker.lasso import REFUSED
from headway.checker.ledger import Entry
from headway.checker.product import Move
from headway.checker.properties import Finding
from headway.checker.schedule import Schedule
from headway.checker.trial import Settings, Trial
from headway.runtimes.simulator import Kind, Option

_TIMES = 3
_LIMIT = 1_000_000


@final
@dataclass(slots=True)
class Mark:
    """How far a run was when a round began: choices made, lines in its trace, and the counts of the pools."""

    taken: int
    lines: int
    counts: tuple[Any, ...]


def follow_moves(
    program: Callable[[], Any],
    settings: Settings,
    moves: Sequence[Move],
    marks_at: Sequence[int] = (),
) -> tuple[Trial, list[Any], bool, list[Mark]]:
    """Carry out the moves of a product on the real code.

    Gives the run, the options where it stopped, whether it could follow, and the marks before moves `marks_at`.
    """
    trial = Trial(program, settings)
    marks: list[Mark] = []
    wanted = _wanted(trial, moves, marks_at, marks)
    could = True

    def next_of(options: Sequence[Option]) -> int:
        nonlocal could
        if options[0].kind in (Kind.WORK, Kind.FAIL):
            could = False
            return 0
        for kinds, number in wanted:
            for kind in kinds:
                if Option(number, kind) in options:
                    return options.index(Option(number, kind))
            could = False
            return -1
        return -1

    options = trial.follow((), next_of, _LIMIT)
    for _ in wanted:  # the run ended before the moves did
        could = False
    return trial, options, could, marks


def _wanted(
    trial: Trial, moves: Sequence[Move], marks_at: Sequence[int], marks: list[Mark]
) -> Iterator[tuple[tuple[Kind, ...], int]]:
    """Which kinds of option of which task come next; who was not started is started first."""
    step = (Kind.STEP,)
    yield step, 1
    for number in range(2, len(trial.simulator.tasks) + 1) if marks_at else ():
        yield step, number  # so that the first time round is like the others
    for at, move in enumerate(moves):
        if at in marks_at:
            marks.append(_mark(trial))
        if move.task > len(trial.simulator.tasks):
            yield step, move.task  # there is no such option: the code went another way
        if not trial.simulator.tasks[move.task - 1].steps:
            yield step, move.task
        match move.result:
            case "Cancelled":
                yield (Kind.CANCEL,), move.task
            case "PoolTimeout":
                yield (Kind.EXPIRE, Kind.STEP), move.task
            case _:
                yield step, move.task
        for number in move.served:
            yield step, number
    if len(moves) in marks_at:
        marks.append(_mark(trial))


def _mark(trial: Trial) -> Mark:
    counts = tuple(
        (pool.stats().reserve_count, pool.stats().outstanding, pool.stats().waiters)
        for pool in trial.ledger.pools
    )
    return Mark(len(trial.taken), len(trial.ledger.trace), counts)


def round_of(
    program: Callable[[], Any], settings: Settings, stem: Sequence[Move], cycle: Sequence[Move]
) -> tuple[Schedule, Schedule] | None:
    """The choices of the way in, and of one round, as the real code needs them; None if it goes another way."""
    marks_at = [len(stem) + n * len(cycle) for n in range(_TIMES + 1)]
    moves = [*stem, *list(cycle) * _TIMES]
    trial, _, could, marks = follow_moves(program, settings, moves, marks_at)
    trial.close()
    if not could or len(marks) <= _TIMES:
        return None
    taken = tuple(trial.taken)
    first, second = (taken[marks[n].taken : marks[n + 1].taken] for n in (0, 1))
    into = 0 if first == second else 1  # where the first time differs, it is part of the way in
    return taken[: marks[into].taken], second


def judged(
    program: Callable[[], Any], settings: Settings, stem: Schedule, cycle: Schedule
) -> tuple[Finding | None, tuple[Entry, ...], int]:
    """What going round comes to on the real code; the trace of the way in and one round, and that round's lines."""
    trial = Trial(program, settings)
    try:
        marks, ready, parked = [], None, None
        trial.follow(stem, None, 0)
        for _ in range(_TIMES):
            marks.append(_mark(trial))
            for place in range(len(cycle)):
                options = trial.options()
                able = {option.task for option in options if option.kind is not Kind.CANCEL}
                ready = able if ready is None else ready & able
                waits = {task.number for task, _ in trial.parked()}
                parked = waits if parked is None else parked & waits
                trial.follow((*trial.taken, cycle[place]), None, 0)
        marks.append(_mark(trial))
        return _called(trial, marks, ready or set(), parked or set(), cycle)
    finally:
        trial.close()


def _called(
    trial: Trial, marks: list[Mark], ready: set[int], parked: set[int], cycle: Schedule
) -> tuple[Finding | None, tuple[Entry, ...], int]:
    """Give the round its name."""
    trace = trial.ledger.trace
    rounds = [trace[a.lines : b.lines] for a, b in pairwise(marks)]
    looks = [[(e.task, e.op, e.pool, e.n, e.result) for e in lines] for lines in rounds]
    shown = tuple(trace[: marks[1].lines])
    length = len(rounds[0])
    if looks[-1] != looks[-2] or marks[-1].counts != marks[-2].counts or trial.failures():
        return None, shown, length
    moved = {option.task for option in cycle}
    if ready - moved:
        return None, shown, length  # unfair: somebody could go on all the time
    names = {task.number: task.name for task in trial.simulator.tasks}
    refused = {
        e.task: f"{e.task} asks for {e.n} of {e.pool} again and again"
        for e in rounds[-1]
        if e.result in REFUSED
    }
    movers = [
        names[number] for number in sorted(moved) if not trial.simulator.tasks[number - 1].done
    ]
    working = [name for name in movers if name not in refused]
    waiting = [number for number in sorted(parked) if number not in moved]
    if not working:
        said = "; ".join(refused[name] for name in movers)
        reason = f"{len(movers)} tasks go round for ever, and none gets on: {said}"
        return Finding("livelock", reason, tuple(movers)), shown, length
    starved = [name for name in movers if name in refused]
    says = [refused[name] for name in starved]
    for number in waiting:
        pending = trial.ledger.locals[number - 1].pending
        if pending is not None:
            starved.append(names[number])
            pool = trial.ledger.names[pending[1]]
            says.append(f"{names[number]} waits for {pending[2]} of {pool}")
    if not starved:
        return None, shown, length
    who = (
        "1 task gets nothing for ever"
        if len(starved) == 1
        else f"{len(starved)} tasks get nothing for ever"
    )
    reason = f"{who} while {', '.join(working)} {'goes' if len(working) == 1 else 'go'} on: {'; '.join(says)}"
    return Finding("starvation", reason, tuple(starved)), shown, length
