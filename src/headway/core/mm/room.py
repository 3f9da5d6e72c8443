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
from typing import Final, Protocol, final

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
        return self.clean_pages < self.page_count // CLEAN_FLOOR


class Counts(Protocol):
    """A charge, as it is counted here. Units: pages."""

    clean: int
    dirty: int


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

    __slots__ = ("_charges", "_guard", "_hungry", "_open", "_returned", "_step", "_waiting")

    def __init__(self, runtime: Runtime, page_count: int) -> None:
        self._guard = runtime.guard()  # for the fast path, which looks at `_returned` by itself
        self._step = Step(self)
        self._open = page_count  # less what is charged
        self._charges: tuple[Counts, ...] = ()
        self._returned: deque[tuple[Counts, int]] = deque()  # given back, and not counted yet
        self._waiting: deque[Ticket] = deque()  # in no order that matters: all are woken
        self._hungry = False  # somebody was refused, or waits, since it was last told

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
