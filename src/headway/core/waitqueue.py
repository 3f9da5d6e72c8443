"""Who is parked, in which order; and why no wake-up is lost.

It does not wake anybody and holds no lock: its owner calls every method under its own guard, and
wakes the tickets it got back after the guard is dropped. A ticket that is handed something leaves the
queue in the same step, so each wake-up has exactly one receiver. A receiver that no longer wants it
(cancelled, timed out) asks `leave`, and gets back what was handed to it, to be handed on.

Places are numbered and kept in an ordered mapping: first and removal are both O(1), where a deque
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

    __slots__ = ("_next", "_places", "_tickets")

    def __init__(self) -> None:
        self._tickets: OrderedDict[int, Ticket] = OrderedDict()
        self._places: dict[Ticket, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets.values())

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._places

    def join(self, ticket: Ticket) -> None:
        """Enter at the tail."""
        assert ticket not in self._places
        self._tickets[self._next] = ticket
        self._places[ticket] = self._next
        self._next += 1

    def first(self) -> Ticket | None:
        """The head of the queue, which stays where it is."""
        for ticket in self._tickets.values():
            return ticket
        return None

    def give(self, ticket: Ticket, gift: list[Any]) -> None:
        """Hand `gift` to a queued ticket, which leaves the queue; its owner is to be woken next."""
        del self._tickets[self._places.pop(ticket)]
        ticket.gift = gift

    def leave(self, ticket: Ticket) -> list[Any] | None:
        """Give up waiting: what was handed over in the meantime, or None if nothing was."""
        if ticket in self._places:
            self._remove(ticket)
            return None
        gift, ticket.gift = ticket.gift, None
        return gift

    def renew(self, old: Ticket, new: Ticket) -> None:
        """Put a fresh ticket in the place of one that was woken without a gift."""
        place = self._places.pop(old)
        self._places[new] = place
        self._tickets[place] = new

    def _remove(self, ticket: Ticket) -> None:
        del self._tickets[self._places.pop(ticket)]

    def check_invariants(self) -> None:
        assert len(self._tickets) == len(self._places)
        for place, ticket in self._tickets.items():
            assert self._places[ticket] == place, "a ticket and its place disagree"
            assert ticket.gift is None, "a ticket in the queue was already given something"
