"""The rules of a model, step by step, with every task by name: what a trace must obey.

It does not search; `counts` does, and its traces are played here before they are shown. A step of a
task asks for its next request, or gives back. FIFO: a request joins the queue of every pool it names,
in one event, and is granted when it is the head of each and fits; a newcomer is granted at once only
where nobody waits. Any-fit: a request that waits is granted when its task is given another step and it fits.

Tasks are *stuck* if none of them could be served though everybody else gave back all it holds, save
those that ended and will not. That needs no look ahead, and at the end of all steps it is exact.

Source: graph reduction of reusable resources (Holt 1972).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypeAlias, final

from headway.checker.ledger import Entry
from headway.checker.model import FIFO, Act, Amounts, Model
from headway.errors import UsageError

Move: TypeAlias = tuple[int, int]  # the number of a task, from 0, and which alternative it takes

_CHOICE = re.compile(r"(\d+)(?:/(\d+))?(?:\*(\d+))?")
_LONGEST = 1_000_000


@final
class Play:
    """One run of a model, as far as it got."""

    def __init__(self, model: Model) -> None:
        model.check_ends()
        self.model = model
        self.free = list(model.capacities)
        self.names = [a.task(i) for a in model.actors for i in range(a.count)]
        self.steps = [a.steps for a in model.actors for _ in range(a.count)]
        self.at = [0] * len(self.names)
        self.held = [[0] * len(model.pools) for _ in self.names]
        self.waiting: dict[int, Act] = {}  # in the order of arrival
        self.trace: list[Entry] = []
        self.taken: list[Move] = []

    def ended(self, task: int) -> bool:
        return self.at[task] == len(self.steps[task])

    def options(self) -> list[Move]:
        """Every step that some task can take now; under FIFO, who waits can take none."""
        found = []
        for task, at in enumerate(self.at):
            if (act := self.waiting.get(task)) is not None:
                if self.model.wake != FIFO and self._fits(act.amounts):
                    found.append((task, 0))
            elif not self.ended(task):
                found += [(task, choice) for choice in range(len(self.steps[task][at]))]
        return found

    def step(self, task: int, choice: int = 0) -> None:
        """Let a task take its next step, with the alternative `choice` if it has one."""
        self.taken.append((task, choice))
        act = self.waiting.get(task) or self.steps[task][self.at[task]][choice]
        if not act.takes:
            self._give(task, act)
        elif self._may_have(task, act):
            self._grant(task, act)
        else:
            self._note(task, "alloc", act, "waits")
            self.waiting[task] = act

    def _give(self, task: int, act: Act) -> None:
        for pool, n in enumerate(act.amounts):
            self.free[pool] += n
            self.held[task][pool] -= n
        self.at[task] += 1
        self._note(task, "free", act, "done")
        if self.model.wake == FIFO:
            for other in self._heads():
                self._grant(other, self.waiting[other])

    def _heads(self) -> Iterable[int]:
        """The waiting tasks that can be granted, one after the other as each is."""
        while True:
            for task, act in self.waiting.items():
                if self._fits(act.amounts) and not self._behind(task, act):
                    break
            else:
                return
            yield task

    def _behind(self, task: int, act: Act) -> bool:
        """Whether somebody who came earlier waits for a pool that this request names."""
        for other, ahead in self.waiting.items():
            if other == task:
                return False
            if _meet(act.amounts, ahead.amounts):
                return True
        return False

    def _may_have(self, task: int, act: Act) -> bool:
        if not self._fits(act.amounts):
            return False
        return self.model.wake != FIFO or not self._behind(task, act)

    def _fits(self, amounts: Amounts) -> bool:
        return all(n <= free for n, free in zip(amounts, self.free, strict=True))

    def _grant(self, task: int, act: Act) -> None:
        self.waiting.pop(task, None)
        for pool, n in enumerate(act.amounts):
            self.free[pool] -= n
            self.held[task][pool] += n
        self.at[task] += 1
        self._note(task, "alloc", act, "granted")

    def _note(self, task: int, op: str, act: Act, result: str) -> None:
        for pool, n in enumerate(act.amounts):
            if n:
                name = self.model.pools[pool]
                self.trace.append(Entry(self.names[task], op, name, n, result, len(self.taken)))

    def stuck(self) -> list[int]:
        """The waiting tasks that nothing can free any more, in the order of arrival."""
        circle = dict(self.waiting)
        while True:
            best = list(self.model.capacities)
            for task, held in enumerate(self.held):
                if task in circle or self.ended(task):
                    best = [b - h for b, h in zip(best, held, strict=True)]
            freed = [task for task in circle if self._served(task, circle, best)]
            if not freed:
                return list(circle)
            for task in freed:
                del circle[task]

    def _served(self, task: int, circle: dict[int, Act], best: Sequence[int]) -> bool:
        act = circle[task]
        if any(n > b for n, b in zip(act.amounts, best, strict=True)):
            return False
        if self.model.wake != FIFO:
            return True
        for other, ahead in circle.items():
            if other == task:
                return True
            if _meet(act.amounts, ahead.amounts):
                return False
        return True

    def over(self) -> bool:
        """Whether every task ended."""
        return all(self.ended(task) for task in range(len(self.at)))


def _meet(one: Amounts, two: Amounts) -> bool:
    return any(a and b for a, b in zip(one, two, strict=True))


def render(moves: Sequence[Move]) -> str:
    """The text of a schedule: numbers of tasks from 1, ``/2`` for the second alternative, ``*3`` for thrice."""
    parts = []
    for (task, choice), group in groupby(moves):
        times = len(list(group))
        which = f"/{choice + 1}" if choice else ""
        parts.append(f"{task + 1}{which}" + (f"*{times}" if times > 1 else ""))
    return ".".join(parts) or "-"


def follow(model: Model, text: str) -> Play:
    """Play the schedule that a text stands for.

    Raises: UsageError if the text is no schedule, or not one of this model.
    """
    play = Play(model)
    text = text.strip()
    for part in text.split(".") if text != "-" else ():
        match = _CHOICE.fullmatch(part)
        if match is None:
            raise UsageError(f"schedule: {part!r} is not a choice; write them as in 1*3.2.1/2")
        task, which, times = (int(found or 1) for found in match.groups())
        if not 1 <= times <= _LONGEST:
            raise UsageError(f"schedule: {part!r} is out of range; a count is 1 to {_LONGEST}")
        for _ in range(times):
            _checked(play, task - 1, which - 1)
    return play


def _checked(play: Play, task: int, choice: int) -> None:
    if not 0 <= task < len(play.names):
        raise UsageError(f"schedule: no task {task + 1}; the model has {len(play.names)}")
    if (task, choice) not in play.options():
        name = play.names[task]
        if play.ended(task):
            why = "has ended"
        elif task in play.waiting:
            why = "still waits"
        else:
            why = f"has no alternative {choice + 1} at its step {play.at[task] + 1}"
        raise UsageError(f"schedule: {name} {why} after {len(play.taken)} steps")
    play.step(task, choice)
