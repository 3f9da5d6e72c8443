"""What can be seen of a pool of elements: its counters, and which element is whose.

It does not give or take elements; `headway.core.mm.mempool` does, on top of this. Hooks, tracing and
the gate are those of `headway.core.mm.watched`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from headway.core.mm.ownership import Record, Waiting
from headway.core.mm.watched import POISON, Watched
from headway.core.plan import Runtime
from headway.core.waitqueue import WaitQueue

E = TypeVar("E")


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


class ObservedPool(Watched, Generic[E]):
    """The state of a pool, and the ways to look at it.

    `_reserve` is touched outside the guard by the fast path; `_gate`, `_wanted` and `_queue` change
    only under `_guard`; the counters are statistics.
    """

    __slots__ = (
        "_queue", "_reserve", "_wanted", "free_count", "min_count", "poison_hits", "reserve_uses",
    )  # fmt: skip

    _record: Record | None

    def __init__(
        self, runtime: Runtime, name: str, min_count: int, *, trace: bool, poison: bool
    ) -> None:
        super().__init__(runtime, name, runtime.guard(), trace=trace)
        self.min_count = min_count
        self._reserve: list[E] = []
        self._queue = WaitQueue()
        self._wanted = 0
        if poison:
            self._gate |= POISON
        self.free_count = self.reserve_uses = self.poison_hits = 0

    def _new_record(self, *, complete: bool) -> Record:
        return Record(self.name, complete)

    @property
    def reserve_count(self) -> int:
        """Elements in the reserve now."""
        return len(self._reserve)

    @property
    def waiters(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

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

    def waiting(self) -> tuple[Waiting, ...]:
        """Who waits now, in the order in which they will be served."""
        with self._guard:
            tickets = list(self._queue)
        self._settle()  # who gave back meanwhile found the guard taken, and left it to us
        return tuple(Waiting(ticket.who, ticket.need, ticket.since_s) for ticket in tickets)

    # -- the record of holders -----------------------------------------------------------------------

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
