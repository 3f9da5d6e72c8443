"""A reserve that guarantees forward progress: an allocation that may wait gets its element.

It does not allocate (a backend does), does not wait (a driver carries out the plan) and holds no
memory of its own. Provided that elements return (R1), that holders give back in bounded time (R2) and
that nobody waits for a second element while holding an unsubmitted first (R3), a waiter is served,
in FIFO order, after at most as many returns as there are elements asked for in front of it.

The fast path is one test of one integer and one list operation, outside the guard; everything that
is off costs nothing. So *no step may assume that the reserve is as it was at its last look*; why no
wake-up is lost all the same is in `headway.core.mm.handover`.

Source: Linux ``mm/mempool.c`` (2.5.1 and 6.12). Departures: a returned element is handed over to its
waiter, not raced for; FIFO waiting has no timed retry (an allocator that recovers calls `kick`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, Literal, TypeVar, overload

from headway.core.mm.faults import Fault
from headway.core.mm.gfp import Gfp
from headway.core.mm.handover import HandOver
from headway.core.mm.ladder import Ladder, Wake
from headway.core.mm.lease import Lease
from headway.core.mm.watched import CLOSED, FAULTS, TRACED, WATCHED
from headway.core.plan import Plan, Runtime
from headway.errors import PoolBusy, UsageError

E = TypeVar("E")

KERNEL: Final = Gfp.KERNEL
NOWAIT: Final = Gfp.NOWAIT
_NOTED: Final = WATCHED | TRACED


class Mempool(HandOver[E], Generic[E]):
    """What all pools share; `headway.core.mm.pools` has the two kinds, with their fast paths."""

    __slots__ = ("_fault", "_light", "again", "at_hand", "first", "ladder", "unplug")

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
        self._prepare(wake)
        # What `alloc` may pop if the gate is open: the reserve, or nothing if a backend comes first.
        self.at_hand: list[E] = []
        self.unplug = unplug
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
        """The fast path of ``alloc()`` alone, for plans, which may run no other; None: use `alloc_plan`."""
        return None

    def light(self, gfp: Gfp) -> E | None:
        """The first try of a pool that stands on this one: never waits, never raises."""
        return None if self._gate & CLOSED else self.try_alloc()

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
        lease: Lease[E] = Lease()
        lease._pool = self
        lease._gfp = gfp
        lease._timeout_s = timeout_s
        return lease

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

    def replace(self, element: E, by: E) -> None:
        """Free `element`, which will never come back, by putting another in its place.

        For memory that something out of control may still write to. Waits: never.
        """
        if self._gate & _NOTED:
            self._note_release(element)
        self.free_count += 1
        self.put_back(by)

    # -- what the owner of the pool may ask -------------------------------------------------------------

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
        self.kick()  # nobody waits here any more; who was refused for a pool over this one hears of it
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

    def _count_alloc(self, count: int) -> None:
        raise NotImplementedError
