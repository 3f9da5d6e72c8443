"""Plain functions and coroutine functions as simulated tasks: only the holder of the baton runs.

It makes *bodies* (things with ``send`` and ``throw``) for a simulator it does not know, and the
runtime that pools under check run on. A plain function gives way inside `BatonRuntime.run`: each
request of the plan is handed out through the body, and the function stands still until the answer
comes. A function stands still in a greenlet, or, where greenlet is not installed, in a thread of its
own that is let run only while everybody else waits (about five times slower, the same schedules).

A body that is dropped half-way is thrown `Dropped` where it stands, and again at each further
request, so that its ``finally`` blocks end it instead of going on.

Source: Fray's shadow locking (one baton, real code); greenlet's parent switch.
"""

from __future__ import annotations

import contextvars
import importlib
import inspect
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar, final

from headway.core.plan import Call, Guard, Now, Offload, Park, Plan, Request, Spawn, Ticket, Unpark
from headway.errors import UsageError
from headway.runtimes import scopes

try:
    greenlet: Any = importlib.import_module("greenlet").greenlet
    _here: Any = greenlet.getcurrent
except ImportError:  # the extra `check` is not installed: threads do, more slowly
    greenlet = _here = None

T = TypeVar("T")
_real_thread = threading.Thread  # the names may be swapped while code under check runs
_real_semaphore = threading.Semaphore


class Dropped(BaseException):
    """The run is over and this task with it; code under check must let it pass."""


class Engine(Protocol):
    """What a simulator offers to the runtime of the code it runs."""

    def guard(self) -> Guard: ...
    def now(self) -> float: ...
    def owner(self) -> str: ...
    def report(self, message: str, *, once: bool = False) -> None: ...


class _Standing:
    """A function that can stand still: what its two ways have in common."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.origin = (fn, args)
        self.dropped = False
        self.done = False
        self._context = contextvars.copy_context()

    def _main(self) -> tuple[str, Any]:
        try:
            if self.dropped:
                return ("dropped", None)
            return ("end", self.origin[0](*self.origin[1]))
        except Dropped:
            return ("dropped", None)
        except BaseException as error:
            return ("error", error)

    def _outcome(self, what: str, value: Any) -> Any:
        if what == "ask":
            return value
        self.done = True
        if what == "error":
            raise value
        raise StopIteration(value)

    def _arrived(self, what: str, value: Any) -> Any:
        """In the function: what came back for a request."""
        if self.dropped:
            raise Dropped
        if what == "throw":
            raise value
        return value

    def send(self, answer: Any) -> Any:
        return self._outcome(*self._resume("answer", answer))

    def throw(self, error: BaseException) -> Any:
        return self._outcome(*self._resume("throw", error))

    def close(self) -> None:
        self.dropped = True
        while not self.done:
            try:
                self.send(None)
            except (
                Exception
            ):  # its end, or what a `finally` raised on the way there: too late to matter
                return

    def ask(self, request: Request) -> Any:
        raise NotImplementedError("each way to stand still has its own")

    def _resume(self, what: str, value: Any) -> tuple[str, Any]:
        raise NotImplementedError("each way to stand still has its own")


@final
class GreenBody(_Standing):
    """Stands still in a greenlet: a switch costs a few microseconds."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(fn, args)
        self._greenlet = greenlet(self._enter)
        self._greenlet.gr_context = self._context
        self._started = False

    def _enter(self) -> tuple[str, Any]:
        return self._main()

    def send(self, answer: Any) -> Any:
        if not self._started or self.done:
            return self._outcome(*self._resume("answer", answer))
        green, here = (
            self._greenlet,
            _here(),
        )  # `_resume`, written out: the way of nearly every step
        if green.parent is not here:
            green.parent = here
        what, value = green.switch(("answer", answer))
        return value if what == "ask" else self._outcome(what, value)

    def _resume(self, what: str, value: Any) -> tuple[str, Any]:
        self._greenlet.parent = _here()
        if not self._started:
            self._started = True
            if what == "throw":
                self.done = True
                return ("error", value)
            answer: tuple[str, Any] = self._greenlet.switch()
            return answer
        answer = self._greenlet.switch((what, value))
        return answer

    def ask(self, request: Request) -> Any:
        """In the function: hand a request out and stand still until it is answered."""
        if self.dropped:
            raise Dropped
        scopes.let_pass()
        return self._arrived(*self._greenlet.parent.switch(("ask", request)))


