"""How likely a stall is: seeded runs in which each step takes a random time, counted. No proof of anything.

It finds no shortest trace and says nothing about safety (a check does); it is for those who ask whether a
deadlock that can happen is worth the memory that prevents it. Every step of a task takes an exponential time of
mean 1, and tasks begin at random within `spread` such times; 0 is all at once, the worst. Allocators fail.

Each run has a seed of its own, made of the seed and its number: whoever does it, it is the same run.
The share is given with the interval that holds it in 95 of 100 samplings.

Source: Wilson's score interval (1927).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, final

from headway.checker.crew import Crew
from headway.checker.model import Model
from headway.checker.play import Play
from headway.checker.properties import suspects
from headway.checker.trial import Settings, Trial
from headway.checker.trials import Trials
from headway.errors import UsageError
from headway.runtimes.simulator import Kind, Option

_STEPS = 5000
_Z = 1.96


@final
@dataclass(frozen=True, slots=True)
class Odds:
    """`stalls` of `runs` ended with tasks that wait for ever."""

    runs: int
    stalls: int
    seed: int
    spread: float

    @property
    def interval(self) -> tuple[float, float]:
        """Between which shares the truth lies, in 95 of 100 samplings."""
        n, share = self.runs, self.stalls / self.runs
        middle = share + _Z * _Z / (2 * n)
        width = _Z * sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
        return (
            max(0.0, (middle - width) / (1 + _Z * _Z / n)),
            min(1.0, (middle + width) / (1 + _Z * _Z / n)),
        )

    def json(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "runs": self.runs, "stalls": self.stalls, "low": round(low, 6), "high": round(high, 6),
            "seed": self.seed, "spread": self.spread,
        }  # fmt: skip

    def text(self) -> str:
        low, high = self.interval
        return (
            f"by chance: {self.stalls} of {self.runs} runs stalled, {self.stalls / self.runs:.2%} "
            f"(likely {low:.2%} to {high:.2%}; --seed {self.seed})"
        )


@final
class _Clock:
    """When each task takes its next step: drawn anew whenever it has taken one."""

    def __init__(self, chance: random.Random, spread: float) -> None:
        self._chance = chance
        self._spread = spread
        self._due: dict[Hashable, float] = {}
        self._now = 0.0

    def first(self, ready: Sequence[Hashable]) -> Hashable:
        """Whose turn it is of those who can go on; time passes till then."""
        for task in ready:
            if task not in self._due:
                begins = self._chance.uniform(0, self._spread) if self._spread else 0.0
                self._due[task] = self._now + begins + self._chance.expovariate(1.0)
        task = min(ready, key=lambda each: self._due[each])
        self._now = max(self._now, self._due[task])
        self._due[task] = self._now + self._chance.expovariate(1.0)
        return task


def of_code(
    program: Callable[[], Any],
    settings: Settings,
    runs: int,
    seed: int = 0,
    spread: float = 0.0,
    crew: Crew | None = None,
) -> Odds:
    """Sample runs of real code."""
    _check(runs, spread)
    trials = Trials(program, settings)
    which = [(seed, spread, number) for number in range(runs)]
    return Odds(runs, sum((crew or Crew()).map(_stalls, trials, which)), seed, spread)


def _stalls(trials: Trials, which: tuple[int, float, int]) -> bool:
    """Whether one run of real code stalls."""
    seed, spread, number = which
    clock = _Clock(random.Random(f"{seed}:{number}"), spread)

    def pick(options: Sequence[Option]) -> int:
        if options[0].kind in (Kind.WORK, Kind.FAIL):
            return 1
        steps = [n for n, option in enumerate(options) if option.kind is Kind.STEP]
        turn = clock.first([options[n].task for n in steps])
        return next(n for n in steps if options[n].task == turn)

    trial = Trial(trials.program, trials.settings)
    try:
        options = trial.follow((), pick, _STEPS)
        return bool(trial.simulator.stuck() if not options else suspects(trial))
    finally:
        trial.close()


def of_model(
    model: Model, runs: int, seed: int = 0, spread: float = 0.0, crew: Crew | None = None
) -> Odds:
    """Sample runs of a model."""
    _check(runs, spread)
    which = [(seed, spread, number) for number in range(runs)]
    return Odds(runs, sum((crew or Crew()).map(_model_stalls, model, which)), seed, spread)


def _model_stalls(model: Model, which: tuple[int, float, int]) -> bool:
    """Whether one run of a model stalls."""
    seed, spread, number = which
    chance = random.Random(f"{seed}:{number}")
    clock, play = _Clock(chance, spread), Play(model)
    while options := play.options():
        task = clock.first(list(dict.fromkeys(task for task, _ in options)))
        play.step(*chance.choice([move for move in options if move[0] == task]))
    return bool(play.waiting)


def _check(runs: int, spread: float) -> None:
    if runs < 1:
        raise UsageError(f"{runs} runs were asked for; the least is 1")
    if spread < 0:
        raise UsageError(f"the spread is {spread}; it is a time, and 0 at least")
