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

from headway.checker.schedule import Schedule
from headway.checker.shared import closed_over, is_plain, shared_by
from headway.errors import HeadwayError
from headway.runtimes.baton import BatonRuntime, body_of
from headway.runtimes.simulator import Kind, Option, Simulator, Task

Ambient: TypeAlias = Callable[[BatonRuntime], AbstractContextManager[Any]]


class Diverged(HeadwayError):
    """A schedule led elsewhere than before: the code under check does not repeat itself."""


@final
@dataclass(slots=True)
class Entry:
    """One line of a trace; `result` is waits, granted, none, done, or the name of an exception."""

    task: str
    op: str
    pool: str
    n: int
    result: str = ""
    step: int = 0  # how many steps of the schedule had been taken


@final
@dataclass(slots=True)
class Local:
    """What is known of one task."""

    identity: tuple[Any, ...]
    history: list[tuple[Any, ...]] = field(default_factory=list)
    doing: list[tuple[Any, ...]] = field(default_factory=list)  # operations, the outermost first
    entries: list[Entry] = field(default_factory=list)  # their lines in the trace
    asked: list[bool] = field(default_factory=list)  # which allocators failed in the outermost
    held: Counter[int] = field(default_factory=Counter)  # units by pool
    children: int = 0
    most: Counter[int] = field(default_factory=Counter)  # most held while asking for more, by pool
    need: Counter[int] = field(default_factory=Counter)  # most held and asked for together

    @property
    def pending(self) -> tuple[Any, ...] | None:
        """The operation it is about to do, or in the middle of: (what, pool, how many)."""
        return self.doing[-1] if self.doing else None


@final
@dataclass(frozen=True, slots=True)
class Settings:
    """How trials are made: the same for all of one search."""

    ambient: Ambient = nullcontext
    sizes: Mapping[str, int] = field(default_factory=dict)  # other sizes for pools, by name
    resize: Callable[[Any, int], None] | None = None
    faults: bool = True  # allocators of backend pools may fail
    threads: bool = False


