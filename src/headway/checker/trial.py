"""One run of the code under check along one schedule, and what can be seen of it at each choice.

It does not search (`explore`) and does not judge (`properties`). A trial makes a simulator and the
runtime that pools take when none is given, runs the function as task 1, and follows a schedule; then
it can be asked for the options, for the trace, and for the *key* of the state it is in.

The key says all that the future can depend on if tasks share only pools: of each living task what it
runs, on what, which results its own operations had, and where it waits; of each pool the counts. It
names no task and no element, so states that differ by an exchange of equal tasks have one key.

Source: symmetry by sorted tuples; local state as the history of own results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from headway.checker.budgets import Units
from headway.checker.devices import CheckedDevice, Injected
from headway.checker.ledger import Ledger, Local
from headway.checker.schedule import Schedule
from headway.errors import HeadwayError, PoolTimeout
from headway.runtimes.baton import BatonRuntime, CoroutineBody, body_of
from headway.runtimes.simulator import Cancelled, Kind, Option, Simulator, Task

#: Makes a runtime the one that pools take: that of a run, or of learning.
Ambient: TypeAlias = Callable[[Any], AbstractContextManager[Any]]


class Diverged(HeadwayError):
    """A schedule led elsewhere than before: the code under check does not repeat itself."""


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """How trials are made: the same for all of one search."""

    ambient: Ambient = nullcontext
    sizes: Mapping[str, int] = field(default_factory=dict)  # other sizes for pools, by name
    resize: Callable[[Any, int], None] | None = None
    merging: bool = True  # tasks are thought to share only pools
    mirrored: bool = False  # fixed pools give their elements in the opposite order
    threads: bool = False
    cancels: int = 0  # how many waits of asynchronous tasks may be cancelled in one run
    leaks: bool = (
        True  # units that never came home are a finding; else what else there may be is looked for
    )


@final
class Trial:
    """A run in progress. Close it: what has not ended is unwound."""

    def __init__(self, program: Callable[[], Any], settings: Settings) -> None:
        self._settings = settings
        self.leaks = settings.leaks
        self._given: Schedule = ()
        self._chance: Callable[[Sequence[Option]], int] | None = None
        self.taken: list[Option] = []
        self.forks: list[Schedule] = []  # other answers to choices made inside a step
        self.steps = 0
        self._arrivals = 0
        cancels = settings.cancels
        self.simulator = Simulator(self._inside, fine=False, expires=True, cancels=cancels)
        self.ledger = Ledger(lambda: self.simulator.current, lambda who: self.runtime.point(who))
        self.runtime = BatonRuntime(
            self.simulator,
            current=lambda: self.simulator.current and self.simulator.current.body,
            start=self._start,
            adopt=self._adopt,
            adopt_device=self._adopt_device,
            after=self.ledger.ended,
            threads=settings.threads,
        )
        name = self.ledger.note(getattr(program, "__name__", "main"), program, ())
        with settings.ambient(self.runtime):  # bodies keep the context they are made in
            self.simulator.start(body_of(program, (), threads=settings.threads), name)

    # -- following a schedule --------------------------------------------------------------------

    def follow(
        self,
        schedule: Schedule,
        chance: Callable[[Sequence[Option]], int] | None = None,
        limit: int = 1000,
        halt: Callable[[Trial], Any] | None = None,
    ) -> list[Option]:
        """Take the choices of `schedule`, then (by `chance`, if given) go on, at most `limit` steps.

        `chance` picks one of the options by its place; a negative number stops.
        Without `chance` it goes on only while there is one option, and `halt` does not say to stop.
        Gives the options where it stopped: none if it ran to the end.
        Raises: Diverged if a choice of the schedule does not exist.
        """
        self._given, self._chance = schedule, chance
        with self._settings.ambient(self.runtime):
            while options := self.options():
                if len(self.taken) < len(schedule):
                    option = self._find(schedule[len(self.taken)], options)
                elif (free := self._free(options, chance)) is None or limit == 0:
                    break
                elif chance is None and halt is not None and halt(self):
                    break
                else:
                    limit -= 1
                    option = free
                self._take(option)
                if self._failed(option.task):
                    break
        return options

    def options(self) -> list[Option]:
        """What can happen next; only asynchronous tasks can be cancelled."""
        found = self.simulator.options()
        if not self._settings.cancels:
            return found
        tasks = self.simulator.tasks
        return [
            option
            for option in found
            if option.kind is not Kind.CANCEL
            or isinstance(tasks[option.task - 1].body, CoroutineBody)
        ]

    def _free(
        self, options: Sequence[Option], chance: Callable[[Sequence[Option]], int] | None
    ) -> Option | None:
        """What comes next when no schedule says it: by chance, or the only thing that can."""
        if chance is not None:
            picked = chance(options)
            return options[picked] if picked >= 0 else None
        alone = self._alone(options)
        return alone[0] if len(alone) == 1 else None

    def _alone(self, options: Sequence[Option]) -> Sequence[Option]:
        """Just the start of a task, if there is one: up to its first operation it concerns nobody else."""
        if self._settings.merging and self.ledger.unmergeable is None:
            for option in options:
                if not self.simulator.tasks[option.task - 1].steps:
                    return (option,)
        return options

    def _take(self, option: Option) -> None:
        self.taken.append(option)
        self.steps += 1
        local = self.ledger.locals[option.task - 1]
        local.expired = local.expired or option.kind is Kind.EXPIRE
        self.simulator.take(option)
        for entry in local.entries:
            entry.result = entry.result or "waits"
        if not local.arrived and self.simulator.tasks[option.task - 1].ticket is not None:
            self._arrivals += 1
            local.arrived = self._arrivals

    def failures(self) -> list[tuple[Task, BaseException]]:
        """What ended tasks badly. A time limit that ran out early is the caller's, and no finding."""
        return [
            (task, task.failure)
            for task in self.simulator.tasks
            if task.failure is not None and self._failed(task.number)
        ]

    def _failed(self, number: int) -> bool:
        failure = self.simulator.tasks[number - 1].failure
        if failure is None or isinstance(failure, Cancelled | Injected):
            return False
        return not (isinstance(failure, PoolTimeout) and self.ledger.locals[number - 1].expired)

    def pairs(self) -> Iterable[tuple[Task, Local]]:
        """Each task, and what is known of it."""
        return zip(self.simulator.tasks, self.ledger.locals, strict=True)

    def _find(self, wanted: Option, options: Sequence[Option]) -> Option:
        if wanted not in options:
            found = " ".join(map(str, options)) or "nothing"
            raise Diverged(
                f"schedule: choice {len(self.taken) + 1} is {wanted}, but what can happen there is "
                f"{found}: it is of another program, or the function does not repeat itself"
            )
        return wanted

    def _inside(self, options: Sequence[Option]) -> int:
        """The oracle for choices inside a step: the schedule's, else chance, else the first."""
        if len(self.taken) < len(self._given):
            picked = options.index(self._find(self._given[len(self.taken)], options))
        elif self._chance is not None:
            picked = self._chance(options)
        else:
            picked = 0
            self.forks += [(*self.taken, other) for other in options[1:]]
        self.taken.append(options[picked])
        return picked

    def close(self) -> None:
        """Unwind what has not ended."""
        with self._settings.ambient(self.runtime):
            self.simulator.close()

    # -- what the runtime tells ------------------------------------------------------------------

    def _adopt(self, pool: Any) -> None:
        name, settings = self.ledger.adopt(pool), self._settings
        pool = self.ledger.pools[-1]
        size = settings.sizes.get(name)
        if size is not None and settings.resize is not None:
            settings.resize(pool, size)
        if settings.mirrored and hasattr(pool, "capacity"):
            pool._reserve.reverse()
        if not isinstance(pool, Units):  # a budget has no allocator
            pool.inject(self._fails)

    def _adopt_device(self, device: Any) -> CheckedDevice:
        self.ledger.unmergeable = self.ledger.unmergeable or "a device remembers what was written"
        return CheckedDevice(device, self._device_turn)

    def _device_turn(self, op: str, name: str, length: int) -> bool:
        """Let others go first; whether the request fails."""
        task = self.simulator.current
        if task is None:
            return False
        self.runtime.point(f"{op} {name}")
        failed = self.simulator.fails()
        self.ledger.did(task, op, name, length, "BlockError" if failed else "done")
        return failed

    def _fails(self) -> bool:
        """Whether an allocator fails now. What comes next depends on it, so the state says it."""
        task = self.simulator.current
        if task is None:
            return False
        failed = self.simulator.fails()
        local = self.ledger.locals[task.number - 1]
        if local.doing:
            local.asked.append(failed)
        return failed

    def _start(self, body: Any, name: str) -> Task:
        parent = self.simulator.current
        assert parent is not None
        fn, args = body.origin
        name = self.ledger.note(name, fn, args, self.ledger.locals[parent.number - 1])
        return self.simulator.start(body, name)

    # -- looking ---------------------------------------------------------------------------------

    def parked(self) -> list[tuple[Task, Local]]:
        """Who waits, in the order of arrival."""
        waiting = [(task, its) for task, its in self.pairs() if not task.done and task.ticket]
        return sorted(waiting, key=lambda pair: pair[1].arrived)

    def key(self) -> tuple[Any, ...]:
        """What the future depends on, if tasks share only pools."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        tasks: Counter[Any] = Counter()
        for task, local in self.pairs():
            tasks[self._state(task, local, rank.get(task.number))] += 1
        counts: list[tuple[Any, ...]] = []
        places = {task.ticket: rank[task.number] for task, _ in self.parked() if task.ticket}
        for pool in self.ledger.pools:
            stats = pool.stats()
            counts.append((pool.name, stats.min_count, stats.reserve_count, stats.outstanding))
            if isinstance(pool, Units):
                counts.append(pool.state(places))
        return (frozenset(tasks.items()), tuple(counts), self.simulator.cancels)

    def _state(self, task: Task, local: Local, rank: int | None) -> tuple[Any, ...]:
        if task.done:
            return (local.identity, "done", task.failure is None)
        left_s = None if task.deadline is None else task.deadline - self.simulator.clock_s
        asked = tuple(local.asked)
        told = (asked, local.expired, task.steps > 0)
        return (local.identity, tuple(local.history), told, rank, left_s)

    def pending(self) -> Counter[Any]:
        """What each task is about to do: it must be the same in states of one key."""
        return Counter(
            (self._state(task, local, None), tuple(local.doing)) for task, local in self.pairs()
        )

    def alike(self, options: Sequence[Option]) -> int:
        """A pick that depends on the state alone, not on the numbers of tasks."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        looks = [
            repr((self._state(self.simulator.tasks[o.task - 1], local, rank.get(o.task)), o.kind))
            for o in options
            for local in [self.ledger.locals[o.task - 1]]
        ]
        return looks.index(min(looks))

    def distinct(self, options: Iterable[Option]) -> list[Option]:
        """One option of each class of equal tasks."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        found: dict[Any, Option] = {}
        for option in options:
            task, local = self.simulator.tasks[option.task - 1], self.ledger.locals[option.task - 1]
            state = self._state(task, local, rank.get(option.task))
            woken = option.kind is Kind.STEP or task.ticket is None
            found.setdefault((state, tuple(local.doing), option.kind, woken), option)
        return list(found.values())
