"""One schedule of a program carried out and told in plain words that can go from process to process.

It does not search (`explore`). `Trials` is a program with the settings all its runs share; in another process it is
loaded again, from the file it stands in. What a run shows is a function of its schedule, or the function under check
does not repeat itself, which `explore` finds out.

Source: CHESS and loom for re-execution; what is sent is a schedule, never a state.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any, final

from headway.checker.budgets import Units
from headway.checker.digest import digest
from headway.checker.loading import load, undisturbed
from headway.checker.properties import Finding, deadlock, judge, suspects
from headway.checker.schedule import Schedule
from headway.checker.trial import Settings, Trial
from headway.errors import UsageError
from headway.runtimes.simulator import Kind, Option

_CONFIRM = 2000  # steps the others get to prove that suspects are stuck


@final
class Trials:
    """The runs of one program under one set of settings; `portable` keys are the same in every process."""

    def __init__(
        self, program: Callable[[], Any], settings: Settings, portable: bool = False
    ) -> None:
        self.program = program
        self.settings = settings
        self.portable = portable

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (place_of(self.program), self.settings, self.portable)

    def around(self) -> AbstractContextManager[None]:
        """What a worker puts around its runs."""
        return undisturbed(self.program)

    def key(self, trial: Trial) -> tuple[Any, Any]:
        """The state of a trial, and what its tasks are about to do."""
        key, pending = trial.key(), trial.pending()
        return (digest(key), digest(pending)) if self.portable else (key, pending)


def place_of(program: Callable[[], Any]) -> str:
    """``FILE.py:FUNCTION`` for a function that another process can load.

    Raises: UsageError if it is not at the top of a file.
    """
    name = getattr(program, "__qualname__", "")
    code = getattr(program, "__code__", None)
    file = "" if code is None else code.co_filename
    if not name.isidentifier() or not Path(file).is_file() or inspect.ismethod(program):
        raise UsageError(
            f"{name or type(program).__name__} cannot be loaded by other processes: "
            "put it at the top of a file, or let one process do the work"
        )
    return f"{Path(file).resolve()}:{name}"


def _again(place: str, settings: Settings, portable: bool) -> Trials:
    return Trials(_loaded(place), settings, portable)


@functools.lru_cache(maxsize=4)
def _loaded(place: str) -> Callable[[], Any]:
    return load(place)


@final
@dataclass(slots=True)
class Seen:
    """What one schedule came to: a finding, or a state and the ways on from it."""

    taken: Schedule = ()
    steps: int = 0
    forks: list[Schedule] = field(default_factory=list)  # other answers to choices inside steps
    ways: list[Option] = field(default_factory=list)
    finding: Finding | None = None
    key: Any = None
    pending: Any = None
    unmergeable: str | None = None
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # of each pool
    in_bytes: list[str] = field(default_factory=list)  # the pools whose sizes are bytes
    need: dict[str, dict[str, int]] = field(default_factory=dict)  # of each pool, of each task
    grain: dict[str, int] = field(
        default_factory=dict
    )  # what is asked of a pool are multiples of this


def look(trials: Trials, schedule: Schedule) -> Seen:
    """Follow a schedule, and say what it came to."""
    settings = trials.settings
    trial = Trial(trials.program, settings)
    try:
        options = trial.follow(schedule, halt=suspects)
        seen = _profile(trial)
        if settings.merging and trial.ledger.unmergeable:
            seen.unmergeable = trial.ledger.unmergeable
            return seen
        seen.forks = trial.forks
        seen.finding = judge(trial, not options)
        if seen.finding is None and options:
            seen.finding = partial(trials.program, settings, trial)
        if seen.finding is None:
            seen.key, seen.pending = trials.key(trial)
            seen.ways = trial.distinct(options) if settings.merging else options
        return seen
    finally:
        trial.close()


def at_random(trials: Trials, which: tuple[int, int]) -> Seen:
    """A run by chance: the second number is which run of the seed that the first one is."""
    seed, number = which
    chance = random.Random(f"{seed}:{number}")
    return in_a_row(trials, lambda options: chance.randrange(len(options)))


def in_a_row(trials: Trials, chance: Callable[..., int]) -> Seen:
    """A run to its end, by what `chance` picks; `ways` is empty where all ended."""
    trial = Trial(trials.program, trials.settings)
    try:
        options = trial.follow((), chance, halt=suspects)
        seen = _profile(trial)
        seen.finding, seen.ways = judge(trial, not options), options
        return seen
    finally:
        trial.close()


def _profile(trial: Trial) -> Seen:
    """What each task asked for: from it comes a size that is enough."""
    seen = Seen(tuple(trial.taken), trial.steps, notes=list(trial.simulator.reports))
    for index, (pool, name) in enumerate(zip(trial.ledger.pools, trial.ledger.names, strict=True)):
        seen.sizes[name] = pool.stats().min_count
        seen.need[name] = {task.name: local.need[index] for task, local in trial.pairs()}
        kept = pool.kept if isinstance(pool, Units) else ()
        if isinstance(pool, Units) and pool.in_bytes:
            seen.in_bytes.append(name)
        seen.need[name][""] = sum(kept)
        seen.grain[name] = gcd(*kept, *(local.grain[index] for _, local in trial.pairs()))
    return seen


def partial(program: Callable[[], Any], settings: Settings, trial: Trial) -> Finding | None:
    """Tasks that are stuck though others run: suspected, then confirmed by running the others."""
    names = {task.name for task in suspects(trial)}
    if not names:
        return None
    on = Trial(program, settings)
    turns = count()

    def everybody_in_turn(options: Sequence[Option]) -> int:
        """And no allocator helps: what it made could free a waiter when it is given back."""
        failing = [index for index, option in enumerate(options) if option.kind is Kind.FAIL]
        return failing[0] if failing else next(turns) % len(options)

    try:
        ended = not on.follow(tuple(trial.taken), everybody_in_turn, _CONFIRM)
        stuck = on.simulator.stuck() if ended else suspects(on)
        if on.failures():
            return None
        if not names <= {task.name for task in stuck}:
            return None
        return deadlock(on, [task for task in stuck if task.name in names], ended)
    finally:
        on.close()
