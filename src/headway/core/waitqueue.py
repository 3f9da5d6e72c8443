"""Who is parked, in which order; and why no wake-up is lost.

It does not wake anybody and holds no lock: its owner calls every method under its own guard, and
wakes the tickets it got back after the guard is dropped. A ticket that is handed something leaves the
queue in the same step, so each wake-up has exactly one receiver. A receiver that no longer wants it
(cancelled, timed out) asks `leave`, and gets back what was handed to it, to be handed on.

One ordered mapping holds the tickets: joining, leaving and looking at the head are O(1), where a deque
removes in O(n) and a plain dict rescans its dead entries.

Source: trio's parking lot for park with a way back; Linux wait queues for exclusive FIFO wake-ups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, final

from headway.core.plan import Ticket


@final
class WaitQueue:
    """Tickets in the order of their arrival."""

    __slots__ = ("_tickets",)

    def __init__(self) -> None:
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._tickets

    def join(self, ticket: Ticket) -> None:
        """Enter at the tail."""
        assert ticket not in self._tickets
        self._tickets[ticket] = None

    def first(self) -> Ticket | None:
        """The head of the queue, which stays where it is."""
        return next(iter(self._tickets), None)

    def give(self, ticket: Ticket, gift: list[Any]) -> None:
        """Hand `gift` to a queued ticket, which leaves the queue; its owner is to be woken next."""
        del self._tickets[ticket]
        ticket.gift = gift

    def leave(self, ticket: Ticket) -> list[Any] | None:
        """Give up waiting: what was handed over in the meantime, or None if nothing was."""
        if ticket in self._tickets:
            del self._tickets[ticket]
            return None
        gift, ticket.gift = ticket.gift, None
        return gift

    def renew(self, old: Ticket, new: Ticket) -> None:
        """Put a fresh ticket in the place of one that was woken without a gift; O(1) at the head."""
        if self.first() is old:
            del self._tickets[old]
            self.join(new)
            self._tickets.move_to_end(new, last=False)
        else:
            self._tickets = OrderedDict(
                (new if ticket is old else ticket, None) for ticket in self._tickets
            )

    def check_invariants(self) -> None:
        for ticket in self._tickets:
            assert ticket.gift is None, "a ticket in the queue was already given something"
