"""One run of many plans, in virtual time, where every choice is an oracle's.

It decides what *can* happen next and does what the oracle picks; it does not explore, shrink or judge
(`headway.checker` does), and it starts no thread. A body is anything with a generator's ``send`` and
``throw``: a plan, or a plain function made into a body by `headway.runtimes.baton`.

A *choice* is between options: a task takes its next step, is cancelled, or has waited for too long; an
effect works, or fails. With ``fine`` every request is a place where another task may come first;
without, only `Park` is (a body that wants to let others go first parks on a ticket that is woken
already). A parked task can go on when its ticket is woken, or its time is over. The clock moves when
nobody else can go on, and with ``expires`` wherever the oracle lets a time limit run out. The same
answers of the oracle give the same run, request for request.

Source: the split of shuttle (engine below, schedulers above); FoundationDB's simulated clock.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar, assert_never, final

from headway.core.plan import Call, Now, Offload, Park, Plan, Request, Spawn, Ticket, Unpark
from headway.errors import Deadlock, UsageError
from headway.runtimes import scopes

T = TypeVar("T")


class Cancelled(CancelledError):
    """Thrown into a task that the oracle chose to cancel, which asyncio would cancel so."""


class Body(Protocol):
    """What a task runs: the part of a generator that the simulator uses."""

    def send(self, answer: Any, /) -> Any: ...
    def throw(self, error: BaseException, /) -> Any: ...
    def close(self) -> None: ...


class Kind(Enum):
    """What an option does to its task; the value is its mark in a schedule's text."""

    STEP = ""
    WORK = "+"
    FAIL = "!"
    CANCEL = "x"
    EXPIRE = "t"


@final
@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can happen next, to the task of this number (from 1, in order of start)."""

    task: int
    kind: Kind = Kind.STEP

    def __str__(self) -> str:
        return f"{self.task}{self.kind.value}"


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """How an effect fails: it answers `value`, or raises `error` if there is one."""

    value: Any = None
    error: BaseException | None = None


Choose = Callable[[Sequence[Option]], int]
MayFail = Callable[[Call | Offload], Failure | None]


@final
class Task:
    """One simulated task. Changed only by the simulator; everybody may look."""

    __slots__ = (
        "body", "deadline", "done", "failure", "name", "number", "parked_at", "pending", "result",
        "steps",
    )  # fmt: skip

    def __init__(self, number: int, name: str, body: Body) -> None:
        self.number = number
        self.name = name
        self.body = body
        self.pending: Request | None = None  # asked for, and not got; None before its start
        self.deadline: float | None = None
        self.parked_at = 0  # order of arrival of parked tasks
        self.done = False
        self.result: Any = None
        self.failure: BaseException | None = None
        self.steps = 0

    @property
    def ticket(self) -> Ticket | None:
        """The ticket it is parked on and that nobody has woken; None if it can go on."""
        pending = self.pending
        return pending.ticket if isinstance(pending, Park) and not pending.ticket.woken else None

    def __repr__(self) -> str:
        state = "done" if self.done else f"parked on {self.ticket.who}" if self.ticket else "ready"
        return f"<Task {self.number} {self.name} {state}, {self.steps} steps>"


class _Guard:
    """Mutual exclusion where one task runs at a time: it only proves that no step gives way inside it."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = False

    def acquire(self, blocking: bool = True) -> bool:
        assert not self.held, "a guard is taken twice: a step called back into its own object"
        self.held = True
        return True

    def release(self) -> None:
        assert self.held
        self.held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


