"""How much of a zone is open, and who hears when some of it comes back.

It does not judge who may have it (`headway.core.mm.zone` does). Charges are given back without the
guard, so that a finaliser may do it: the return is appended, and counted by whoever is next inside.

Nobody waits in vain. Who waits *publishes, then looks*: it puts its ticket here, raises `_hungry`,
and looks once more before it parks. Who gives back *stores, then looks* at `_hungry`. Only `settle`
counts what was returned, and tells in the same breath. If it finds somebody inside the guard, that
one sees to it when he comes out: by `_step`, or when he is refused; or, if he got a run, by `free`,
which tells the waiters, whose refusal then counts what is there.

Source: the store-then-look of Linux ``mm/mempool.c``, ``mempool_free``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

from headway.core.mm.watermarks import Watermarks
from headway.core.plan import Runtime, Ticket

CLEAN_FLOOR: Final = 20  # swapping begins only when less than this part of the zone is clean cache


@final
@dataclass(frozen=True, slots=True)
class ZoneStats:
    """A snapshot. Units: pages, except the two counts of refused tries.

    A page is held (a buffer is out), clean or dirty (charged to a cache), or free.
    """

    name: str
    page_count: int
    held_pages: int
    clean_pages: int
    dirty_pages: int
    floor_pages: int  # kept free for shares that are below their floor
    watermarks: Watermarks
    share_count: int
    light_refusals: int
    heavy_refusals: int

    @property
    def free_pages(self) -> int:
        return self.page_count - self.held_pages - self.clean_pages - self.dirty_pages

    @property
    def swap_due(self) -> bool:
        """Whether clean cache is so scarce (below 5%) that dirty pages are worth swapping out."""
        return self.clean_pages * CLEAN_FLOOR < self.page_count


class Counts(Protocol):
    """A charge, as it is counted here. Units: pages."""

    clean: int
    dirty: int


class Claimant(Protocol):
    """A share, as it is counted here: it claims what it holds, or its floor if that is more."""

    @property
    def held_count(self) -> int: ...
    @property
    def floor_count(self) -> int: ...
    @property
    def order(self) -> int: ...


@final
class Step:
    """The guard of a room for a ``with`` block; what was returned meanwhile is counted at its end."""

    __slots__ = ("_room",)

    def __init__(self, room: Room) -> None:
        self._room = room

    def __enter__(self) -> None:
        self._room._guard.acquire()

    def __exit__(self, *exc: object) -> None:
        self._room._guard.release()
        if self._room._returned:
            self._room.settle()


class Room:
    """The count of what is open, and the queue of those who wait for more.

    `_open` and `_charges` change only under `_guard`; `_returned` and `_waiting` by atomic
    operations; `_hungry` is raised by who waits and lowered by who tells.
    """

    __slots__ = (
        "_charges", "_guard", "_hungry", "_lenders", "_open", "_returned", "_shares", "_step",
        "_waiting",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, page_count: int) -> None:
        self._guard = runtime.guard()  # for the fast path, which looks at `_returned` by itself
        self._step = Step(self)
        self._open = page_count  # less what is charged
        self._charges: tuple[Counts, ...] = ()
        self._shares: tuple[Any, ...] = ()
        self._lenders: tuple[Any, ...] = ()  # those of them in whose floor clean charges may lie
        self._returned: deque[tuple[Counts, int]] = deque()  # given back, and not counted yet
        self._waiting: deque[Ticket] = deque()  # in no order that matters: all are woken
        self._hungry = False  # somebody was refused, or waits, since it was last told

    # -- under the guard -----------------------------------------------------------------------

    def _room(self, shares: tuple[Claimant, ...]) -> int:
        """What nobody has a claim to; clean data in a floor that is lent takes no room. Units: pages."""
        room = self._claimed(shares)
        return room + self._lent() if self._lenders else room

    def _claimed(self, shares: tuple[Claimant, ...]) -> int:
        return self._open - sum(
            max(share.held_count, share.floor_count) << share.order for share in shares
        )

    def _lent(self) -> int:
        return min(self._idle(), sum(charge.clean for charge in self._charges))

    def _room_for_clean(self) -> int:
        """What clean charges may have: also idle pages of floors that are lent to them."""
        return self._claimed(self._shares) + self._idle()

    def _idle(self) -> int:
        lenders: tuple[Claimant, ...] = self._lenders
        return sum(max(one.floor_count - one.held_count, 0) << one.order for one in lenders)

    def firm_room(self) -> int:
        """Under the guard: what would be open if all clean data were dropped."""
        return self._claimed(self._shares) + sum(charge.clean for charge in self._charges)

    # -- waiting for it ------------------------------------------------------------------------

    def expect_room(self, ticket: Ticket) -> None:
        """Have the ticket woken when pages come back; after this, look once more before parking."""
        self._waiting.append(ticket)
        self._hungry = True

    def forget(self, ticket: Ticket) -> None:
        """The ticket no longer waits."""
        try:
            self._waiting.remove(ticket)
        except ValueError:
            pass  # it was woken

    def give_back(self, charge: Counts, count: int) -> None:
        """Charged pages are free again. Waits: never; may be called from a finaliser."""
        self._returned.append((charge, count))
        self.settle()

    def settle(self) -> None:
        """Count what came back, unless somebody is inside the guard; and tell."""
        returned = self._returned
        while returned and self._guard.acquire(False):
            try:
                while returned:
                    charge, count = returned.popleft()
                    charge.clean -= count
                    self._open += count
            finally:
                self._guard.release()
            self._tell_room()

    def _tell_room(self) -> None:
        """Outside the guard: whoever was refused may ask again, whoever waits is woken."""
        if not self._hungry:
            return
        self._hungry = False
        self._tell_shares()
        while self._waiting:
            try:
                ticket = self._waiting.popleft()
            except IndexError:
                return  # another told it
            ticket.wake()

    def _tell_shares(self) -> None:
        raise NotImplementedError("a zone has shares")
