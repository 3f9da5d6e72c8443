"""Where a task of a model can be: the local states of each actor, and how a granted request moves it on.

It knows no capacities and does not search. A local state is a request the task is about to make, with
what it holds then; or an end at which it holds something still. Choices are made on arrival. What is
given back between two requests is given back at once, and an end with nothing held is left out: `counts`
proves why neither loses a deadlock, nor a shorter trace. Bound: steps times holdings, for each actor.

Source: T11 of the theory of reserves (giving back early disables nothing).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias, final

from headway.checker.model import Actor, Amounts, Model

Script: TypeAlias = tuple[int, ...]  # the alternative taken at each step passed


@final
@dataclass(slots=True, eq=False)
class Local:
    """One local state; `wants` is None at an end, `after` has None for an end with nothing held.

    `steps` is how many steps lie behind it: each is one event of a trace.
    """

    number: int
    actor: int
    steps: int
    held: Amounts
    wants: Amounts | None
    choice: int
    after: list[tuple[Local | None, Script]] = field(default_factory=list)


@final
class Locals:
    """All local states of a model: `starts` for each actor, and `all`, in an order of their own."""

    def __init__(self, model: Model) -> None:
        model.check_ends()
        self.model = model
        self.all: list[Local] = []
        self.starts: list[list[Local]] = []
        for index, actor in enumerate(model.actors):
            self._known: dict[tuple[int, Amounts, int], Local] = {}
            nothing = (0,) * len(model.pools)
            arrived = self._arrive(index, actor, 0, nothing)
            self.starts.append([local for local, _ in arrived if local is not None])

    def _arrive(
        self, index: int, actor: Actor, at: int, held: Amounts
    ) -> list[tuple[Local | None, Script]]:
        """The local states met from a step on, with the alternatives that lead there."""
        found: dict[int, tuple[Local | None, Script]] = {}
        todo: list[tuple[int, Amounts, Script]] = [(at, held, ())]
        seen = {(at, held)}
        while todo:
            step, has, script = todo.pop()
            if step == len(actor.steps):
                end = self._local(index, actor, step, has, None, 0) if any(has) else None
                found.setdefault(end.number if end else -1, (end, script))
                continue
            for choice, act in enumerate(actor.steps[step]):
                if act.takes:
                    local = self._local(index, actor, step, has, act.amounts, choice)
                    found.setdefault(local.number, (local, script))
                    continue
                left = tuple(h - n for h, n in zip(has, act.amounts, strict=True))
                if (step + 1, left) not in seen:
                    seen.add((step + 1, left))
                    todo.append((step + 1, left, (*script, choice)))
        return list(found.values())

    def _local(
        self, index: int, actor: Actor, step: int, held: Amounts, wants: Amounts | None, choice: int
    ) -> Local:
        local = self._known.get((step, held, choice))
        if local is None:
            local = Local(len(self.all), index, step, held, wants, choice)
            self._known[step, held, choice] = local
            self.all.append(local)
            if wants is not None:
                has = tuple(h + n for h, n in zip(held, wants, strict=True))
                local.after = self._arrive(index, actor, step + 1, has)
        return local

    def enough(self) -> Amounts:
        """For each pool a capacity at which nobody ever waits: the most each task holds and asks for."""
        total = [0] * len(self.model.pools)
        for index, actor in enumerate(self.model.actors):
            mine = [local for local in self.all if local.actor == index and local.wants]
            for pool in range(len(total)):
                most = max((x.held[pool] + (x.wants or ())[pool] for x in mine), default=0)
                total[pool] += actor.count * most
        return tuple(total)
