"""Every schedule of the code under check, breadth first, so that the first finding is the shortest.

It does not judge a state (`properties`) nor know pools (`trial`). A schedule is run from the start
each time, on the real code; a state is left open by remembering the schedule that leads to it. Two
schedules that lead to states with one key are followed once, *if* tasks share only pools. Three things
guard that: the code is read beforehand (`shared`); states of one key must be about to do the same, and
now and then both are run on and compared; at the end some are reached again with other elements. If
any fails, the search starts again without merging.

Bound: at most `max_schedules` runs; `complete` is said only if none was left open. What breadth-first
had no runs left for is sampled at random, by `seed`, with a fifth of the runs.

Source: TLC for breadth first and shortest traces; CHESS and loom for re-execution of real code.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, final

from headway.checker.properties import Finding, deadlock, judge, suspects
from headway.checker.schedule import Schedule
from headway.checker.trial import Diverged, Settings, Trial
from headway.runtimes.simulator import Kind, Option

_PROBES = 32  # how many merges are checked by running both sides on
_SAMPLES = 64  # how many states are reached once more at the end
_PROBE_STEPS = 200  # how far both sides are run
_CONFIRM = 2000  # steps the others get to prove that suspects are stuck


class _Unsound(Exception):
    """States of one key behave differently: they must not be merged."""


@final
@dataclass(slots=True)
class Result:
    """What a search found, and how much of the space it saw."""

    finding: Finding | None = None
    schedule: Schedule = ()
    schedules: int = 0
    states: int = 0
    complete: bool = False
    notes: list[str] = field(default_factory=list)
    wanted: dict[str, int] = field(default_factory=dict)  # a size that is enough, by pool
    counts: dict[str, int] = field(default_factory=dict)  # the sizes there were, by pool


@final
class Search:
    """One search over the schedules of one program."""

    def __init__(
        self,
        program: Callable[[], Any],
        settings: Settings,
        max_schedules: int,
        seed: int | None = None,
        sampled: bool = True,
    ) -> None:
        """Args: `sampled` is whether a fifth of the runs is at random if not all can be seen."""
        self._program = program
        self._settings = settings
        self._budget = max_schedules
        self._seed = seed
        self._sampled = sampled
        self._probes = _PROBES
        self._samples: list[tuple[Schedule, Any, Any]] = []
        self._stride = 1
        self._need: dict[str, dict[str, int]] = {}
        self.result = Result()

    def run(self) -> Result:
        """Search until something is found, all is seen, or the runs are used up."""
        result = self.result
        try:
            try:
                self._breadth_first()
            except _Unsound as why:
                result.notes.append(f"states are not merged: {why}")
                self._settings = replace(self._settings, merging=False)
                result.states, result.complete, self._samples = 0, False, []
                self._breadth_first()
        except Diverged as why:
            result.finding, result.complete = Finding("error", str(why)), False
        if result.finding is None and not result.complete and self._sampled:
            self._at_random()
        return result

    def _trial(
        self, schedule: Schedule, chance: Callable[..., int] | None = None
    ) -> tuple[Trial, list[Any]]:
        self.result.schedules += 1
        trial = Trial(self._program, self._settings)
        try:
            options = trial.follow(schedule, chance, halt=suspects)
        except BaseException:
            trial.close()
            raise
        self._profile(trial)
        return trial, options

    def _breadth_first(self) -> None:
        """Open states in the order of their number of steps; a finding waits for its turn as well."""
        result = self.result
        heap: list[tuple[int, int, Schedule, Finding | None]] = [(0, 0, (), None)]
        tie = 0
        seen: dict[Any, tuple[Any, Schedule]] = {}
        share = self._budget - (self._budget // 5 if self._sampled else 0)
        while heap:
            _, _, schedule, finding = heapq.heappop(heap)
            if finding is not None:
                result.finding, result.schedule = finding, schedule
                return
            if result.schedules >= share:
                return
            trial, options = self._trial(schedule)
            try:
                if self._settings.merging and trial.ledger.unmergeable:
                    raise _Unsound(trial.ledger.unmergeable)
                for fork in trial.forks:
                    tie += 1
                    heapq.heappush(heap, (_steps(fork), tie, fork, None))
                taken, found = tuple(trial.taken), judge(trial, not options)
                if found is None and options:
                    found = partial(self._program, self._settings, trial)
                if found is not None:
                    tie += 1
                    heapq.heappush(heap, (trial.steps, tie, taken, found))
                    continue
                if not self._is_new(trial, seen):
                    continue
                result.states = result.states + 1
                merging = self._settings.merging
                for option in trial.distinct(options) if merging else options:
                    tie += 1
                    heapq.heappush(heap, (trial.steps + 1, tie, (*taken, option), None))
            finally:
                trial.close()
        self._repeat()
        result.complete = True

    def _is_new(self, trial: Trial, seen: dict[Any, tuple[Any, Schedule]]) -> bool:
        key, pending, taken = trial.key(), trial.pending(), tuple(trial.taken)
        self._sample(taken, key, pending)
        if not self._settings.merging:
            return True
        if key not in seen:
            seen[key] = (pending, taken)
            return True
        before, other = seen[key]
        if before != pending:
            raise _Unsound("tasks with the same history did different things next")
        if self._probes and other != taken:
            self._probes -= 1
            self._compare(other, taken)
        return False

    def _compare(self, one: Schedule, two: Schedule) -> None:
        """Run two states of one key to their ends, alike, and see whether they end alike."""
        ends = []
        for schedule in (one, two):
            self.result.schedules += 1
            trial = Trial(self._program, self._settings)
            trial.follow(schedule, trial.alike, _PROBE_STEPS)
            ends.append(trial.key())
            trial.close()
        if ends[0] != ends[1]:
            raise _Unsound("two states with the same history went on to different ends")

    def _sample(self, *state: Any) -> None:
        """Keep some states, evenly spread over the search, to be looked at again at its end."""
        if self.result.states % self._stride == 0:
            self._samples.append((state[0], state[1], state[2]))
        if len(self._samples) > _SAMPLES:
            self._samples = self._samples[::2]
            self._stride *= 2

    def _repeat(self) -> None:
        """Reach the sampled states once more, as before and with other elements: they must be the same.

        Raises: Diverged if the code does not repeat itself; _Unsound if it depends on which element it got.
        """
        for taken, key, pending in self._samples:
            if self._again(taken, self._settings) != (key, pending):
                raise Diverged(
                    "the function does not repeat itself: one schedule led to two states; "
                    "leave chance, clocks and what earlier runs left behind out of it"
                )
        for taken, key, pending in self._samples if self._settings.merging else ():
            try:
                same = self._again(taken, replace(self._settings, mirrored=True)) == (key, pending)
            except Diverged:
                same = False
            if not same:
                raise _Unsound("what the code does depends on which element it got")

    def _again(self, taken: Schedule, settings: Settings) -> tuple[Any, Any]:
        self.result.schedules += 1
        trial = Trial(self._program, settings)
        try:
            trial.follow(taken, limit=0)
            return trial.key(), trial.pending()
        finally:
            trial.close()

    def _at_random(self) -> None:
        seed = self._seed if self._seed is not None else random.randrange(1 << 32)
        chance = random.Random(seed)
        result = self.result
        while result.schedules < self._budget:
            trial, options = self._trial((), lambda options: chance.randrange(len(options)))
            taken, found = tuple(trial.taken), judge(trial, not options)
            trial.close()
            if found is not None:
                result.finding, result.schedule = found, taken
                result.notes.append(f"found at random with --seed {seed}: perhaps not the shortest")
                return
        result.notes.append(f"not all seen; the last fifth of the runs was random, --seed {seed}")

    def learn(self) -> bool:
        """Run once, as it comes, to see what the tasks ask for; whether all of them ended well."""
        trial, options = self._trial((), lambda options: 0)
        found = judge(trial, not options)
        trial.close()
        return not options and found is None

    def _profile(self, trial: Trial) -> None:
        """Learn what each task asks for: from it comes a size that is enough."""
        self.result.notes += [n for n in trial.simulator.reports if n not in self.result.notes]
        for index, (pool, name) in enumerate(
            zip(trial.ledger.pools, trial.ledger.names, strict=True)
        ):
            self.result.counts[name] = pool.stats().min_count
            need = self._need.setdefault(name, {})
            for task, local in trial.pairs():
                need[task.name] = max(need.get(task.name, 0), local.need[index])
            self.result.wanted[name] = sum(need.values())


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


def _steps(schedule: Schedule) -> int:
    return sum(1 for option in schedule if option.kind not in (Kind.WORK, Kind.FAIL))
