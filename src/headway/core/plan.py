"""The seam: what a procedure that may wait can ask for, and nothing else.

It does not carry anything out: a driver in `headway.runtimes` does, for threads, asyncio, or the
simulator. A *plan* is a generator that yields *requests* and is sent their answers; it never yields
a bare request but asks through the typed helpers below, so that ``element = yield from call(f)``
keeps its type. A step is what runs between two requests. A step that touches shared state takes its
object's guard, and gives it back before the next request: no guard is ever held across a ``yield``.

An exception thrown into a plan at a request (a cancellation, a failed effect) is the plan's chance
to put back what it was given; it must not yield again before it lets the exception pass.

Source: the shape of psycopg 3's generators (requests as a closed set, one driver per way to wait).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar, final

T = TypeVar("T")


@final
class Ticket:
    """One place in one queue, for one wait. Woken at most once; armed at most once.

    `wake` and `arm` may race: each stores what the other needs, then takes a turn (popping a list is
    atomic); whoever comes second knows that the other's store is complete, and acts.
    """

    __slots__ = ("_turns", "_waker", "gift", "need", "since_s", "who", "woken")

    def __init__(self, who: str, need: int = 1, since_s: float | None = None) -> None:
        self.who = who
        self.need = need  # how many elements are asked for
        self.since_s = since_s  # when the wait began, for those who look; None: nobody said
        self.gift: list[Any] | None = (
            None  # what was handed over; changed only under the object's guard
        )
        self.woken = False
        self._waker: Callable[[], object] | None = None
        self._turns = [1, 0]  # 0 goes to the first to come, 1 to the second

    def arm(self, waker: Callable[[], object]) -> bool:
        """Leave `waker` to be called by `wake`; False if the wake-up has come already.

        `waker` returns False, and not just nothing, if it cannot reach whom it was to wake.
        """
        self._waker = waker
        return self._turns.pop() == 0

    def claim(self) -> bool:
        """Under the object's guard: whether somebody has undertaken to wake it already; now you have."""
        claimed, self.woken = self.woken, True
        return claimed

    def take_gift(self) -> list[Any] | None:
        """What was handed over, once."""
        gift = self.gift
        if gift is not None:  # else it may come this moment: do not write over it
            self.gift = None
        return gift

    def wake(self) -> bool:
        """Wake the one who waits; False if that is no longer possible (its event loop is closed)."""
        self.woken = True
        if self._turns.pop() == 0:
            return True  # not parked yet: `arm` will see it
        assert self._waker is not None
        return self._waker() is not False


@final
@dataclass(slots=True)
class Call:
    """Run a quick effect that does not block; its result, or what it raised, is the answer."""

    effect: Callable[..., Any]
    args: tuple[Any, ...] = ()
    scope: int = 0


@final
@dataclass(slots=True)
class Offload:
    """Run an effect that may block (in a worker thread under asyncio).

    `undo` is given a result that arrives after the plan was cancelled, so that nothing is lost.
    """

    effect: Callable[..., Any]
    args: tuple[Any, ...] = ()
    scope: int = 0
    undo: Callable[[Any], object] | None = None


@final
@dataclass(slots=True)
class Park:
    """Wait until the ticket is woken (True) or the time is over (False). No limit if None."""

    ticket: Ticket
    timeout_s: float | None = None


@final
@dataclass(slots=True)
class Unpark:
    """Wake a ticket's owner."""

    ticket: Ticket


@final
@dataclass(slots=True)
class Now:
    """The driver's monotonic clock, in seconds."""


@final
@dataclass(slots=True)
class Spawn:
    """Start another plan beside this one, and do not wait for it."""

    plan: Plan[Any]
    name: str


_NOW = Now()

Request: TypeAlias = Call | Offload | Park | Unpark | Now | Spawn
Plan: TypeAlias = Generator[Request, Any, T]


def call(effect: Callable[..., T], *args: Any, scope: int = 0) -> Plan[T]:
    answer: T = yield Call(effect, args, scope)
    return answer


def offload(
    effect: Callable[..., T], *args: Any, scope: int = 0, undo: Callable[[T], object] | None = None
) -> Plan[T]:
    answer: T = yield Offload(effect, args, scope, undo)
    return answer


def park(ticket: Ticket, timeout_s: float | None = None) -> Plan[bool]:
    woken: bool = yield Park(ticket, timeout_s)
    return woken


def unpark(ticket: Ticket) -> Plan[None]:
    yield Unpark(ticket)


def now() -> Plan[float]:
    at_s: float = yield _NOW
    return at_s


def spawn(plan: Plan[Any], name: str) -> Plan[None]:
    yield Spawn(plan, name)


class Guard(Protocol):
    """Mutual exclusion for the steps of one object: a lock, or nothing where one task runs at a time."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


class Runtime(Protocol):
    """What a core object takes from the runtime it was made for."""

    @property
    def locked(self) -> bool:
        """True if the fast path must never be used (free-threaded builds, the simulator)."""

    def guard(self) -> Guard: ...
    def run(self, plan: Plan[T]) -> T: ...
    def scope(self) -> int:
        """The scope in force here: bits of `headway.core.mm.gfp.Scope`."""

    def owner(self) -> str:
        """Who runs this: the name of a thread or a task."""

    def where(self) -> tuple[str, ...]:
        """The caller's stack outside headway, innermost first, as ``file:line function``."""

    def now(self) -> float: ...
    def key(self, element: object) -> int:
        """What identifies an element while it is out (two that are out never share it)."""

    def report(self, message: str, *, once: bool = False) -> None:
        """Log a finding that must not be raised; `once`: only the first time in this process."""
