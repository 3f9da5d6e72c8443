"""The simulator does with a plan what the real drivers do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headway.core.plan import Plan
from headway.runtimes.simulator import Cancelled, Kind, Option, Simulator
from tests.runtimes.conformance import Conformance, Driver


class OnSimulator(Driver):
    cancelled = Cancelled

    def __init__(self) -> None:
        self.turn = 0
        self.when: Callable[[], bool] | None = None
        self.victim = 0
        self.simulator = self.runtime = Simulator(self.choose, cancels=1)

    def choose(self, options: Sequence[Option]) -> int:
        """Everybody in turn; a cancellation when a test asks for it."""
        if self.when is not None and self.when():
            for index, option in enumerate(options):
                if option.kind is Kind.CANCEL and option.task == self.victim:
                    self.when = None
                    return index
        steps = [index for index, option in enumerate(options) if option.kind is Kind.STEP]
        self.turn += 1
        return steps[self.turn % len(steps)]

    def run(self, *plans: Plan[Any]) -> list[Any]:
        started = [self.simulator.start(plan, f"plan {n}") for n, plan in enumerate(plans)]
        while any(not task.done for task in started):
            options = self.simulator.options()
            self.simulator.take(options[self.choose(options)])
        for task in started:
            if task.failure is not None:
                raise task.failure
        return [task.result for task in started]

    def cancel(
        self, plan: Plan[Any], when: Callable[[], bool], *others: Plan[Any]
    ) -> BaseException:
        task = self.simulator.start(plan, "victim")
        self.when, self.victim = when, task.number
        while not task.done:
            options = self.simulator.options()
            self.simulator.take(options[self.choose(options)])
        assert task.failure is not None, "it was not cancelled"
        return task.failure


class TestSimulator(Conformance):
    make = OnSimulator
