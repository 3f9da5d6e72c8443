"""A queue that is full when its items weigh too much: a fast producer waits for a slow consumer.

It does not weigh items (its face does) nor count them (`headway.core.mm.budget` does): an item is put
once its units are granted, and gives them back when it is got. Putters wait in the budget's line,
getters here; both FIFO. An item is handed to the first getter in the step that puts it, so there are
never items and waiting getters at one time, and a newcomer cannot take what somebody waits for.

Bound: with items of `u` units at most, the producer's own included, ``capacity + u`` units are alive.

Source: the interface of Python's ``queue``; hand-over as in `headway.core.mm.handover`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from headway.core.mm.budget import Budget
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan, Ticket, now, park
from headway.core.waitqueue import WaitQueue
from headway.errors import PoolClosed, PoolTimeout, UsageError

E = TypeVar("E")


@final
@dataclass(frozen=True, slots=True)
class QueueStats:
    """A snapshot."""

    name: str
    items: int
    units: int  # of the items in it, of leased ones, and of those that are being put
    capacity: int
    putters: int
    getters: int
    unfinished: int


class BudgetQueue(Generic[E]):
    """Items with their units. Everything but `budget` changes under `_guard`."""

    __slots__ = ("_closed", "_getters", "_guard", "_items", "_joiners", "_unfinished", "budget")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._guard = budget.runtime.guard()
        self._items: deque[tuple[E, int]] = deque()
        self._getters = WaitQueue()
        self._joiners = WaitQueue()
        self._unfinished = 0
        self._closed = False

    # -- putting ---------------------------------------------------------------------------------------

    def put_plan(
        self, item: E, units: int, gfp: Gfp, scope: int, who: str, timeout_s: float | None
    ) -> Plan[bool]:
        """Put an item once there is room; False if there is none and the mask forbids waiting."""
        if self._closed:
            raise self._closed_error()
        if not (yield from self.budget.alloc_plan(units, gfp, scope, who, timeout_s, False)):
            return False
        self.put_paid(item, units)
        return True

    def put_now(self, item: E, units: int) -> bool:
        """`put_plan`'s way where nobody waits; False means that the plan has to be taken."""
        if self._closed or not self.budget.take_now(units):
            return False
        self.put_paid(item, units)
        return True

    def put_paid(self, item: E, units: int) -> None:
        """Put an item whose units were taken from the budget already; they are the queue's from now on.

        Waits: never. Raises: PoolClosed, the units having gone back.
        """
        if self.budget._gate:  # somebody looks: whoever gets the item gives them back
            self.budget.hand_over(units)
        with self._guard:
            closed = self._closed
            if not closed:
                self._unfinished += 1
                ticket = self._enter((item, units))
        if closed:
            self.budget.free(units)
            raise self._closed_error()
        self._wake(ticket)

    # -- getting ---------------------------------------------------------------------------------------

    def get_now(self) -> tuple[E, int] | None:
        """The oldest item and its units, which are the caller's to give back."""
        with self._guard:
            return self._items.popleft() if self._items else None

    def get_plan(self, who: str, timeout_s: float | None) -> Plan[tuple[E, int]]:
        """Wait for an item. Raises: PoolTimeout; PoolClosed once it is closed and empty."""
        self.budget.check_ask(Gfp.KERNEL, timeout_s)
        start_s = yield from now()
        ticket = Ticket(f"an item of queue {self.name}")
        with self._guard:
            entry = self._items.popleft() if self._items else None
            closed = self._closed
            if entry is None and not closed:
                self._getters.join(ticket)
        if entry is not None:
            return entry
        if closed:
            raise self._closed_error()
        try:
            yield from park(ticket, timeout_s)
        except BaseException:
            for entry in self._leave(ticket):
                self._return(entry)
            raise
        for entry in self._leave(ticket):
            return entry
        if self._closed:
            raise self._closed_error()
        waited_s = (yield from now()) - start_s
        raise PoolTimeout(
            f"queue {self.name!r}: waited {waited_s:.3f} s for an item, and it is empty",
            pool=self.name,
            waited_s=waited_s,
        )

    def _leave(self, ticket: Ticket) -> list[tuple[E, int]]:
        with self._guard:
            return self._getters.leave(ticket) or []

    def _return(self, entry: tuple[E, int]) -> None:
        """An item nobody took after all: to the next in line, else to the front."""
        with self._guard:
            ticket = self._enter(entry, front=True)
        self._wake(ticket)

    def _enter(self, entry: tuple[E, int], front: bool = False) -> Ticket | None:
        """Under the guard: hand it to the first getter, who is to be woken; else keep it."""
        ticket = self._getters.first()
        if ticket is None:
            if front:
                self._items.appendleft(entry)
            else:
                self._items.append(entry)
            return None
        self._getters.give(ticket, [entry])
        return ticket

    def _wake(self, ticket: Ticket | None) -> None:
        """Wake a getter. If its loop is closed its item goes to the next."""
        while ticket is not None and not ticket.wake():
            with self._guard:
                gift, ticket = ticket.take_gift(), None
                if gift:
                    ticket = self._enter(gift[0], front=True)

    # -- work that is done -----------------------------------------------------------------------------

    def task_done(self) -> None:
        """Say that the work on one item is done. Raises: UsageError if there is none left to be done."""
        self._finish(1)

    def _finish(self, count: int) -> None:
        with self._guard:
            left = self._unfinished - count
            if left >= 0:
                self._unfinished = left
            woken = self._clear(self._joiners) if left == 0 else []
        if left < 0:
            raise UsageError(
                f"queue {self.name!r}: task_done() was called more often than items were put"
            )
        _wake_all(woken)

    def join_plan(self, who: str) -> Plan[None]:
        """Wait until all items that were put are done, or dropped."""
        ticket = Ticket(f"the items of queue {self.name} to be done")
        with self._guard:
            waits = self._unfinished > 0
            if waits:
                self._joiners.join(ticket)
        if waits:
            try:
                yield from park(ticket)
            finally:
                with self._guard:
                    self._joiners.leave(ticket)

    # -- the end, and what can be seen -----------------------------------------------------------------

    def close(self, immediate: bool = False) -> None:
        """End the queue: nothing can be put any more; what is in it can be got, unless `immediate`.

        Those who wait get PoolClosed; with `immediate` the items are dropped and count as done.
        """
        dropped: list[tuple[E, int]] = []
        with self._guard:
            self._closed = True
            if immediate:
                dropped = list(self._items)
                self._items.clear()
            woken = self._clear(self._getters)
        self.budget.shut()
        for _, units in dropped:
            self.budget.free(units)
        _wake_all(woken)
        self._finish(len(dropped))

    @staticmethod
    def _clear(line: WaitQueue) -> list[Ticket]:
        tickets = list(line)
        for ticket in tickets:
            line.leave(ticket)
        return tickets

    def _closed_error(self) -> PoolClosed:
        return PoolClosed(f"queue {self.name!r} is closed")

    @property
    def name(self) -> str:
        return self.budget.name

    @property
    def closed(self) -> bool:
        return self._closed

    def qsize(self) -> int:
        """Items in the queue now."""
        return len(self._items)

    def stats(self) -> QueueStats:
        budget = self.budget
        return QueueStats(
            self.name, len(self._items), budget.used, budget.capacity, budget.waiters,
            len(self._getters), self._unfinished,
        )  # fmt: skip

    def __repr__(self) -> str:
        budget = self.budget
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self._items)} items, {budget.show(budget.used)} of "
            f"{budget.show(budget.capacity)}, {budget.waiters} putters and {len(self._getters)} getters "
            f"waiting{', closed' if self._closed else ''}>"
        )


def _wake_all(tickets: Iterable[Ticket]) -> None:
    for ticket in tickets:
        ticket.wake()