@final
class Simulator:
    """Tasks, a clock and an oracle. It is also a `core.plan.Runtime`, for objects used by plans."""

    locked = True

    def __init__(
        self,
        choose: Choose,
        *,
        fine: bool = True,
        cancels: int = 0,
        expires: bool = False,
        may_fail: MayFail | None = None,
        observe: Callable[[Task, Request, Any], None] | None = None,
    ) -> None:
        """Args: `cancels` is how many cancellations a run may have; `expires` lets a time limit run out
        while others could go on; `may_fail` says how a request may fail (None: it cannot); `observe`
        is told of each request carried out, and its answer."""
        self._choose = choose
        self._fine = fine
        self.cancels = cancels
        self._expires = expires
        self._may_fail = may_fail
        self._observe = observe
        self._guards: list[_Guard] = []
        self._parks = 0
        self._limits = False  # whether any wait has had a time limit
        self.tasks: list[Task] = []
        self._steps: list[Option] = []  # the next step of each, made once
        self.clock_s = 0.0
        self.current: Task | None = None
        self.reports: list[str] = []

    # -- running ---------------------------------------------------------------------------------

    def start(self, body: Body, name: str) -> Task:
        """Add a task; it runs nothing before the oracle picks it."""
        task = Task(len(self.tasks) + 1, name, body)
        self.tasks.append(task)
        self._steps.append(Option(task.number))
        return task

    def options(self) -> list[Option]:
        """What can happen next; the clock is moved if that alone lets a task go on. Empty at the end."""
        while True:
            found = [
                step
                for task, step in zip(self.tasks, self._steps, strict=True)
                if not task.done and self._can_go_on(task)
            ]
            some = bool(found)
            if self.cancels:
                found += [Option(t.number, Kind.CANCEL) for t in self.tasks if _cancellable(t)]
            if some:
                return found + self._expiring() if self._limits and self._expires else found
            deadlines = [task.deadline for task in self.tasks if task.deadline is not None]
            if not deadlines:
                return found
            self.clock_s = max(self.clock_s, min(deadlines))

    def _expiring(self) -> list[Option]:
        """Tasks that wait with a time limit which the others may be too slow for."""
        waiting = [task for task in self.tasks if task.ticket and task.deadline is not None]
        return [Option(t.number, Kind.EXPIRE) for t in waiting if not self._can_go_on(t)]

    def take(self, option: Option) -> None:
        """Let one option happen."""
        task = self.tasks[option.task - 1]
        assert not task.done
        task.steps += 1
        self.current = task
        if option.kind is Kind.EXPIRE and task.deadline is not None:
            self.clock_s = max(self.clock_s, task.deadline)
        if option.kind is Kind.CANCEL:
            self.cancels -= 1
            self._cancel(task)
        else:
            self._advance(task, self._carry_out(task, task.pending) if task.pending else None)
        self.current = None
        for guard in self._guards:
            assert not guard.held, f"{task.name} gave way inside a guarded step"

    def go(self, max_steps: int = 100_000) -> list[Task]:
        """Run until nothing can happen; the tasks that are stuck then (none: all ended).

        Raises: UsageError if `max_steps` were not enough.
        """
        for _ in range(max_steps):
            options = self.options()
            if not options:
                return self.stuck()
            self.take(options[self._choose(options)])
        raise UsageError(
            f"the run has not ended after {max_steps} steps: raise max_steps, or end the tasks' loops"
        )

    def stuck(self) -> list[Task]:
        """The tasks that have not ended."""
        return [task for task in self.tasks if not task.done]

    def close(self) -> None:
        """Drop the tasks that have not ended: each is thrown ``GeneratorExit`` where it stands."""
        for task in self.tasks:
            if not task.done:
                task.done = True
                self.current = task
                task.body.close()
        self.current = None

    def check_ended(self) -> None:
        """Raise what ended a task badly, or `Deadlock` naming who is stuck on which ticket."""
        for task in self.tasks:
            if task.failure is not None and not isinstance(task.failure, Cancelled):
                raise task.failure
        if stuck := self.stuck():
            names = tuple(
                f"{task.name} on {task.ticket.who if task.ticket else '?'}" for task in stuck
            )
            raise Deadlock(
                f"{len(stuck)} of {len(self.tasks)} tasks wait for ever: {', '.join(names)}",
                stuck=names,
            )

    # -- one step --------------------------------------------------------------------------------

    def _can_go_on(self, task: Task) -> bool:
        if task.done:
            return False
        if not isinstance(task.pending, Park) or task.pending.ticket.woken:
            return True
        return task.deadline is not None and task.deadline <= self.clock_s

    def _advance(self, task: Task, answer: Any, error: BaseException | None = None) -> None:
        """Send answers until the body ends, or asks for something others may come before."""
        while True:
            if isinstance(answer, Failure):
                answer, error = answer.value, answer.error
            try:
                request = task.body.throw(error) if error is not None else task.body.send(answer)
            except StopIteration as end:
                return self._end(task, end.value, None)
            except (Exception, Cancelled, SystemExit) as failure:
                return self._end(task, None, failure)
            error = None
            if isinstance(request, Park):
                task.pending = request
                if request.timeout_s is not None:
                    self._limits = True
                    task.deadline = self.clock_s + request.timeout_s
                if request.ticket.arm(lambda: True):
                    self._parks += 1
                    task.parked_at = self._parks
                return None
            if self._fine:
                task.pending = request
                return None
            answer = self._carry_out(task, request)

    def fails(self) -> bool:
        """Ask the oracle whether what the current task does now fails."""
        assert self.current is not None, "only a running task can fail"
        number = self.current.number
        return self._choose((Option(number, Kind.WORK), Option(number, Kind.FAIL))) == 1

    def _end(self, task: Task, result: Any, failure: BaseException | None) -> None:
        task.done = True
        task.pending = task.deadline = None
        task.result, task.failure = result, failure

    def _cancel(self, task: Task) -> None:
        pending = task.pending
        if isinstance(pending, Offload):
            late = self._effect(pending)  # the worker goes on; what it brings home is undone
            if pending.undo is not None and not (
                isinstance(late, Failure) and late.error is not None
            ):
                pending.undo(late.value if isinstance(late, Failure) else late)
        task.pending = task.deadline = None
        self._advance(task, None, Cancelled())

    def _carry_out(self, task: Task, request: Request) -> Any:
        task.pending = task.deadline = None
        answer: Any = None
        match request:
            case Call() | Offload():
                answer = self._effect(request)
            case Park(ticket):
                answer = ticket.woken
            case Unpark(ticket):
                ticket.wake()
            case Now():
                answer = self.clock_s
            case Spawn(plan, name):
                self.start(plan, name)
            case _:
                assert_never(request)
        if self._observe is not None:
            self._observe(task, request, answer)
        return answer

    def _effect(self, request: Call | Offload) -> Any:
        """Run an effect, or let it fail; an exception is an answer too."""
        failure = self._may_fail(request) if self._may_fail is not None else None
        if failure is not None and self.fails():
            return failure
        try:
            if not request.scope:
                return request.effect(*request.args)
            with scopes.applied(request.scope):
                return request.effect(*request.args)
        except Exception as error:
            if isinstance(error, Deadlock):  # nobody can go on; the effect has not failed
                raise
            return Failure(error=error)

    # -- core.plan.Runtime -----------------------------------------------------------------------

    def guard(self) -> _Guard:
        self._guards.append(guard := _Guard())
        return guard

    def run(self, plan: Plan[T]) -> T:
        """Run a plan and all that is started until it ends: from outside, or for an effect that blocks.

        Raises: Deadlock if it cannot end.
        """
        task, outer = self.start(plan, "main"), self.current
        if outer is not None:
            outer.done = True  # in the middle of a step it can neither go on nor be cancelled
        try:
            while not task.done:
                if not (options := self.options()):
                    self.check_ended()
                self.take(options[self._choose(options)])
        finally:
            if outer is not None:
                outer.done, self.current = False, outer
        if (failure := task.failure) is not None:
            task.failure = failure if outer is None else None  # it is its effect's to raise
            raise failure
        result: T = task.result
        return result

    def scope(self) -> int:
        return scopes.current()

    def owner(self) -> str:
        return self.current.name if self.current is not None else "main"

    def where(self) -> tuple[str, ...]:
        return scopes.where()

    def now(self) -> float:
        return self.clock_s

    def key(self, element: object) -> int:
        return id(element)

    def report(self, message: str, *, once: bool = False) -> None:
        if not once or message not in self.reports:
            self.reports.append(message)


def _cancellable(task: Task) -> bool:
    return not task.done and isinstance(task.pending, Park | Offload)
