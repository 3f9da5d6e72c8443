"""What can be asked to give memory back, and how hard each is asked.

It does not decide when to ask, or when to give up (`headway.core.mm.reclaim` does). A shrinker
*counts* what it could free, quickly and without waiting for a lock, and *scans*: it looks at
`scan_count` objects and says how many it freed. At priority p it is asked for a share of 1/2**p of
what it has, the less the dearer its objects are to make again (`seeks`). What it should have done
and did not (it said STOP, or its mask forbids it) is *deferred*: the next to ask, asks for more.

A shrinker runs on behalf of a requester, under that one's scope and with NORECLAIM added; so what
it allocates never asks for reclaim again. It may fail: that counts as STOP, it is not asked again in
this run, and its owner is told (`headway.core.mm.raised`).

Bound: one call of `shrink` scans at most twice what was counted, plus one batch; calls are at most
one per object, since each is charged for one object or more.

Source: Linux ``mm/shrinker.c``, ``do_shrink_slab`` (6.12), restated. Departures: the order of asking
is by `seeks`, cheapest first; what a shrinker `needs` is tested before its scan is called; a pass
ends with its target.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.raised import Raised
from headway.core.plan import Plan, Runtime, Ticket, call, offload, park
from headway.errors import UsageError

STOP: Final = -1  # answer of a scan: no progress is possible now; do not ask again in this pass
EMPTY: Final = -2  # answer of a count: there is really nothing (0: cannot tell, or skip me now)
SEEKS: Final = 2
BATCH: Final = 128
NOTHING: Final = Gfp(0)


@final
@dataclass(slots=True)
class ScanControl:
    """On whose behalf a shrinker is asked, and for how much.

    `scope` is already in force around a callback; a plan hands it on to what it allocates. A scan
    that looked at more or fewer objects than `scan_count` says so in `scanned`. One for each run:
    `raised` are the shrinkers that did so in it.
    """

    gfp: Gfp
    scope: int
    who: str
    scan_count: int = 0
    scanned: int = 0
    raised: list[Registration] = field(default_factory=list)


class Shrinker(Protocol):
    """Something that can give memory back. Objects are whatever it likes to count in."""

    def count_objects(self, control: ScanControl, /) -> int:
        """How many could be freed. Waits: never, not even for a lock (then the answer is 0)."""

    def scan_objects(self, control: ScanControl, /) -> int:
        """Look at `control.scan_count` objects; the number freed, or STOP."""


class PlanShrinker(Protocol):
    """A shrinker inside headway, whose scan may wait: it is a plan."""

    def count_objects(self, control: ScanControl, /) -> int: ...
    def scan(self, control: ScanControl, /) -> Plan[int]: ...


@final
class Registration:
    """One shrinker's place among others. `deferred` and `_running` change under the guard."""

    __slots__ = (
        "_all", "_leaving", "_running", "batch", "closed", "deferred", "freed", "name", "needs",
        "object_pages", "raised", "seeks", "shrinker", "stops",
    )  # fmt: skip

    def __init__(
        self,
        all_: Shrinkers,
        shrinker: Any,
        name: str,
        seeks: int,
        batch: int,
        pages: int,
        needs: Gfp,
    ) -> None:
        self._all = all_
        self.shrinker = shrinker
        self.name = name
        self.seeks = seeks
        self.batch = batch
        self.object_pages = pages
        self.needs = needs
        self.deferred = 0
        self.closed = False
        self.freed = 0  # statistics: objects in all
        self.stops = 0  # statistics: how often it could not
        self.raised = Raised()
        self._running = 0
        self._leaving: list[Ticket] = []

    def unregister(self) -> None:
        """Leave. Waits: until nobody is in the shrinker's code any more."""
        self._all.runtime.run(self.leave())

    def leave(self) -> Plan[None]:
        """`unregister` as a plan. Asks: Park. Not from inside the shrinker's own code."""
        ticket = Ticket(f"end of shrinker {self.name!r}")
        with self._all.guard:
            self.closed = True
            self._all.drop(self)
            inside = self._running
            if inside:
                self._leaving.append(ticket)
        self._all.tell()
        if inside:
            yield from park(ticket)

    def enter(self) -> bool:
        """Begin to use the shrinker; False if it has left."""
        with self._all.guard:
            if self.closed:
                return False
            self._running += 1
            return True

    def exit(self) -> None:
        with self._all.guard:
            self._running -= 1
            leaving: list[Ticket] = []
            if not self._running:
                leaving, self._leaving = self._leaving, leaving
        for ticket in leaving:
            ticket.wake()

    def take_deferred(self) -> int:
        with self._all.guard:
            deferred, self.deferred = self.deferred, 0
            return deferred

    def defer(self, count: int) -> None:
        with self._all.guard:
            self.deferred += count

    def __repr__(self) -> str:
        raised = f", raised {self.raised.count} times" if self.raised.count else ""
        return f"<Shrinker {self.name!r}: {self.freed} freed, {self.deferred} deferred{raised}>"


