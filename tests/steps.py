"""Step a plan by hand: a test is a log of *request, answer, state*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from headway.core.plan import Call, Now, Offload, Park, Plan, Request, Spawn, Ticket, Unpark

T = TypeVar("T")


class Stepper(Generic[T]):
    """A plan that is carried out request by request. `request` is what it asks for now."""

    def __init__(self, plan: Plan[T]) -> None:
        self.plan = plan
        self.request: Request | None = None
        self.done = False
        self.result: Any = None
        self.spawned: list[Plan[Any]] = []  # what it wanted started beside it
        self._go(lambda: next(plan))

    def _go(self, move: Callable[[], Request]) -> Request | None:
        self.request = None
        try:
            self.request = move()
        except StopIteration as stop:
            self.done, self.result = True, stop.value
        except BaseException:
            self.done = True
            raise
        return self.request

    def answer(self, value: Any = None) -> Request | None:
        return self._go(lambda: self.plan.send(value))

    def throw(self, error: BaseException) -> Request | None:
        return self._go(lambda: self.plan.throw(error))

    def effect(self) -> Request | None:
        """Run the effect that is asked for, and answer what it gave or raised; or wake, or note a spawn."""
        if isinstance(self.request, Unpark):
            self.request.ticket.wake()
            return self.answer()
        if isinstance(self.request, Spawn):
            self.spawned.append(self.request.plan)
            return self.answer()
        assert isinstance(self.request, Call | Offload), self.request
        try:
            value = self.request.effect(*self.request.args)
        except BaseException as error:
            return self.throw(error)
        return self.answer(value)

    def to_park(self, now_s: float = 0.0) -> Ticket:
        """Carry out what comes before the wait; the ticket it parks on."""
        while not isinstance(self.request, Park):
            assert self.request is not None, f"it ended with {self.result!r} instead of parking"
            if isinstance(self.request, Now):
                self.answer(now_s)
            else:
                self.effect()
        return self.request.ticket

    def finish(self, now_s: float = 0.0) -> Any:
        """To the end; a wait must have been woken already."""
        while self.request is not None:
            if isinstance(self.request, Park):
                assert self.request.ticket.woken, "it waits, and nobody has woken it"
                self.answer(True)
            elif isinstance(self.request, Now):
                self.answer(now_s)
            else:
                self.effect()
        return self.result


def step(plan: Plan[T]) -> Stepper[T]:
    """Run a plan to its first request."""
    return Stepper(plan)
