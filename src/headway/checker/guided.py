"""A trace of a model, carried out on the real code: which task goes next is what the model says.

It does not search. The steps of a model leave open when helpers run (tasks that only give back): here
they run as late as possible, when something they have is needed. Allocators fail. What the real code
comes to is judged as any schedule is; a trace counts for nothing before that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from headway.checker.plain import Plain
from headway.checker.play import Move, Play
from headway.checker.properties import Finding, judge
from headway.checker.trial import Settings, Trial
from headway.checker.trials import partial
from headway.runtimes.simulator import Kind, Option

_LIMIT = 1_000_000


@final
class _Guide:
    """An oracle that follows the moves of a model, and stops after the last."""

    def __init__(self, plain: Plain, moves: Sequence[Move]) -> None:
        self._plain = plain
        # Who helps gives back for others; only then must be known who waits in the model.
        helped = any(after is None for row in plain.after for after in row)
        self._play = Play(plain.model) if helped or plain.helpers else None
        self._at: dict[int, int] = {}  # else this is enough: how many steps each task has made
        self._moves = list(reversed(moves))
        self._all = {number for numbers in plain.tasks for number in numbers}
        self._last = max(self._all, default=1)
        #: A task, how many operations it has done then, and units that it needs of a pool.
        self._now: tuple[int, int, int] | None = None
        self._pool = 0
        self.trial: Trial

    def __call__(self, options: Sequence[Option]) -> int:
        if options[0].kind in (Kind.WORK, Kind.FAIL):
            return 1
        tasks = self.trial.simulator.tasks
        if not tasks[0].steps or self._last > len(tasks):
            return _place(options, 1)  # the function itself makes the pools, and starts the others
        while True:
            if self._now is None or self._is_done(*self._now):
                if not self._next():
                    return -1
                continue
            number, _, needs = self._now
            if needs and needs > self.trial.ledger.pools[self._pool].reserve_count:
                for index, option in enumerate(options):
                    if option.task not in self._all:
                        return index  # somebody who only gives back
            return _place(options, number)

    def _is_done(self, number: int, operations: int, needs: int) -> bool:
        task = self.trial.simulator.tasks[number - 1]
        if task.ticket is not None or task.done:
            return True
        return len(self.trial.ledger.locals[number - 1].history) >= operations

    def _next(self) -> bool:
        while self._moves:
            task, choice = self._moves.pop()
            actor, number = self._plain.task(task)
            if self._play is None:
                step = self._at.get(task, 0)
                self._at[task] = step + 1
                self._now = number, self._plain.after[actor][step] or 0, 0
                return True
            step = self._play.at[task]
            self._play.step(task, choice)
            after = self._plain.after[actor][step]
            if after is None:
                continue
            act = self._play.steps[task][step][0]
            waits = task in self._play.waiting
            self._pool = next(pool for pool, n in enumerate(act.amounts) if n)
            needs = act.amounts[self._pool] * self._plain.grains[self._pool]
            needs = needs if act.takes and not waits else 0
            self._now = number, after, needs
            return True
        return False


def _place(options: Sequence[Option], number: int) -> int:
    """Where the next step of a task stands; -1 if it can take none."""
    for index, option in enumerate(options):
        if option.task == number:
            return index
    return -1


def carried_out(
    program: Callable[[], Any], settings: Settings, plain: Plain, moves: Sequence[Move]
) -> tuple[Finding | None, Trial]:
    """Follow `moves` on the real code; what that came to, and the run (close it)."""
    guide = _Guide(plain, moves)
    trial = guide.trial = Trial(program, settings)
    options = trial.follow((), guide, _LIMIT)
    return judge(trial, not options) or partial(program, settings, trial), trial


def in_turn(program: Callable[[], Any], settings: Settings) -> tuple[Finding | None, Trial]:
    """Run one task to its end, then the next; what that came to, and the run (close it)."""
    trial = Trial(program, settings)
    options = trial.follow((), lambda options: 0, _LIMIT)
    return judge(trial, not options), trial
