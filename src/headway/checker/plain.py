"""Code as a model: the steps that were learned of each kind of task, ready for the search over counts.

It does not search (`counts`), nor run a schedule (`guided`). A kind of task becomes an actor, its operations
the actor's steps. A task that only gives back (a completion) never waits, so it gives back for whoever started
it, at the moment of its start: earlier returns disable nothing. A task that takes must be
started by the function itself, before that takes anything; else the schedules are run one by one.

An allocator that may fail is taken to fail always. Where what a task holds only grows until it
ends, that is the worst case as long as every larger size is safe as well, which `counted` asks for.

Source: T5 and T11 of the theory of reserves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, final

from headway.checker.facts import PoolFacts
from headway.checker.learn import Learned, NotPlain, Probe
from headway.checker.locals import Locals
from headway.checker.model import ANY_FIT, FIFO, Act, Actor, Model, Step, is_sound
from headway.checker.trial import Settings
from headway.core.mm.ladder import Wake

_WAKES = {Wake.FIFO: FIFO, Wake.ANY_FIT: ANY_FIT}


@final
@dataclass(frozen=True, slots=True)
class Plain:
    """What was learned, as a model; and which real tasks and operations its tasks and steps stand for."""

    model: Model
    grains: tuple[int, ...]  # of each pool: what one unit of the model stands for
    locals_: Locals
    sizes: tuple[int, ...]  # of the pools as they were made
    in_bytes: tuple[str, ...]  # the names of those whose sizes are bytes
    tasks: tuple[tuple[int, ...], ...]  # for each actor, the numbers of its tasks in a run
    after: tuple[
        tuple[int | None, ...], ...
    ]  # for each step, operations done then; None: a child's
    backed: tuple[bool, ...]
    helpers: bool  # whether there are tasks that only give back
    notes: tuple[str, ...]
    runs: int

    def task(self, number: int) -> tuple[int, int]:
        """The actor of a task of the model, and its number in a run."""
        for actor, numbers in enumerate(self.tasks):
            if number < len(numbers):
                return actor, numbers[number]
            number -= len(numbers)
        raise IndexError(number)

    def at_least(self) -> bool:
        """Whether nothing is given back between two requests: then more units are only more units."""
        for local in self.locals_.all:
            for target, _ in local.after:
                if target is not None and local.wants is not None:
                    has = tuple(h + w for h, w in zip(local.held, local.wants, strict=True))
                    if target.held != has:
                        return False
        return True


def plain(program: Callable[[], Any], settings: Settings) -> Plain:
    """Learn a program, twice: the second time with the elements of fixed pools in the opposite order.

    Raises: NotPlain if it is not so simple; RawPrimitive, UsageError for what is no program to check.
    """
    probe, mirrored = Probe(settings), Probe(replace(settings, mirrored=True))
    probe.learn(program)
    mirrored.learn(program)
    if _looks(probe) != _looks(mirrored):
        raise NotPlain(
            "a second run with other elements did something else: it depends on them, or on chance"
        )
    kinds = {task.kind: _Kind(probe, task) for task in probe.tasks if task.kind == task.number}
    actors, tasks, after = [], [], []
    for kind in kinds.values():
        numbers = tuple(task.number for task in probe.tasks if task.kind == kind.task.number)
        if kind.takes or (kind.task.number == 1 and kind.steps):
            kind.check_children(kinds)
            texts = tuple("" for _ in kind.steps)
            actors.append(Actor(f"task {kind.task.number}", len(numbers), kind.all(kinds), texts))
            tasks.append(numbers)
            after.append(tuple(kind.after))
    if not all(is_sound(actor) for actor in actors):
        raise NotPlain("a task gives back what another took")
    grains = _grains(probe.pools, actors)
    model = Model(
        _wake(probe.pools),
        tuple(facts.name for facts in probe.pools),
        tuple(facts.size // grain for facts, grain in zip(probe.pools, grains, strict=True)),
        tuple(_in_grains(actor, grains) for actor in actors),
    )
    return Plain(
        model, grains, Locals(model), tuple(facts.size for facts in probe.pools),
        tuple(facts.name for facts in probe.pools if facts.is_budget and facts.pool.in_bytes),
        tuple(tasks), tuple(after),
        tuple(not facts.is_fixed for facts in probe.pools),
        sum(map(len, tasks)) + ((1,) not in tasks) < len(probe.tasks),
        tuple(probe.notes), 2,
    )  # fmt: skip


def _looks(probe: Probe) -> list[Any]:
    """All that was learned, in words that are the same in every run."""
    return [(task.local.identity, task.local.history, task.children) for task in probe.tasks]


def _wake(pools: list[PoolFacts]) -> str:
    wakes = {facts.pool.wake for facts in pools}
    if len(wakes) > 1:
        raise NotPlain("its pools serve those who wait in different ways")
    for wake in wakes:
        if wake not in _WAKES:
            raise NotPlain(f"those who wait for a pool race for what is freed ({wake.value})")
        return _WAKES[wake]
    return FIFO


def _grains(pools: list[PoolFacts], actors: list[Actor]) -> tuple[int, ...]:
    """Of a budget the greatest number of which all that is asked for are multiples; sizes between behave alike."""
    acts = [act for actor in actors for step in actor.steps for act in step]
    return tuple(
        max(1, gcd(*(act.amounts[index] for act in acts))) if facts.is_budget else 1
        for index, facts in enumerate(pools)
    )


def _in_grains(actor: Actor, grains: tuple[int, ...]) -> Actor:
    def scaled(act: Act) -> Act:
        return Act(act.takes, tuple(n // g for n, g in zip(act.amounts, grains, strict=True)))

    steps = tuple(tuple(scaled(act) for act in step) for step in actor.steps)
    return replace(actor, steps=steps) if max(grains, default=1) > 1 else actor


@final
class _Kind:
    """One kind of task: its own steps, and those its children take for it."""

    def __init__(self, probe: Probe, task: Learned) -> None:
        self.task = task
        self._tasks = probe.tasks
        self._width = len(probe.pools)
        self.steps = [op for op in task.local.history if op[0] in ("alloc", "free")]
        self.takes = any(op[0] == "alloc" for op in self.steps)
        self.after: list[int | None] = []

    def _act(self, op: tuple[Any, ...]) -> Step:
        amounts = [0] * self._width
        amounts[op[1]] = op[2]
        return (Act(op[0] == "alloc", tuple(amounts)),)

    def check_children(self, kinds: dict[int, _Kind]) -> None:
        """Raises: NotPlain if a child takes something, unless the function starts it at its outset."""
        for done, number in self.task.children:
            child = kinds[self._tasks[number - 1].kind]
            if child._any_takes(kinds) and (self.task.number != 1 or done):
                raise NotPlain("tasks that take are started after something was taken")

    def _any_takes(self, kinds: dict[int, _Kind]) -> bool:
        inside = (kinds[self._tasks[number - 1].kind] for _, number in self.task.children)
        return self.takes or any(child._any_takes(kinds) for child in inside)

    def all(self, kinds: dict[int, _Kind]) -> tuple[Step, ...]:
        """Its steps with those of its children between them; fills `after`."""
        found: list[Step] = []
        children = list(self.task.children)
        for done, op in enumerate((*self.task.local.history, None)):
            while children and children[0][0] == done:
                child = kinds[self._tasks[children.pop(0)[1] - 1].kind]
                for theirs in child._gives(kinds):
                    found.append(self._act(theirs))
                    self.after.append(None)
            if op is not None and op[0] in ("alloc", "free"):
                found.append(self._act(op))
                self.after.append(done + 1)
        return tuple(found)

    def _gives(self, kinds: dict[int, _Kind]) -> list[tuple[Any, ...]]:
        if self.takes:
            return []  # an actor of its own
        found = list(self.steps)
        for _, number in self.task.children:
            found += kinds[self._tasks[number - 1].kind]._gives(kinds)
        return found