@final
class Shrinkers:
    """The shrinkers of one zone, cheapest objects first."""

    __slots__ = ("_members", "changed", "guard", "raised_count", "runtime")

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.guard = runtime.guard()
        self._members: tuple[Registration, ...] = ()
        self.raised_count = 0  # statistics: by all that are or were members
        #: Told, without any lock, whether there are any, when one came or left.
        self.changed: Callable[[bool], object] | None = None

    def register(
        self,
        shrinker: Shrinker | PlanShrinker,
        *,
        name: str = "shrinker",
        seeks: int = SEEKS,
        batch: int | None = None,
        object_pages: int = 1,
        needs: Gfp = NOTHING,
    ) -> Registration:
        """Add a shrinker. `object_pages`: what one object gives back, at most; `batch`: objects of one
        scan, by default as many as make 128 pages.

        `needs`: bits without which it is not called (FS: it is code above the allocation, or takes
        locks that such code holds while it allocates).
        Raises: UsageError if the numbers make no shrinker.
        """
        if batch is None:
            batch = max(1, BATCH // max(1, object_pages))
        if seeks < 0 or batch < 1 or object_pages < 1:
            raise UsageError(
                f"shrinker {name!r}: seeks={seeks}, batch={batch}, object_pages={object_pages}; "
                "seeks must be 0 or more, the others 1 or more"
            )
        one = Registration(self, shrinker, name, seeks, batch, object_pages, needs)
        with self.guard:
            self._members = tuple(sorted((*self._members, one), key=lambda member: member.seeks))
        self.tell()
        return one

    def tell(self) -> None:
        """Outside the guard, after a change."""
        if self.changed is not None:
            self.changed(bool(self._members))

    def drop(self, one: Registration) -> None:
        """Forget a member. Under the guard."""
        self._members = tuple(other for other in self._members if other is not one)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def amount(freeable: int, deferred: int, priority: int, seeks: int) -> tuple[int, int]:
    """How many objects to scan: of this pass's own (delta), and with what was deferred (total)."""
    delta = (freeable >> priority) * 4 // seeks if seeks else freeable // 2
    return delta, min((deferred >> priority) + delta, 2 * freeable)


def shrink(
    one: Registration, control: ScanControl, priority: int, target: int | None = None
) -> Plan[int]:
    """Ask one shrinker, as hard as the priority says; how many objects it freed.

    Once `target` objects are freed no more batches are asked for, nor deferred: at priority 0 a
    cache whose objects were all used of late would else be emptied for the sake of one page.
    Asks: Call (count), Offload (scan), and what a shrinker that is a plan asks.
    """
    if one in control.raised or not one.enter():
        return 0
    try:
        freeable = yield from _counted(one, control)
        if freeable <= 0:
            return 0
        deferred = one.take_deferred()
        delta, total = amount(freeable, deferred, priority, one.seeks)
        allowed = not one.needs & ~control.gfp
        freed = scanned = 0
        try:
            while allowed and (total >= one.batch or total >= freeable):
                control.scan_count = control.scanned = min(one.batch, total)
                found = yield from _scanned(one, control)
                if found == STOP:
                    one.stops += 1
                    break
                freed += found
                looked_at = max(control.scanned, 1)  # a scan of nothing at all would never end
                total -= looked_at
                scanned += looked_at
                if target is not None and freed >= target:
                    delta = 0  # that much is not owed
                    break
        finally:  # also when the requester is cancelled: others inherit what it left undone
            one.defer(min(max(deferred + delta - scanned, 0), 2 * freeable))
            one.freed += freed
        return freed
    finally:
        one.exit()


def reclaimable(one: Registration, control: ScanControl) -> Plan[int]:
    """What it could give back at most. Units: pages."""
    if one in control.raised or one.needs & ~control.gfp or not one.enter():
        return 0
    try:
        count = yield from _counted(one, control)
        return max(count, 0) * one.object_pages
    finally:
        one.exit()


def _counted(one: Registration, control: ScanControl) -> Generator[Any, Any, int]:
    try:
        count: int = yield from call(one.shrinker.count_objects, control, scope=control.scope)
        return count
    except Exception as error:
        _complain(one, control, "count", error)
        return 0


def _scanned(one: Registration, control: ScanControl) -> Generator[Any, Any, int]:
    try:
        plan = getattr(one.shrinker, "scan", None)
        found: int
        if plan is not None:
            found = yield from plan(control)
        else:
            found = yield from offload(one.shrinker.scan_objects, control, scope=control.scope)
        return max(found, STOP)
    except Exception as error:
        _complain(one, control, "scan", error)
        return STOP


def _complain(one: Registration, control: ScanControl, what: str, error: Exception) -> None:
    control.raised.append(one)
    one._all.raised_count += 1
    one.raised.note(one._all.runtime, f"shrinker {one.name!r}: its {what}", error)
