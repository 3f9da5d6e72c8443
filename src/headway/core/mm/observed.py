"""What can be seen of a pool, and switched on to see more: hooks, the record of holders, statistics.

It does not give or take elements; `headway.core.mm.mempool` does, on top of this. Everything here is
off until asked for, and what is on raises a bit in the gate, so that what is off costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from headway.core.mm.ownership import Event, Holding, Hook, Record
from headway.core.plan import Guard, Runtime
from headway.core.waitqueue import WaitQueue
from headway.errors import UsageError

E = TypeVar("E")

# The bits of the gate; zero means that nothing but the fast path is needed.
WAITERS: Final = 1
CLOSED: Final = 2
WATCHED: Final = 4
FAULTS: Final = 8
TRACED: Final = 16
LOCKED: Final = 32
POISON: Final = 64
WIDE: Final = 128  # a request is under way that the reserve alone could not serve

_TRACE_HINT = "who holds them is not traced: make the pool with trace=True or set HEADWAY_TRACE=1"


@final
@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot; counts of a pool in use may be a few operations old."""

    name: str
    min_count: int
    reserve_count: int
    outstanding: int
    waiters: int
    alloc_count: int
    free_count: int
    reserve_uses: int  # allocations that the reserve had to serve
    waits: int
    longest_wait_s: float
    timeouts: int
    poison_hits: int


class ObservedPool(Generic[E]):
    """The state of a pool, and the ways to look at it.

    `_reserve` is touched outside the guard by the fast path; `_gate`, `_wanted` and `_queue` change
    only under `_guard`; the counters are statistics.
    """

    __slots__ = (
        "_gate", "_guard", "_hooks", "_queue", "_record", "_reserve", "_wanted", "free_count",
        "longest_wait_s", "min_count", "name", "poison_hits", "reserve_uses", "runtime", "timeouts", "waits",
    )  # fmt: skip

    def __init__(
        self, runtime: Runtime, name: str, min_count: int, *, trace: bool, poison: bool
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.min_count = min_count
        self._reserve: list[E] = []
        self._queue = WaitQueue()
        self._wanted = 0
        self._guard: Guard = runtime.guard()
        self._hooks: tuple[Hook, ...] = ()
        self._record: Record | None = Record(name, complete=True) if trace else None
        self._gate: int = (
            (TRACED if trace else 0) | (POISON if poison else 0) | (LOCKED if runtime.locked else 0)
        )
        self.free_count = self.reserve_uses = self.waits = self.timeouts = self.poison_hits = 0
        self.longest_wait_s = 0.0

    @property
    def reserve_count(self) -> int:
        """Elements in the reserve now."""
        return len(self._reserve)

    @property
    def waiters(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

    @property
    def closed(self) -> bool:
        return bool(self._gate & CLOSED)

    @property
    def outstanding(self) -> int:
        """Elements that are out: held, in flight, or handed over and not yet picked up."""
        return self.alloc_count - self.free_count

    @property
    def alloc_count(self) -> int:
        """Elements ever given out."""
        raise NotImplementedError  # one of the two sides is counted, the other derived: see the kinds

    def stats(self) -> PoolStats:
        return PoolStats(
            self.name, self.min_count, len(self._reserve), self.outstanding, len(self._queue),
            self.alloc_count, self.free_count, self.reserve_uses, self.waits, self.longest_wait_s,
            self.timeouts, self.poison_hits,
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Mempool {self.name!r}: {len(self._reserve)} of {self.min_count} in reserve, "
            f"{self.outstanding} out, {len(self._queue)} waiting{', closed' if self.closed else ''}>"
        )

    # -- hooks -----------------------------------------------------------------------------------------

    def watch(self, hook: Hook) -> None:
        """Call `hook(event)` at each request and release (before it) and each grant (after it)."""
        with self._guard:
            self._hooks += (hook,)
            self._gate |= WATCHED
        self._settle()

    def unwatch(self, hook: Hook) -> None:
        """Stop calling `hook`."""
        with self._guard:
            self._hooks = tuple(other for other in self._hooks if other is not hook)
            if not self._hooks:
                self._gate &= ~WATCHED
        self._settle()

    def tell(
        self,
        kind: str,
        count: int = 1,
        *,
        element: Any = None,
        to: str | None = None,
        owner: str | None = None,
        mask: int = 0,
    ) -> None:
        """Tell the hooks, if there are any; never under the guard."""
        if self._gate & WATCHED:
            event = Event(kind, self, owner or self.runtime.owner(), count, element, to, mask)
            for hook in self._hooks:
                hook(event)

    # -- the record of holders -----------------------------------------------------------------------

    def trace(self, on: bool = True) -> None:
        """Record from now on who holds what, since when, taken where; or stop."""
        with self._guard:
            self._record = Record(self.name, complete=False) if on else None
            self._gate = self._gate | TRACED if on else self._gate & ~TRACED
        self._settle()

    def holders(self) -> tuple[Holding, ...]:
        """Who holds elements, oldest first; empty unless traced."""
        return () if self._record is None else self._record.holdings()

    def overdue(self, limit_s: float) -> tuple[Holding, ...]:
        """Holdings older than `limit_s` seconds: who breaks the rule of timely return (R2).

        Raises: UsageError if the pool is not traced.
        """
        if self._record is None:
            raise UsageError(f"pool {self.name!r}: {_TRACE_HINT}")
        now_s = self.runtime.now()
        return tuple(holding for holding in self.holders() if now_s - holding.since_s > limit_s)

    def say_holders(self) -> str:
        """For messages: who holds what, or how to find out."""
        if self._record is None:
            return _TRACE_HINT
        now_s = self.runtime.now()
        return (
            "; ".join(holding.describe(now_s) for holding in self.holders())
            or "nobody on record holds any"
        )

    def _note_grant(self, elements: Sequence[E], who: str) -> None:
        """An allocation is complete: record the holder, tell the hooks."""
        record = self._record
        if record is not None:
            since_s, where = self.runtime.now(), self.runtime.where()
            for element in elements:
                record.took(self.runtime.key(element), who, since_s, where)
        self.tell("grant", len(elements), element=elements[0], owner=who)

    def _note_release(self, element: E) -> None:
        """An element comes back: before anybody else can have it."""
        if self._record is not None:
            self._record.gave(self.runtime.key(element))  # refused here, nobody hears of it
        self.tell("release", element=element)

    def hand_over(self, element: E) -> None:
        """Say that the element is in flight: its completion gives it back, not the one who took it."""
        if self._record is not None:
            self._record.moved(self.runtime.key(element), in_flight=True)
        self.tell("hand_over", element=element)

    def transfer(self, element: E, to: str) -> None:
        """Say that another owner (a task's or a thread's name) holds the element now."""
        if self._record is not None:
            self._record.moved(self.runtime.key(element), owner=to)
        self.tell("transfer", element=element, to=to)

    def _settle(self) -> None:
        raise NotImplementedError
