"""Every schedule of the code under check, breadth first, so that the first finding is the shortest.

It does not run a schedule (`trials`, which a `crew` may do elsewhere), judge a state (`properties`) nor
know pools. A schedule is run from the start each time, on the real code; a state is left open by
remembering the schedule that leads to it. Two schedules that lead to states with one key are followed
once, *if* tasks share only pools. Three things guard that: the code is read beforehand (`shared`);
states of one key must be about to do the same, and now and then both are run on and compared; at the end
some are reached again with other elements. If any fails, the search starts again without merging.

Bound: at most `max_schedules` runs; `complete` is said only if none was left open. What breadth-first
had no runs left for is sampled at random, by `seed`, with a fifth of the runs.

Source: TLC for breadth first and shortest traces; CHESS and loom for re-execution of real code.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from math import gcd
from typing import Any, TypeAlias, final

from headway.checker.crew import Crew
from headway.checker.properties import Finding
from headway.checker.schedule import Schedule
from headway.checker.telling import tell
from headway.checker.trial import Diverged, Settings, Trial
from headway.checker.trials import Seen, Trials, at_random, in_a_row, look
from headway.runtimes.simulator import Kind

_PROBES = 32  # how many merges are checked by running both sides on
_SAMPLES = 64  # how many states are reached once more at the end
_PROBE_STEPS = 200  # how far both sides are run

Open: TypeAlias = tuple[
    int, int, Schedule, Finding | None
]  # steps, a tie breaker, how to get there


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
    diverged: bool = (
        False  # the code did not repeat itself: the finding says so, and has no schedule
    )
    notes: list[str] = field(default_factory=list)
    wanted: dict[str, int] = field(default_factory=dict)  # a size that is enough, by pool
    counts: dict[str, int] = field(default_factory=dict)  # the sizes there were, by pool
    in_bytes: list[str] = field(default_factory=list)  # the pools whose sizes are bytes
    grain: dict[str, int] = field(
        default_factory=dict
    )  # what is asked of a pool are multiples of this


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
        crew: Crew | None = None,
    ) -> None:
        """Args: `sampled` is whether a fifth of the runs is at random if not all can be seen; `crew` who runs."""
        self._program = program
        self._crew = crew or Crew()
        self._set(settings)
        self._budget = max_schedules
        self._seed = seed
        self._sampled = sampled
        self._probes = _PROBES
        self._samples: list[tuple[Schedule, Any, Any]] = []
        self._stride = 1
        self._need: dict[str, dict[str, int]] = {}
        self.result = Result()

    def _set(self, settings: Settings) -> None:
        self._settings = settings
        self._trials = Trials(self._program, settings, portable=not self._crew.one_process)

    def run(self) -> Result:
        """Search until something is found, all is seen, or the runs are used up."""
        result = self.result
        try:
            try:
                self._breadth_first()
            except _Unsound as why:
                result.notes.append(f"states are not merged: {why}")
                self._set(replace(self._settings, merging=False))
                result.states, result.complete, self._samples = 0, False, []
                self._breadth_first()
        except Diverged as why:
            result.finding, result.complete = Finding("error", str(why)), False
            result.diverged = True
        if result.finding is None and not result.complete and self._sampled:
            self._at_random()
        return result

    def _breadth_first(self) -> None:
        """Open states in the order of their number of steps; a finding waits for its turn as well.

        What is open at one number of steps is looked at ahead of its turn, if there are others to do it.
        """
        result = self.result
        heap: list[Open] = [(0, 0, (), None)]
        tie = count(1)
        seen: dict[Any, tuple[Any, Schedule]] = {}
        share = self._budget - (self._budget // 5 if self._sampled else 0)
        while heap:
            wave = _next_wave(heap)
            runs = [schedule for _, _, schedule, finding in wave if finding is None]
            looks = self._crew.map(look, self._trials, runs[: max(0, share - result.schedules)])
            for _, _, schedule, finding in wave:
                if finding is not None:
                    result.finding, result.schedule = finding, schedule
                    return
                if result.schedules >= share:
                    return
                result.schedules += 1
                tell("runs", result.schedules, self._budget)
                self._opened(next(looks), heap, tie, seen)
        self._repeat()
        result.complete = True

    def _opened(
        self, state: Seen, heap: list[Open], tie: count[int], seen: dict[Any, tuple[Any, Schedule]]
    ) -> None:
        """Put what follows a state on the heap."""
        self._profile(state)
        if state.unmergeable is not None:
            raise _Unsound(state.unmergeable)
        for fork in state.forks:
            heapq.heappush(heap, (_steps(fork), next(tie), fork, None))
        if state.finding is not None:
            heapq.heappush(heap, (state.steps, next(tie), state.taken, state.finding))
        elif self._is_new(state, seen):
            self.result.states += 1
            for option in state.ways:
                ahead = (*state.taken, option)
                heapq.heappush(heap, (state.steps + 1, next(tie), ahead, None))

    def _is_new(self, state: Seen, seen: dict[Any, tuple[Any, Schedule]]) -> bool:
        key, pending, taken = state.key, state.pending, state.taken
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
            return self._trials.key(trial)
        finally:
            trial.close()

    def _at_random(self) -> None:
        seed = self._seed if self._seed is not None else random.randrange(1 << 32)
        result = self.result
        runs = range(max(0, self._budget - result.schedules))
        which = [(seed, number) for number in runs]
        for state in self._crew.map(at_random, self._trials, which):
            result.schedules += 1
            tell("runs", result.schedules, self._budget)
            self._profile(state)
            if state.finding is not None:
                result.finding, result.schedule = state.finding, state.taken
                result.notes.append(f"found at random with --seed {seed}: perhaps not the shortest")
                return
        result.notes.append(f"not all seen; the last fifth of the runs was random, --seed {seed}")

    def learn(self) -> bool:
        """Run once, as it comes, to see what the tasks ask for; whether all of them ended well."""
        self.result.schedules += 1
        state = in_a_row(self._trials, lambda options: 0)
        self._profile(state)
        return not state.ways and state.finding is None

    def _profile(self, state: Seen) -> None:
        """Learn what each task asks for: from it comes a size that is enough."""
        result = self.result
        result.notes += [note for note in state.notes if note not in result.notes]
        result.counts.update(state.sizes)
        result.in_bytes += [name for name in state.in_bytes if name not in result.in_bytes]
        for name, grain in state.grain.items():
            result.grain[name] = gcd(result.grain.get(name, 0), grain)
        for name, tasks in state.need.items():
            need = self._need.setdefault(name, {})
            for task, units in tasks.items():
                need[task] = max(need.get(task, 0), units)
            result.wanted[name] = sum(need.values())


def _next_wave(heap: list[Open]) -> list[Open]:
    """All that is open at the least number of steps. What they lead to comes after them, also at as many steps."""
    wave = [heapq.heappop(heap)]
    while heap and heap[0][0] == wave[0][0]:
        wave.append(heapq.heappop(heap))
    return wave


def _steps(schedule: Schedule) -> int:
    return sum(1 for option in schedule if option.kind not in (Kind.WORK, Kind.FAIL))