@final
class Trial:
    """A run in progress. Close it: what has not ended is unwound."""

    def __init__(self, program: Callable[[], Any], settings: Settings) -> None:
        self._settings = settings
        self._given: Schedule = ()
        self._chance: Callable[[Sequence[Option]], int] | None = None
        self.taken: list[Option] = []
        self.forks: list[Schedule] = []  # other answers to choices made inside a step
        self.pools: list[Any] = []
        self.trace: list[Entry] = []
        self.locals: list[Local] = []
        self.unmergeable: str | None = None
        self.steps = 0
        self._holders: dict[tuple[int, int], list[int]] = {}  # (pool, element) -> task numbers
        self.simulator = Simulator(self._inside, fine=False)
        self.runtime = BatonRuntime(
            self.simulator,
            current=lambda: self.simulator.current and self.simulator.current.body,
            start=self._start,
            adopt=self._adopt,
            after=self._after,
            threads=settings.threads,
        )
        name = getattr(program, "__name__", "main")
        self._note(name, program, ())
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

        Without `chance` it goes on only while there is one option, and `halt` does not say to stop.
        Gives the options where it stopped: none if it ran to the end.
        Raises: Diverged if a choice of the schedule does not exist.
        """
        self._given, self._chance = schedule, chance
        with self._settings.ambient(self.runtime):
            while options := self.simulator.options():
                if len(self.taken) < len(schedule):
                    option = self._find(schedule[len(self.taken)], options)
                elif chance is not None and self.steps < len(schedule) + limit:
                    option = options[chance(options)]
                elif (
                    len(alone := self._alone(options)) == 1
                    and self.steps < len(schedule) + limit
                    and not (halt is not None and halt(self))
                ):
                    option = alone[0]
                else:
                    break
                self._take(option)
                if any(task.failure is not None for task in self.simulator.tasks):
                    break
        return options

    def _alone(self, options: Sequence[Option]) -> Sequence[Option]:
        """Just the start of a task, if there is one: up to its first operation it concerns nobody else."""
        if self.unmergeable is None:
            for option in options:
                if not self.simulator.tasks[option.task - 1].steps:
                    return (option,)
        return options

    def _take(self, option: Option) -> None:
        self.taken.append(option)
        self.steps += 1
        self.simulator.take(option)
        for entry in self.locals[option.task - 1].entries:
            entry.result = entry.result or "waits"

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

    # -- what the runtime and the pools tell -----------------------------------------------------

    def _adopt(self, pool: Any) -> None:
        self.pools.append(pool)
        pool.watch(self._event)
        size = self._settings.sizes.get(pool.name)
        if size is not None and self._settings.resize is not None:
            self._settings.resize(pool, size)
        if self._settings.faults:
            pool.inject(self._fails)

    def _fails(self) -> bool:
        """Whether an allocator fails now. What comes next depends on it, so the state says it."""
        task = self.simulator.current
        if task is None:
            return False
        failed = self.simulator.fails()
        local = self.locals[task.number - 1]
        if local.doing:
            local.asked.append(failed)
        return failed

    def _start(self, body: Any, name: str) -> Task:
        parent = self.simulator.current
        assert parent is not None
        fn, args = body.origin
        self._note(name, fn, args, self.locals[parent.number - 1])
        same = sum(1 for task in self.simulator.tasks if task.name.rpartition("-")[0] == name)
        return self.simulator.start(body, f"{name}-{same + 1}")

    def _note(self, name: str, fn: Any, args: tuple[Any, ...], parent: Local | None = None) -> None:
        """Find out who a task is, wherever and whenever it is started."""
        if parent is not None:
            parent.children += 1
        why = shared_by(fn, self._is_pool)
        unique = ("start", parent.identity, parent.children) if parent is not None else ("main",)
        canon = tuple(self._canon(arg, unique) for arg in args)
        if why is None and unique in canon:
            why = f"{name} is given an object that others may have too"
        self.unmergeable = self.unmergeable or why
        cells = tuple(self._canon(cell, unique) for cell in closed_over(fn))
        code = getattr(fn, "__code__", None)
        self.locals.append(Local((name, code if code is not None else unique, canon, cells)))

    def _canon(self, value: Any, unique: tuple[Any, ...]) -> tuple[Any, ...]:
        for index, pool in enumerate(self.pools):
            if value is pool:
                return ("pool", index)
        if is_plain(value):
            return ("value", type(value), value)
        if callable(value) and hasattr(value, "__code__") and not value.__closure__:
            return ("code", value.__code__)
        return unique

    def _is_pool(self, value: Any) -> bool:
        return any(value is pool for pool in self.pools)

    def _event(self, event: Any) -> None:
        """A pool's hook: before a request and a release others may come; a grant is a result."""
        task = self.simulator.current
        if task is None:
            return
        local, index = self.locals[task.number - 1], self._index(event.pool)
        if event.kind == "request":
            self._request(task, local, index, event)
        elif event.kind == "grant":
            self._granted(task, local, index, event)
        elif event.kind == "release":
            local.doing.append(("free", index, event.count))
            self.runtime.point(f"free {event.pool.name}")
            local.doing.pop()
            self._gone(task, local, index, event, "free")
        elif event.kind in ("hand_over", "transfer"):
            self._gone(task, local, index, event, event.kind)

    def _request(self, task: Task, local: Local, index: int, event: Any) -> None:
        local.doing.append(("alloc", index, event.count))
        held = local.held[index]
        local.most[index] = max(local.most[index], held)
        local.need[index] = max(local.need[index], held + event.count)
        self.runtime.point(f"alloc {event.pool.name}")
        entry = Entry(task.name, "alloc", event.pool.name, event.count, "", self.steps)
        self.trace.append(entry)
        local.entries.append(entry)

    def _granted(self, task: Task, local: Local, index: int, event: Any) -> None:
        entry = local.entries[-1] if local.entries else None
        if entry is None or entry.result == "waits":
            entry = Entry(task.name, "alloc", event.pool.name, event.count, "", self.steps)
            self.trace.append(entry)
            local.entries[-1:] = [entry] if local.entries else []
        entry.result = "granted"
        local.held[index] += event.count
        self._holders.setdefault((index, id(event.element)), []).append(task.number)

    def _gone(self, task: Task, local: Local, index: int, event: Any, op: str) -> None:
        self.trace.append(Entry(task.name, op, event.pool.name, event.count, "done", self.steps))
        local.history.append((op, index, event.count))
        self._moved(index, event)

    def _moved(self, index: int, event: Any) -> None:
        """An element left whoever held it: freed, in flight, or another's now."""
        holders = self._holders.setdefault((index, id(event.element)), [])
        current = self.simulator.current
        if holders:  # equal elements may be out twice: whoever acts now gives up his own
            mine = current is not None and current.number in holders
            number = current.number if mine and current is not None else holders[0]
            holders.remove(number)
            self.locals[number - 1].held[index] -= 1
        elif current is not None and self.locals[current.number - 1].held[index] > 0:
            self.locals[current.number - 1].held[index] -= (
                1  # one of a bulk: only the first is told
            )
        if event.kind == "transfer":
            for task in self.simulator.tasks:
                if task.name == event.to and not task.done:
                    holders.append(task.number)
                    self.locals[task.number - 1].held[index] += 1

    def _after(self, result: Any) -> None:
        """The end of an operation that ran as a plan."""
        task = self.simulator.current
        if task is None:
            return
        local = self.locals[task.number - 1]
        if not local.entries:
            return  # a plan that is no allocation
        entry, op = local.entries.pop(), local.doing.pop()
        if isinstance(result, BaseException):
            entry.result = type(result).__name__
        elif entry.result != "granted":
            entry.result = "none"
        local.history.append((*op, entry.result))
        if not local.doing:
            local.asked.clear()

    def _index(self, pool: Any) -> int:
        return next(index for index, known in enumerate(self.pools) if known is pool)

    # -- looking ---------------------------------------------------------------------------------

    def parked(self) -> list[tuple[Task, Local]]:
        """Who waits, in the order of arrival."""
        waiting = [task for task in self.simulator.tasks if not task.done and task.ticket]
        waiting.sort(key=lambda task: task.parked_at)
        return [(task, self.locals[task.number - 1]) for task in waiting]

    def key(self) -> tuple[Any, ...]:
        """What the future depends on, if tasks share only pools."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        tasks: Counter[Any] = Counter()
        for task, local in zip(self.simulator.tasks, self.locals, strict=True):
            tasks[self._state(task, local, rank.get(task.number))] += 1
        counts = []
        for pool in self.pools:
            stats = pool.stats()
            counts.append((pool.name, stats.min_count, stats.reserve_count, stats.outstanding))
        return (frozenset(tasks.items()), tuple(counts))

    def _state(self, task: Task, local: Local, rank: int | None) -> tuple[Any, ...]:
        if task.done:
            return (local.identity, "done", task.failure is None)
        left_s = None if task.deadline is None else task.deadline - self.simulator.clock_s
        asked = tuple(local.asked)
        return (local.identity, tuple(local.history), asked, task.steps > 0, rank, left_s)

    def pending(self) -> Counter[Any]:
        """What each task is about to do: it must be the same in states of one key."""
        return Counter(
            (self._state(task, local, None), tuple(local.doing))
            for task, local in zip(self.simulator.tasks, self.locals, strict=True)
        )

    def alike(self, options: Sequence[Option]) -> int:
        """A pick that depends on the state alone, not on the numbers of tasks."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        looks = [
            repr((self._state(self.simulator.tasks[o.task - 1], local, rank.get(o.task)), o.kind))
            for o in options
            for local in [self.locals[o.task - 1]]
        ]
        return looks.index(min(looks))

    def distinct(self, options: Iterable[Option]) -> list[Option]:
        """One option of each class of equal tasks."""
        rank = {task.number: place for place, (task, _) in enumerate(self.parked())}
        found: dict[Any, Option] = {}
        for option in options:
            task, local = self.simulator.tasks[option.task - 1], self.locals[option.task - 1]
            state = self._state(task, local, rank.get(option.task))
            woken = option.kind is Kind.STEP or task.ticket is None
            found.setdefault((state, tuple(local.doing), option.kind, woken), option)
        return list(found.values())
