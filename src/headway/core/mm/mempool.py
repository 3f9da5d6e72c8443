"""A reserve that guarantees forward progress: an allocation that may wait gets its element.

It does not allocate (a backend does), does not wait (a driver carries out the plan) and holds no
memory of its own. Provided that elements return (R1), that holders give back in bounded time (R2) and
that nobody waits for a second element while holding an unsubmitted first (R3), a waiter is served,
in FIFO order, after at most as many returns as there are elements asked for in front of it.

The fast path is one test of one integer and one list operation, outside the guard; everything that
is off costs nothing. So *no step may assume that the reserve is as it was at its last look*. No
wake-up is lost because both sides store, then look: the freer appends, then reads the gate; the
waiter enters the queue and raises the gate, then settles. `_settle` never blocks on the guard: if
someone holds it, that one looks again after letting go. So `free` may be called from a finaliser or a
signal handler that interrupted the holder.

Source: Linux ``mm/mempool.c`` (2.5.1 and 6.12). Departures: a returned element is handed over to its
waiter, not raced for; FIFO waiting has no timed retry (an allocator that recovers calls `kick`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, Literal, TypeVar, overload

from headway.core.mm.composite import Backend
from headway.core.mm.faults import Fault
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import ANY_FIT, FIFO, Ladder, Wake
from headway.core.mm.lease import Lease
from headway.core.mm.observed import CLOSED, FAULTS, POISON, TRACED, WAITERS, WATCHED, ObservedPool
from headway.core.plan import Plan, Runtime, Ticket
from headway.errors import PoolBusy, PoolClosed, UsageError

E = TypeVar("E")

KERNEL: Final = Gfp.KERNEL
NOWAIT: Final = Gfp.NOWAIT
NOBODY: Final = 1 << 62  # `_wanted` when nobody waits
_NOTED: Final = WATCHED | TRACED | POISON


class Mempool(ObservedPool[E], Generic[E]):
    """What all pools share; `headway.core.mm.pools` has the two kinds, with their fast paths."""

    __slots__ = ("_backend", "_fault", "_light", "again", "first", "ladder", "unplug", "wake")

    def __init__(
        self,
        *,
        runtime: Runtime,
        name: str,
        min_count: int,
        ladder: Ladder = Ladder.HALF_FULL,
        wake: Wake = Wake.FIFO,
        unplug: Any = None,
        trace: bool = False,
        poison: bool = False,
    ) -> None:
        super().__init__(runtime, name, min_count, trace=trace, poison=poison)
        self.ladder = ladder
        self.first, self.again = ladder.first, ladder.again
        self.wake = wake
        self.unplug = unplug
        self._wanted = NOBODY
        self._backend: Backend | None = None
        self._light: Any = None
        self._fault: Fault | None = None

    # -- taking --------------------------------------------------------------------------------------

    @overload
    def alloc(
        self, gfp: Literal[Gfp.KERNEL, Gfp.NOFS, Gfp.NOIO] = ..., timeout_s: float | None = None
    ) -> E: ...
    @overload
    def alloc(self, gfp: Gfp, timeout_s: float | None = None) -> E | None: ...
    def alloc(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> E | None:
        """Take one element; wait for it in FIFO order if the mask allows waiting, else None.

        Waits: until an element is handed over; at most `timeout_s` seconds if given.
        Raises: PoolTimeout if that time is over; PoolClosed; GfpConflict if the mask contradicts itself;
        whatever the backend raised, if the reserve was empty too.
        """
        return self._alloc_slow(gfp, timeout_s)

    def try_alloc(self) -> E | None:
        """Take one element if that needs no wait; else None. The same as ``alloc(Gfp.NOWAIT)``."""
        return self._alloc_slow(NOWAIT, None)

    def take_now(self) -> E | None:
        """The fast path of ``alloc()`` alone: None means that the slow path has to be taken."""
        return None

    def light(self, gfp: Gfp) -> E | None:
        """The first try of a pool that stands on this one: never waits."""
        return self.try_alloc()

    def alloc_preallocated(self) -> E | None:
        """Take from the reserve alone, or None: the backend is not asked, nothing is waited for."""
        if self._gate & CLOSED:
            raise self.closed_error()
        taken = self.take_reserve(1)
        return self.granted(taken, self.runtime.owner())[0] if taken else None

    def alloc_bulk(self, count: int, timeout_s: float | None = None) -> list[E]:
        """Take `count` elements, all or nothing: nothing from the reserve is held while waiting.

        Waits, raises: as `alloc`; UsageError at once if a fixed pool could never give so many.
        """
        self.check_count(count)
        if count == 0:
            return []
        runtime = self.runtime
        taken = runtime.run(
            self.alloc_plan(KERNEL, runtime.scope(), runtime.owner(), count, timeout_s)
        )
        assert taken is not None
        return taken

    def lease(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> Lease[E]:
        """An element for a ``with`` block: ``with pool.lease() as element``; freed however it ends."""
        return Lease(self, gfp, timeout_s)

    def _alloc_slow(self, gfp: Gfp, timeout_s: float | None, light_tried: bool = False) -> E | None:
        runtime = self.runtime
        taken = runtime.run(
            self.alloc_plan(gfp, runtime.scope(), runtime.owner(), 1, timeout_s, light_tried)
        )
        return taken[0] if taken else None

    def alloc_plan(
        self,
        gfp: Gfp,
        scope: int,
        who: str,
        count: int,
        timeout_s: float | None,
        light_tried: bool = False,
    ) -> Plan[list[E] | None]:
        """The slow path as a plan: `count` elements, or None where the mask forbids waiting."""
        raise NotImplementedError

    def granted(self, elements: list[E], who: str) -> list[E]:
        """Count and note an allocation that is complete."""
        self._count_alloc(len(elements))
        if self._gate & _NOTED:
            self._note_grant(elements, who)
        return elements

    def check_count(self, count: int) -> None:
        """Raises: UsageError if so many could never be had."""
        if count < 0:
            raise UsageError(
                f"pool {self.name!r}: {count} elements were asked for; ask for 0 or more"
            )

    # -- giving back ---------------------------------------------------------------------------------

    def free(self, element: E) -> None:
        """Give an element back; it goes to the first waiter, else to the reserve, else to the backend.

        Waits: never. Raises: UsageError, when traced, if the element is not out.
        """
        self._free_slow(element)

    def free_bulk(self, elements: Iterable[E]) -> None:
        """Give back each of `elements`."""
        for element in elements:
            self.free(element)

    def _free_slow(self, element: E) -> None:
        if self._gate & _NOTED:
            self._note_release(element)
        self.free_count += 1
        self.put_back(element)

    def put_back(self, element: E) -> None:
        """Return an element to the circuit without counting it as freed."""
        if self._backend is not None and (
            self._gate & CLOSED or (self._wanted == NOBODY and len(self._reserve) >= self.min_count)
        ):
            self._backend.free(element)
        else:
            self._reserve.append(element)
            self._settle()

    # -- the one place where elements and waiters meet -------------------------------------------------

    def _settle(self) -> None:
        """Pair what is in the reserve with who waits for it; wake them after the guard is dropped."""
        while len(self._reserve) >= self._wanted:
            if not self._guard.acquire(False):
                return  # whoever holds it settles after letting go
            try:
                paired = self._pair()
            finally:
                self._guard.release()
            for ticket in paired:
                if not ticket.wake():
                    self._hand_on(ticket)

    def _pair(self) -> list[Ticket]:
        """Under the guard: give elements to waiters (or just choose whom to wake), and set the gate."""
        paired: list[Ticket] = []
        queue, reserve = self._queue, self._reserve
        if self.wake is FIFO:
            while (head := queue.first()) is not None and len(reserve) >= head.need:
                gift = self._pop(head.need)
                if gift is None:
                    break  # a late newcomer on the fast path took one
                queue.give(head, gift)
                if not head.claim():
                    paired.append(head)
            self._look_at(head)
            return paired
        elif self.wake is ANY_FIT:
            for ticket in list(queue):
                if len(reserve) >= ticket.need:
                    gift = self._pop(ticket.need)
                    if gift is None:
                        break
                    queue.give(ticket, gift)
                    paired.append(ticket)
        else:
            count = len(reserve) if self.wake is Wake.EXCLUSIVE else len(queue)
            for ticket in list(queue)[:count]:
                queue.leave(ticket)
                paired.append(ticket)
        self.set_gate()
        return [ticket for ticket in paired if not ticket.claim()]

    def _pop(self, count: int) -> list[E] | None:
        """`count` elements of the reserve, last freed first, or None and the reserve as it was."""
        popped: list[E] = []
        try:
            if count == 1:
                return [self._reserve.pop()]
            for _ in range(count):
                popped.append(self._reserve.pop())
        except IndexError:
            self._reserve.extend(reversed(popped))
            return None
        return popped

    def set_gate(self) -> None:
        """Under the guard: say in the gate, and in `_wanted`, whom the next `free` has to look for."""
        self._look_at(self._queue.first())

    def _look_at(self, head: Ticket | None) -> None:
        if head is None:
            self._wanted = NOBODY
            self._gate &= ~WAITERS
            return
        if self.wake is FIFO:
            self._wanted = head.need
        elif self.wake is ANY_FIT:
            self._wanted = min(ticket.need for ticket in self._queue)
        else:  # one wake for each free: those in the reserve have had theirs
            self._wanted = len(self._reserve) + 1
        self._gate |= WAITERS

    def join(self, ticket: Ticket) -> None:
        """Enter the queue, then look once more: an element may have come in between."""
        with self._guard:
            if self._gate & CLOSED:
                raise self.closed_error()
            self._queue.join(ticket)
            if self._wanted == NOBODY or self.wake is not FIFO:
                self.set_gate()
            if self.wake is not FIFO and not self.wake.hands_over:
                self._wanted = 1
        self._settle()

    def renew(self, old: Ticket, new: Ticket) -> bool:
        """Keep the place in the queue with a fresh ticket; False if `old` is not queued any more."""
        with self._guard:
            queued = old in self._queue
            if queued:
                self._queue.renew(old, new)
        self._settle()
        return queued

    def leave(self, ticket: Ticket) -> list[E] | None:
        """Stop waiting: what had been handed over already, or None."""
        with self._guard:
            gift = self._queue.leave(ticket)
            self.set_gate()
            if self.wake is not FIFO and len(self._queue) and not self.wake.hands_over:
                self._wanted = 1  # a wake-up that was received and not used is handed on
        self._settle()
        self.trim()
        return gift

    def trim(self) -> None:
        """Give the backend what the reserve holds beyond its minimum while nobody waits for it."""
        while (
            self._backend is not None
            and self._wanted == NOBODY
            and len(self._reserve) > self.min_count
        ):
            for element in self._pop(1) or ():
                self._backend.free(element)

    def add_gift(self, made: list[E], gift: list[E] | None) -> None:
        """What was handed over came from the reserve."""
        if gift:
            made.extend(gift)
            self.reserve_uses += len(gift)

    def wake_all(self, tickets: Iterable[Ticket]) -> None:
        """Wake claimed tickets; what was handed to one that cannot be reached any more goes on."""
        for ticket in tickets:
            if not ticket.wake():
                self._hand_on(ticket)

    def _hand_on(self, ticket: Ticket) -> None:
        for element in self.leave(ticket) or ():
            self.put_back(element)

    def take_reserve(self, count: int) -> list[E] | None:
        """`count` elements from the reserve if nobody has an older claim to them, else None."""
        with self._guard:
            queued = self._wanted != NOBODY and self.wake is FIFO
            taken = None if queued or len(self._reserve) < count else self._pop(count)
        self._settle()
        if taken is not None:
            self.reserve_uses += count
        return taken

    # -- what the owner of the pool may ask -------------------------------------------------------------

    def kick(self) -> None:
        """Say that the backend may have recovered: the first waiter asks it again, then the next."""
        with self._guard:
            head = self._queue.first()
            kicked = [head] if head is not None and not head.claim() else []
        self.wake_all(kicked)
        self._settle()

    def resize(self, count: int) -> int:
        """Change `min_count`; gives the number of elements now in the reserve."""
        raise UsageError(
            f"pool {self.name!r} has a fixed set of elements and no backend: it cannot be resized"
        )

    def inject(self, fault: Fault | None) -> None:
        """Make allocations fail: where `fault()` is true the backend is not asked. None ends it."""
        with self._guard:
            self._fault = fault
            self._gate = self._gate | FAULTS if fault is not None else self._gate & ~FAULTS
        self._settle()

    @property
    def light_door(self) -> Any:
        """The backend's light try, or None."""
        return self._light

    @property
    def heavy_door(self) -> Any:
        """The backend's allocator, or None."""
        return None if self._backend is None else self._backend.alloc

    def undo_alloc(self, element: E | None) -> None:
        """A heavy try's late result, after its requester was cancelled."""
        if element is not None:
            self.put_back(element)

    def fails(self) -> bool:
        """Whether a fault was injected into the allocation that is about to ask the backend."""
        return self._fault is not None and self._fault()

    def close(self) -> None:
        """End the pool: waiters get PoolClosed; the reserve goes to the backend, later frees too.

        Raises: PoolBusy if elements are still out (the pool is closed all the same).
        """
        with self._guard:
            if self._gate & CLOSED:
                return
            self._gate |= CLOSED
            waiting = list(self._queue)
            for ticket in waiting:
                self._queue.leave(ticket)
            self.set_gate()
            unclaimed = [ticket for ticket in waiting if not ticket.claim()]
        self.wake_all(unclaimed)
        while self._backend is not None and self._reserve:
            for element in self._pop(1) or ():
                self._backend.free(element)
        out = self.outstanding
        if out > 0:
            message = f"pool {self.name!r}: closed with {out} elements out; {self.say_holders()}"
            raise PoolBusy(message, pool=self.name, count=out, holders=self.holders())

    def __enter__(self) -> Mempool[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except PoolBusy:
            if kind is None:  # never hide the error that ended the block
                raise

    def closed_error(self) -> PoolClosed:
        return PoolClosed(f"pool {self.name!r} is closed: nothing can be allocated from it")

    def _count_alloc(self, count: int) -> None:
        raise NotImplementedError

    def check_invariants(self) -> None:
        """For tests and the simulator: after every step."""
        self._queue.check_invariants()
        assert bool(len(self._queue)) == bool(self._gate & WAITERS), (
            "the gate and the queue disagree"
        )
        head = self._queue.first()
        if self.wake is Wake.FIFO and head is not None:
            assert len(self._reserve) < head.need, "the head of the queue was not served"