@final
class ThreadBody(_Standing):
    """Stands still in a thread that runs only between `send` and its next request."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(fn, args)
        self._mine = _real_semaphore(0)
        self._theirs = _real_semaphore(0)
        self._message: tuple[str, Any] = ("answer", None)
        self._thread: threading.Thread | None = None

    def _enter(self) -> None:
        self._message = self._context.run(self._main)
        self._theirs.release()

    def _resume(self, what: str, value: Any) -> tuple[str, Any]:
        if self._thread is None:
            if what == "throw" or self.dropped:
                self.done = True
                return ("error", value) if what == "throw" else ("dropped", None)
            self._thread = _real_thread(target=self._enter, daemon=True)
            self._thread.start()
        else:
            self._message = (what, value)
            self._mine.release()
        self._theirs.acquire()
        message = self._message
        if message[0] != "ask":
            self._thread.join()
        return message

    def ask(self, request: Request) -> Any:
        if self.dropped:
            raise Dropped
        self._message = ("ask", request)
        self._theirs.release()
        self._mine.acquire()
        return self._arrived(*self._message)


@final
class CoroutineBody:
    """A coroutine, driven by ``send``; a bare ``yield`` in it (``sleep(0)``) lets others go first."""

    def __init__(self, fn: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]) -> None:
        self.origin = (fn, args)
        self._coroutine = fn(*args)
        self._context = contextvars.copy_context()

    def send(self, answer: Any) -> Any:
        return self._request(self._context.run(self._coroutine.send, answer))

    def throw(self, error: BaseException) -> Any:
        return self._request(self._context.run(self._coroutine.throw, error))

    def close(self) -> None:
        self._context.run(self._coroutine.close)

    @staticmethod
    def _request(asked: Any) -> Any:
        return asked if asked is not None else turn("anybody")


def body_of(fn: Callable[..., Any], args: tuple[Any, ...], *, threads: bool = False) -> Any:
    """A body for a function: `threads` asks for the way that needs no greenlet."""
    if inspect.iscoroutinefunction(fn):
        return CoroutineBody(fn, args)
    if greenlet is None or threads:
        return ThreadBody(fn, args)
    return GreenBody(fn, args)


def turn(who: str) -> Park:
    """The request that only lets others go first: parked, and woken already."""
    scopes.let_pass()
    ticket = Ticket(who)
    ticket.wake()
    return Park(ticket)


@final
class BatonRuntime:
    """The runtime of pools under check: every operation lets others go first, then runs through.

    `adopt` is told of each pool as it is made, `after` of the end of each operation; `adopt_device` is given
    each device that is opened, and gives the one to be used.
    """

    locked = True

    def __init__(
        self,
        engine: Engine,
        *,
        current: Callable[[], Any],
        start: Callable[[Any, str], Any],
        adopt: Callable[[Any], None] = lambda pool: None,
        adopt_device: Callable[[Any], Any] = lambda device: device,
        after: Callable[[Any], None] = lambda result: None,
        threads: bool = False,
    ) -> None:
        """Args: `current` gives the body that runs now; `start` adds a body under a name."""
        self._engine = engine
        self._current = current
        self._start = start
        self._after = after
        self._threads = threads
        self._in_effect = False  # of a coroutine's plan
        self.adopt = adopt
        self.adopt_device = adopt_device

    def spawn(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Start a task beside this one; it runs nothing before others may."""
        name = getattr(fn, "__name__", type(fn).__name__)
        return self._start(body_of(fn, args, threads=self._threads), name)

    def point(self, who: str) -> None:
        """Let others go first."""
        body = self._current()
        if isinstance(body, _Standing):
            body.ask(turn(who))

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out: what waits or is shared is asked of the simulator, effects run here.

        An effect may itself allocate (a pool over a pool), so it has to stand still where its task does.
        """
        body = self._current()
        if not isinstance(body, _Standing) and not self._in_effect:
            raise UsageError(
                "a pool was asked to wait outside any task under check, or by a coroutine through the "
                "face for threads: use headway.aio in coroutines"
            )
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                request = plan.throw(error) if error is not None else plan.send(answer)
            except StopIteration as end:
                self._after(end.value)
                result: T = end.value
                return result
            except Exception as failure:
                self._after(failure)
                raise
            answer = error = None
            try:
                answer = self._carry_out(body, request)
            except BaseException as failure:
                error = failure

    def _carry_out(self, body: Any, request: Request) -> Any:
        if isinstance(request, Spawn):
            return self._spawn_plan(request)
        if isinstance(request, Call | Offload):
            with scopes.applied(request.scope):
                return request.effect(*request.args)
        if isinstance(body, _Standing):
            return body.ask(request)
        return self._carry_out_inside(request)

    def _carry_out_inside(self, request: Request) -> Any:
        """In an effect of a coroutine's plan, which cannot stand still: what does not wait is done."""
        match request:
            case Now():
                return self._engine.now()
            case Unpark(ticket):
                return ticket.wake()
            case Park(ticket) if ticket.woken:
                return True
            case _:
                raise UsageError(
                    "an allocator asked to wait inside a coroutine's request: under check, run such "
                    "a program through the face for threads"
                )

    def _spawn_plan(self, request: Spawn) -> None:
        """A plan beside this one is a task like others: its effects may stand still where it does."""
        self._start(body_of(self.run, (request.plan,), threads=self._threads), request.name)

    @types.coroutine
    def awaited(self, plan: Plan[T]) -> Generator[Request, Any, T]:
        """`run` for a coroutine: the same requests, handed out by its own ``yield``."""
        yield turn("anybody")
        try:
            result: T = yield from self._parking_only(plan)
        except Exception as failure:
            self._after(failure)
            raise
        self._after(result)
        return result

    def _effect(self, request: Request) -> Any:
        was, self._in_effect = self._in_effect, True
        try:
            return self._carry_out(None, request)
        finally:
            self._in_effect = was

    def _parking_only(self, plan: Plan[T]) -> Generator[Request, Any, T]:
        """The plan's requests, but for its effects and what it starts: those are done here."""
        answer: Any = None
        error: BaseException | None = None
        try:
            while True:
                request = plan.throw(error) if error is not None else plan.send(answer)
                answer = error = None
                try:
                    if isinstance(request, Call | Offload | Spawn):
                        answer = self._effect(request)
                    else:
                        answer = yield request
                except GeneratorExit:
                    plan.close()
                    raise
                except BaseException as thrown:
                    error = thrown
        except StopIteration as end:
            result: T = end.value
            return result

    def guard(self) -> Guard:
        return self._engine.guard()

    def scope(self) -> int:
        return scopes.current()

    def owner(self) -> str:
        return self._engine.owner()

    def where(self) -> tuple[str, ...]:
        return scopes.where()

    def now(self) -> float:
        return self._engine.now()

    def key(self, element: object) -> int:
        return id(element)

    def report(self, message: str, *, once: bool = False) -> None:
        self._engine.report(message, once=once)
