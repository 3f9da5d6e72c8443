"""Counted units: bytes, slots, connections; taken and given back in any number, all or nothing.

It does not hold what is counted, and does not wait (`headway.core.mm.charging` is the plan). Beside its
limit a budget may have a reserve that only requests that are *entitled* may draw from: those of a
release path, which must not wait for the ones that wait for it. Budgets form a tree: what is taken from
one is taken from all above, except what a child's floor has taken already.

The fast path is one test of one integer and a subtraction under the guard; giving back is an append
and the same test, and takes no guard, so a finaliser may do it.

Source: Linux memory cgroups; `headway.core.mm.account` and its neighbours say what is different.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any, Final, final

from headway.core.mm.account import Account
from headway.core.mm.charging import charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.giver import Give, Giver, Reclaim
from headway.core.mm.ladder import Wake
from headway.core.mm.meeting import Meeting
from headway.core.mm.ownership import Waiting
from headway.core.mm.unit_lease import UnitLease
from headway.core.mm.watched import CLOSED, TRACED, TREE, WAITERS, WATCHED
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size, parse_size
from headway.errors import NoMemory, PoolBusy, UsageError

KERNEL: Final = Gfp.KERNEL
NOWAIT: Final = Gfp.NOWAIT
_NOTED: Final = WATCHED | TRACED


@final
@dataclass(frozen=True, slots=True)
class BudgetStats:
    """A snapshot, in units; `used` includes what is kept for the floors of children."""

    name: str
    capacity: int
    reserve: int
    floor: int
    used: int
    room: int  # what an ordinary request could take from this level now
    waiters: int
    waits: int
    longest_wait_s: float
    timeouts: int
    reserve_uses: int  # grants that the reserve had to serve, at least in part
    forced_count: int  # grants beyond the limit
    raised_count: int  # errors of its reclaimer and of caches in it: the log has their words


class Budget(Account):
    """A number of units that may be out at one time; see `headway.Budget`."""

    __slots__ = ("_meeting", "dirty")

    _meeting: Meeting
    dirty: dict[Any, Any]  # for each zone's throttle the `DirtyPart` of caches here and below

    def __init__(
        self,
        capacity: int | str | None = None,
        *,
        runtime: Runtime,
        meeting: Meeting,
        name: str,
        reserve: int | str = 0,
        floor: int | str = 0,
        parent: Budget | None = None,
        wake: Wake = Wake.FIFO,
        reclaim: Reclaim | None = None,
        force: bool = False,
        trace: bool = False,
    ) -> None:
        show: Callable[[int], str] = str
        if isinstance(capacity, str):
            show = format_size
        elif capacity is None:
            if parent is None:
                raise UsageError(
                    f"budget {name!r}: it needs a capacity, or a parent whose it shares"
                )
            capacity, show = parent.capacity, parent.show
        limit, spare = parse_size(capacity, "capacity"), parse_size(reserve, "reserve")
        kept = parse_size(floor, "floor")
        if limit == 0 or spare >= limit or kept > limit:
            raise UsageError(
                f"budget {name!r}: capacity {show(limit)}, reserve {show(spare)}, floor {show(kept)}; "
                "the reserve must be smaller than the capacity, and the floor no larger"
            )
        if not wake.hands_over:
            raise UsageError(f"budget {name!r}: wake is {wake.value}; a budget is fifo or any_fit")
        if kept and parent is None:
            raise UsageError(f"budget {name!r}: a floor is kept by a parent, and there is none")
        if parent is not None and parent._meeting is not meeting:
            raise UsageError(f"budget {name!r}: its parent was made for another runtime")
        super().__init__(
            runtime, name, meeting.guard, limit, reserve=spare, floor=kept, parent=parent,
            wake=wake, reclaim=reclaim, force=force, show=show, trace=trace,
        )  # fmt: skip
        self._meeting = meeting
        self.dirty = {}
        if kept:
            meeting.change(self._keep_floor)
        for giver in self.own:
            meeting.change(partial(self.enter, giver))

    def _keep_floor(self) -> None:
        parent = self.parent
        assert parent is not None
        for level in parent.levels():
            if level.closed:
                raise level.closed_error()
            level.come_home()
        if parent.charge(self.floor, False) is not None:
            raise NoMemory(
                f"budget {self.name!r}: a floor of {self.show(self.floor)} was asked for, and "
                f"{parent.name!r} has {parent.show(parent.room)} free; make floors first, or ask for less"
            )
        parent.floors += self.floor

    # -- taking ----------------------------------------------------------------------------------------

    def alloc(
        self,
        units: int | str,
        gfp: Gfp = KERNEL,
        timeout_s: float | None = None,
        *,
        entitled: bool = False,
    ) -> bool:
        """Take `units` (a number, or a size like ``"8MiB"``); wait in line if the mask allows it, else False.

        `entitled` may draw from the reserve, here and above, and does not queue with the others; code
        under ``noreclaim()`` is entitled too.

        Waits: until the units are there; at most `timeout_s` seconds if given.
        Raises: UsageError at once if so many can never be there; PoolTimeout; PoolClosed.
        """
        if gfp is KERNEL and self.take_now(units):
            return True
        runtime = self.runtime
        return runtime.run(
            self.alloc_plan(units, gfp, runtime.scope(), runtime.owner(), timeout_s, entitled)
        )

    def try_alloc(self, units: int | str, *, entitled: bool = False) -> bool:
        """Take `units` if that needs no wait. The same as ``alloc(units, Gfp.NOWAIT)``.

        Caches here and below drop what is clean for it.
        """
        return self.take_now(units) or self.alloc(units, NOWAIT, entitled=entitled)

    def take_now(self, units: int | str) -> bool:
        """The fast path of ``alloc()`` alone: False means that the slow path has to be taken."""
        taken = False
        if not self._gate & ~TREE and units.__class__ is int and units >= 0:
            with self._guard:
                if self._gate:
                    taken = self._take_levels(units)
                else:
                    if self._home:
                        self._room += self._home.pop()
                    if units <= self._room <= self._most:
                        self._room -= units
                        taken = True
            if self._meeting.due:
                self._meeting.settle()
        return taken

    def take_inside(self, units: int) -> bool:
        """`take_now` for who holds a guard of his own: it waits for nobody. `settle` after letting go of that."""
        if self._gate & ~TREE or not self._guard.acquire(False):
            return False
        try:
            if not self._gate and units <= self._room <= self._most:
                self._room -= units
                return True
            return self._take_levels(units)
        finally:
            self._guard.release()

    def settle(self) -> None:
        """Serve those who gave back, or came, while somebody was in the guard."""
        if self._meeting.due:
            self._meeting.settle()

    def _take_levels(self, units: int) -> bool:
        """Under the guard: take from every level, if at none of them anybody waits or has to be told."""
        if self._gate & ~TREE:
            return False
        for level in self.levels():
            if level._gate & (WAITERS | CLOSED):
                return False
            level.come_home()
        return self.charge(units, False) is None

    def lease(
        self,
        units: int | str,
        gfp: Gfp = KERNEL,
        timeout_s: float | None = None,
        *,
        entitled: bool = False,
    ) -> UnitLease:
        """Units for a ``with`` block, given back however it ends; ``as`` says whether they were had."""
        return UnitLease(self, (units,), gfp, timeout_s, entitled)

    def alloc_plan(
        self,
        units: int | str,
        gfp: Gfp,
        scope: int,
        who: str,
        timeout_s: float | None,
        entitled: bool,
    ) -> Plan[bool]:
        """The slow path as a plan."""
        parts = ((self, self.checked(units)),)
        return charge(self._meeting, parts, gfp, scope, who, timeout_s, entitled)

    def checked(self, units: int | str) -> int:
        """`units` as a plain integer. Raises: UsageError if it is no number and no size, or negative."""
        if isinstance(units, str):
            return parse_size(units, f"units of budget {self.name!r}")
        try:
            count = index(units)
        except TypeError:
            count = -1
        if count < 0:
            raise UsageError(f"budget {self.name!r}: units is {units!r}; give an int of 0 or more")
        return count

    # -- giving back -----------------------------------------------------------------------------------

    def free(self, units: int | str) -> None:
        """Give `units` back; waiting requests are served with them.

        Waits: never. Raises: UsageError, when traced, if so many are not out.
        """
        if self._gate or units.__class__ is not int or units < 0:
            units = self.checked(units)
            if self._gate & _NOTED:
                if self._record is not None:
                    self._record.gave(units, self.runtime.owner())
                self.tell("release", units)
        self._home.append(units)
        if self._gate:
            self._meeting.look(self)

    def bring(self, units: int) -> None:
        """`free`, for who has told of it, or took units in a way that nobody was told of."""
        self._home.append(units)
        if self._gate:
            self._meeting.look(self)

    def hand_over(self, units: int | str) -> None:
        """Say that units are in flight: a completion gives them back, not the one who took them."""
        units = self.checked(units)
        if self._record is not None:
            self._record.moved(units, self.runtime.owner(), in_flight=True)
        self.tell("hand_over", units)

    def transfer(self, units: int | str, to: str) -> None:
        """Say that another owner (a task's or a thread's name) holds the units now."""
        units = self.checked(units)
        if self._record is not None:
            self._record.moved(units, self.runtime.owner(), to=to)
        self.tell("transfer", units, to=to)

    # -- what the owner of the budget may ask ------------------------------------------------------------

    def resize(self, capacity: int | str) -> None:
        """Change the limit while it is in use. Below what is out, nothing is granted until enough is home.

        Requests that wait and can never be granted now get UsageError.
        Raises: UsageError if reserve and floors do not fit into it; PoolClosed.
        """
        limit = parse_size(capacity, "capacity")
        least = max(self.reserve + self.floors + 1, self.floor)
        if limit < least:
            raise UsageError(
                f"budget {self.name!r}: resized to {self.show(limit)}; reserve and floors need "
                f"{self.show(least)}"
            )
        if self.closed:
            raise self.closed_error()
        self._meeting.change(lambda: self.resized(limit))
        for part in list(self.dirty.values()):
            part.follow(limit)
        self._meeting.look(self)
        self._meeting.rouse(self)

    def adopt(self, name: str, give: Give) -> Giver:
        """Have `give` asked for room here, as a plan (`headway.ShrinkableCache` uses it); until `disown`."""
        giver = Giver(self, name, None, give)
        self._meeting.change(lambda: self.enter(giver))
        return giver

    def disown(self, giver: Giver) -> None:
        """Ask it no more."""
        self._meeting.change(lambda: self.leave(giver))

    @property
    def is_wanted(self) -> bool:
        """Whether a request waits here, or for a level above to have more."""
        return any(level._gate & WAITERS for level in self.levels())

    def kick(self) -> None:
        """Say that the reclaimer may have something again: those who wait ask it once more."""
        self._meeting.rouse(self)

    def close(self) -> None:
        """End the budget: waiters get PoolClosed, units that come back later are counted still.

        Raises: PoolBusy if units are still out (it is closed all the same).
        """
        self.shut()
        out = self.used
        if out > 0:
            message = (
                f"budget {self.name!r}: closed with {self.show(out)} out; {self._say_caches()}"
                f"{self.say_holders()}"
            )
            raise PoolBusy(message, pool=self.name, count=out, holders=self.holders())

    def _say_caches(self) -> str:
        names = [giver.name for giver in (*self.own, *self.below) if not giver.is_callback]
        return f"close {', '.join(names)} first; " if names else ""

    def shut(self) -> None:
        """`close`, whatever is out."""
        self._meeting.change(self._shut)
        self._meeting.rouse(self)

    def _shut(self) -> None:
        if not self._gate & CLOSED:
            self._gate |= CLOSED
            self.come_home()
            if self.parent is not None:
                self.parent.floors -= self.floor
            self.drop_floor()
            for giver in self.own:
                if giver.is_callback:
                    self.leave(giver)

    def __enter__(self) -> Budget:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except PoolBusy:
            if kind is None:  # never hide the error that ended the block
                raise

    def _settle(self) -> None:
        self._meeting.settle()

    def _find(self, finding: str) -> None:
        self._meeting.findings.append((self, finding))
        self._meeting.due.append(self)

    def waiting(self) -> tuple[Waiting, ...]:
        """Who waits here now, ordinary requests first, each line in the order of arrival."""
        with self._guard:
            found = tuple(
                Waiting(ticket.who, self._meeting.units(ticket, self), ticket.since_s)
                for line in self.lines
                for ticket in line
            )
        self._settle()  # who gave back meanwhile found the guard taken, and left it to us
        return found

    def stats(self) -> BudgetStats:
        return BudgetStats(
            self.name, self.capacity, self.reserve, self.floor, self.used, self.room, self.waiters,
            self.waits, self.longest_wait_s, self.timeouts, self.reserve_uses, self.forced_count,
            sum(giver.raised.count for giver in self.own),
        )  # fmt: skip

    def __repr__(self) -> str:
        reserve = f", {self.show(self.reserve)} of it reserve" if self.reserve else ""
        return (
            f"<Budget {self.name!r}: {self.show(self.used)} of {self.show(self.capacity)} out{reserve}, "
            f"{self.waiters} waiting{', closed' if self.closed else ''}>"
        )
