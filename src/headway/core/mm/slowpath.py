"""How a request for pages gets them when they are not there for the taking: one plan.

It grants nothing (`headway.core.mm.zone` does) and frees nothing (`headway.core.mm.reclaim` does);
it decides what comes next::

    try low -> wake kswapd, try min -> [ wake, try; throttle; reclaim, try ] -> try high -> oom

The bracket is repeated while it makes sense: sixteen rounds in a row without progress, 64 in all,
and only if the request could pass were all that is reclaimable free. NORETRY leaves after one round,
RETRY_MAYFAIL before the policy. NOFAIL never leaves, and says so in the log; it may have half of
`min`. Who may not reclaim (no DIRECT_RECLAIM, or NORECLAIM in force) leaves before the bracket.

Bound: each wait in here ends by itself: a pause after `TICK_S` (for NOFAIL, doubling up to a
second), a throttle with the background's run. Any page that comes back ends a pause early.

Source: Linux ``mm/page_alloc.c``, ``__alloc_pages_slowpath`` (6.12). Departures: no order is costly
(buffers are large here, there is no compaction), so freed pages that make no block are no progress;
a request without FS is failed where the kernel lets it loop; being in reclaim gives no right to
emergency memory, as scopes only take away: a shrinker asks with MEMALLOC, or has a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar, final

from headway.core.mm.gfp import Gfp, Scope, for_allocator, restrict
from headway.core.mm.oom import GRACE_S, Oom, OutOfMemory, Victim
from headway.core.mm.raised import Raised
from headway.core.mm.reclaim import TICK_S, Patience, Reclaim
from headway.core.mm.watermarks import lowest_mark
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Runtime, Ticket, offload, park
from headway.core.units import format_size
from headway.errors import NoMemory

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NO_PAGE: Final = -1
_URGENT: Final = int(Gfp.HIGH | Gfp.MEMALLOC | Gfp.NOFAIL)
_NORECLAIM: Final = int(Scope.NORECLAIM)
_SAID_AFTER: Final = 64  # rounds of a NOFAIL request, about half a minute


class Taker(Protocol[T_co]):
    """Who asks: a share of the zone, say."""

    @property
    def name(self) -> str: ...
    @property
    def page_count(self) -> int: ...
    def take(self, mark: int, /) -> T_co | None: ...


@final
class SlowPath:
    """The slow path of one zone. The counts are statistics; `_refusing`, `_judging` are hints."""

    __slots__ = (
        "_judging", "_refusing", "_runtime", "dirty", "observe", "oom", "oom_count", "raised",
        "reclaim", "throttled", "zone",
    )  # fmt: skip

    def __init__(self, zone: Zone, runtime: Runtime, oom: Oom | Victim = Oom.FAIL) -> None:
        self.zone = zone
        self.reclaim = Reclaim(runtime, zone.page_count)
        self.oom = oom
        self.oom_count = 0
        self.raised = Raised()  # by a victim callback
        self.throttled = 0
        self.dirty: Any = None  # the zone's `DirtyThrottle`, once somebody may dirty data
        #: Told each action, and with which mark, in order: for tools and tests.
        self.observe: Callable[[str, int], object] | None = None
        self._runtime = runtime
        self._refusing = False
        self._judging = False

    def alloc(self, taker: Taker[T], gfp: Gfp, scope: int, who: str) -> Plan[T | None]:
        """Pages for `taker`, or None if its mask and the policy let it fail.

        Asks: Call, Offload, Park, Spawn, Unpark. Raises: NoMemory if that is the policy; PoolClosed.
        """
        got = self.take(taker, self.zone.marks.low)
        if self._refusing and self.zone.room() > self.zone.marks.high:
            self._refusing = False
        if got is not None:
            return got
        if self._refusing and not gfp & _URGENT:
            self.tell("refuse")
            return None
        return (yield from _Request(self, taker, gfp, scope, who).climb())

    def take(self, taker: Taker[T], mark: int) -> T | None:
        self.tell("try", mark)
        return taker.take(mark)

    def tell(self, action: str, mark: int = NO_PAGE) -> None:
        if self.observe is not None:
            self.observe(action, mark)

    def report(self, message: str) -> None:
        self._runtime.report(message, once=True)

    def complain(self, error: Exception) -> None:
        self.raised.note(self._runtime, f"zone {self.zone.name!r}: its oom callback", error)

    def begin_judging(self) -> bool:
        """One out-of-memory judgement at a time: False if another is under way."""
        judging, self._judging = self._judging, True
        return not judging

    def end_judging(self) -> None:
        self._judging = False

    def refuse_newcomers(self) -> None:
        self._refusing = True

    def __repr__(self) -> str:
        policy = self.oom.value if isinstance(self.oom, Oom) else "victim"
        return (
            f"<SlowPath of {self.zone.name!r}: {self.reclaim.runs} direct runs, "
            f"{self.throttled} throttled, {self.oom_count} times out of memory, policy {policy}>"
        )


@final
class _Request(Generic[T]):
    """One request on its way up."""

    __slots__ = (
        "_gfp",
        "_helped",
        "_mark",
        "_path",
        "_pause_s",
        "_rounds",
        "_scope",
        "_taker",
        "_who",
        "got",
    )

    def __init__(self, path: SlowPath, taker: Taker[T], gfp: Gfp, scope: int, who: str) -> None:
        self._path = path
        self._taker = taker
        self._gfp = restrict(gfp, scope)
        self._scope = scope
        self._who = who
        self._mark = lowest_mark(int(gfp), path.zone.marks.min)
        self._pause_s = TICK_S
        self._rounds = 0
        self._helped = False  # the background was at work when we last woke it
        self.got: T | None = None

    def climb(self) -> Plan[T | None]:
        gfp = self._gfp
        may_reclaim = for_allocator(gfp, self._scope).may_park
        yield from self._wake()
        if self._take(gfp & ~Gfp.MEMALLOC):
            return self.got
        patience = Patience()
        while True:
            yield from self._wake()
            if self._take(gfp) or not may_reclaim:
                break
            yield from self._throttle()
            progress = yield from self._reclaim()
            if (progress and self._take(gfp)) or gfp & Gfp.NORETRY:
                break
            if (yield from self._is_worth_retrying(patience, progress)):
                continue
            if not gfp & Gfp.RETRY_MAYFAIL and (yield from self._judge()):
                patience = Patience()
                continue
            if self.got is not None or not gfp & Gfp.NOFAIL or self._take(gfp | Gfp.HIGH):
                break
            yield from self._endure()
        if self.got is None and not gfp & Gfp.NOWARN:
            self._path.report(f"{self._asked()} was not to be had ({gfp!r})")
        return self.got

    # -- the steps ---------------------------------------------------------------------------------

    def _take(self, gfp: Gfp) -> bool:
        if self.got is None:
            mark = lowest_mark(int(gfp), self._path.zone.marks.min)
            self.got = self._path.take(self._taker, mark)
        return self.got is not None

    def _wake(self) -> Plan[None]:
        background = self._path.reclaim.background
        if background is not None and self._gfp & Gfp.KSWAPD_RECLAIM:
            self._path.tell("wake")
            self._helped = yield from background.wake()

    def _throttle(self) -> Plan[None]:
        """In an emergency, wait for the background's progress instead of adding to the crowd."""
        path, background = self._path, self._path.reclaim.background
        if background is None or not self._helped or not path.zone.marks.min:
            return
        if path.zone.room() <= path.zone.marks.min // 2:
            path.throttled += 1
            path.tell("throttle")
            yield from background.wait(self._who, self._gfp)

    def _reclaim(self) -> Plan[int]:
        self._path.tell("reclaim")
        pages = self._taker.page_count
        return (
            yield from self._path.reclaim.direct(
                self._gfp, self._scope, self._who, pages, lambda: self._would_pass(0)
            )
        )

    def _would_pass(self, more_pages: int) -> bool:
        """Whether the count, if not the blocks, would do with so many pages more."""
        room = self._path.zone.room() + more_pages
        return room - self._taker.page_count >= self._mark

    def _is_worth_retrying(self, patience: Patience, progress: int) -> Plan[bool]:
        if self._would_pass(0):
            progress = 0  # no page is missing, but a block: more pages are no progress
        if not patience.bears(progress):
            return False
        reclaim = self._path.reclaim
        if not self._would_pass(
            (yield from reclaim.reclaimable(self._gfp, self._scope, self._who))
        ):
            return False
        if not progress:
            yield from self._pause(TICK_S)
        return True

    def _pause(self, timeout_s: float) -> Plan[bool]:
        """Until pages come back; False if none did in time."""
        zone = self._path.zone
        ticket = Ticket(f"{self._who} for room in zone {zone.name}")
        zone.expect_room(ticket)
        try:
            self.got = self._taker.take(self._mark)
            if self.got is not None:
                return True
            return (yield from park(ticket, timeout_s))
        finally:
            zone.forget(ticket)

    def _endure(self) -> Plan[None]:
        """NOFAIL: wait for what others give back, and do not be silent about it."""
        self._rounds += 1
        if self._rounds == _SAID_AFTER:
            self._path.report(
                f"{self._asked()} may not fail and has tried {self._rounds} times: somebody holds "
                "what it needs and does not give back"
            )
        yield from self._pause(self._pause_s)
        self._pause_s = min(2 * self._pause_s, GRACE_S)

    # -- out of memory -------------------------------------------------------------------------------

    def _judge(self) -> Plan[bool]:
        """Nothing can be reclaimed: what the policy says. True to try again.

        Raises: NoMemory if the policy is to raise, and the request may fail.
        """
        path, zone = self._path, self._path.zone
        background = path.reclaim.background
        if not self._gfp & Gfp.FS and background is not None:
            yield from background.wait(self._who, self._gfp)  # it may do what we may not
        self.got = path.take(self._taker, zone.marks.high)
        if self.got is not None:
            return False
        path.tell("oom")
        path.oom_count += 1
        if not path.begin_judging():
            yield from self._pause(TICK_S)
            return True
        try:
            if isinstance(path.oom, Oom):
                if path.oom is Oom.REFUSE:
                    path.refuse_newcomers()
                    return (yield from self._pause(GRACE_S))
                helped = path.oom is Oom.FAIL
            else:
                helped = yield from self._ask_victim(path.oom)
                if helped and (yield from self._pause(GRACE_S)):
                    return True
                helped = False
        finally:
            path.end_judging()
        if not helped and not self._gfp & Gfp.NOFAIL:
            raise NoMemory((yield from self._say()))
        return False

    def _ask_victim(self, victim: Victim) -> Plan[bool]:
        if not self._gfp & Gfp.FS:
            return False  # it is code above us
        zone, reclaim = self._path.zone, self._path.reclaim
        info = OutOfMemory(
            zone=zone.name,
            who=self._who,
            user=self._taker.name,
            size=self._taker.page_count * zone.page_bytes,
            free=max(zone.room(), 0) * zone.page_bytes,
            reclaimable=(yield from reclaim.reclaimable(self._gfp, self._scope, self._who))
            * zone.page_bytes,
            gfp=self._gfp,
        )
        self._path.tell("victim")
        try:
            return (yield from offload(victim, info, scope=self._scope | _NORECLAIM))
        except (
            Exception
        ) as error:  # nobody's memory came of it, and it is not the requester's fault
            self._path.complain(error)
            return False

    def _asked(self) -> str:
        zone = self._path.zone
        size = format_size(self._taker.page_count * zone.page_bytes)
        return f"zone {zone.name!r}: {size} for {self._taker.name!r}"

    def _say(self) -> Plan[str]:
        zone, reclaim = self._path.zone, self._path.reclaim
        left = yield from reclaim.reclaimable(self._gfp, self._scope, self._who)
        free, kept = (format_size(max(n, 0) * zone.page_bytes) for n in (zone.room(), self._mark))
        size = format_size(zone.page_count * zone.page_bytes)
        return (
            f"{self._asked()} is not to be had: {free} of {size} are open, {kept} must stay, "
            f"{format_size(left * zone.page_bytes)} could be reclaimed; give back sooner, cache "
            "less, or make the zone larger"
        )
