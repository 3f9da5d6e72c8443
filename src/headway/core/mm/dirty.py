"""How fast writers may make data dirty: at the speed of their own device, and no slower for another's.

It does not write anything back (flushers do, and say what is `cleaned`), and holds no data: it counts
bytes, per device, per group, and in all. The caches of a zone are devices of its throttle as well, but
there whoever is over does the writing himself (`headway.core.mm.dirtied`). Below a *free run*,
half-way between the background limit and the hard one, nobody is slowed. Above it each chunk costs
a pause, so long that the writers of a device together make data dirty as fast as the device cleans
it. A *position ratio* corrects that, from 2 (far below the set point) over 1 to 0 (at the limit);
of all domains that a writer is in the smaller one counts. A device's part of the limit is its part
of what was cleaned of late, so dirt that a slow one cannot get rid of does not use up the room of a
fast one.

Who writes on behalf of others (`local`: a loop device, a server) is slowed for his own device alone;
who is inside reclaim never is, as others wait for him. `Pacing.CONGESTION` is what there was before:
above the limit, everybody waits for anybody's write, or 100 ms.

Bound: each pause is at most 200 ms. Dirty data is at most the hard limit, plus one chunk of each
writer, plus what those dirty who are slowed less (above). A writer whose device is over its part
stays until that is no longer so.

Source: Linux ``mm/page-writeback.c`` (6.12), ``balance_dirty_pages``, ``wb_position_ratio``.
Departures: bytes and fractions instead of pages and fixed point; a device is stopped at its part of
the limit, also in the free run of the whole (Linux: only with ``strictlimit``), and where Linux lets
it go on at a quarter of its rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from headway.core.mm.domain import Domain, chain
from headway.core.mm.gfp import Scope
from headway.core.plan import Plan, Runtime, Ticket, now, park
from headway.core.units import format_size
from headway.errors import UsageError

MAX_PAUSE_S: Final = 0.2
MIN_PAUSE_S: Final = 0.01  # a shorter one is only accounted for
TURN_S: Final = 0.001  # the shortest pause of a writer that has to stay
DRAIN_PART: Final = (
    8  # no pause is longer than this part of the time in which the device would fall idle
)
INTERVAL_S: Final = 0.2  # of the estimate of bandwidth
PERIOD_S: Final = 3.0  # after which what was cleaned counts half
CONGESTION_S: Final = 0.1
FIRST_BPS: Final = 100e6  # a device's bandwidth until it is known
MOST_BOOST: Final = 8  # for a device with little dirty data, so that it never falls idle
LEAST_PART: Final = 16  # even an idle device has this part of the limit, so that it can begin
_NORECLAIM: Final = int(Scope.NORECLAIM)


class Pacing(Enum):
    """How writers are slowed."""

    POSITION = "pauses by the position between the limits"
    CONGESTION = "a timed wait for anybody's write, as before Linux 3.2"


@final
@dataclass(frozen=True, slots=True)
class DirtyStats:
    """A snapshot of a device. Units: bytes, seconds."""

    name: str
    dirty: int
    part: int  # of the hard limit, just now
    bandwidth: float  # as estimated, a second
    cleaned: int  # in all
    pauses: int
    paused_s: float  # as asked for, in all
    longest_pause_s: float


class DirtyThrottle:
    """The limits of one program, or of one zone, and its devices."""

    __slots__ = ("_guard", "_period_s", "_waiting", "devices", "pacing", "runtime", "whole")

    def __init__(
        self,
        limit: int | str,
        background: int | str | None = None,
        *,
        runtime: Runtime,
        pacing: Pacing = Pacing.POSITION,
        name: str = "dirty",
    ) -> None:
        self.whole = Domain(name, limit, background)
        self.pacing = pacing
        self.runtime = runtime
        self.devices: tuple[DirtyDevice, ...] = ()
        self._guard = runtime.guard()
        self._period_s = runtime.now()
        self._waiting: list[Ticket] = []  # of the historic wait

    def device(self, name: str) -> DirtyDevice:
        """A device, or a file system: what has one speed."""
        device = DirtyDevice(self, name)
        with self._guard:
            self.devices = (*self.devices, device)
        return device

    def group(self, name: str, limit: int | str, background: int | str | None = None) -> Domain:
        """A group of writers with limits of its own, below those of the whole.

        Raises: UsageError if the limits are none.
        """
        return Domain(name, limit, background)

    def forget(self, device: DirtyDevice) -> None:
        """A device is no more; what it left dirty is wanted no more."""
        device.dropped(device.dirty)
        with self._guard:
            self.devices = tuple(other for other in self.devices if other is not device)

    def age(self, now_s: float) -> None:
        """Under the guard: let what was cleaned long ago count less."""
        while now_s - self._period_s >= PERIOD_S:
            self._period_s += PERIOD_S
            for device in self.devices:
                device.recent /= 2
            if not any(device.recent >= 1 for device in self.devices):
                self._period_s = now_s

    def wait_for_any(self, ticket: Ticket) -> None:
        with self._guard:
            self._waiting.append(ticket)

    def end_waits(self) -> None:
        with self._guard:
            waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            ticket.wake()

    def __repr__(self) -> str:
        return f"<DirtyThrottle {self.whole!r}, {len(self.devices)} devices>"


@final
class DirtyDevice:
    """The dirty data of one device, and how fast it gets rid of it. Changed under the throttle's guard.

    `base_bps` is what one writer may dirty in a second at the set point: the device's bandwidth over
    the number of writers, found by comparing what they do with what it does.
    """

    __slots__ = (
        "_cleaned_then", "_dirtied", "_dirtied_then", "_estimated_s", "_is_known", "_of",
        "bandwidth_bps",
        "base_bps", "cleaned_bytes", "dirty", "flusher", "longest_pause_s", "name", "paused_s",
        "pauses", "recent",
    )  # fmt: skip

    def __init__(self, of: DirtyThrottle, name: str) -> None:
        self._of = of
        self.name = name
        self.dirty = 0
        self.cleaned_bytes = 0
        self.recent = 0.0  # cleaned of late; older counts less
        self.bandwidth_bps = self.base_bps = FIRST_BPS
        self.pauses = 0
        self.paused_s = self.longest_pause_s = 0.0
        #: Woken when there is more dirty data than the background limit of a domain, or its device's.
        self.flusher: Ticket | None = None
        self._dirtied = 0
        self._estimated_s = of.runtime.now()
        self._dirtied_then = self._cleaned_then = 0
        self._is_known = False  # its bandwidth

    # -- what is dirty ---------------------------------------------------------------------------

    @property
    def part(self) -> int:
        """Of the hard limit: as much as it has of what was cleaned of late; the others' least is kept."""
        whole, count = self._of.whole.limit, len(self._of.devices)
        least = whole / max(LEAST_PART, 2 * count)
        cleaned = sum(device.recent for device in self._of.devices)
        wanted = whole * self.recent / cleaned if cleaned else whole / max(count, 1)
        return int(min(max(wanted, least), whole - least * (count - 1)))

    @property
    def freerun(self) -> int:
        whole = self._of.whole
        return int(self.part * whole.freerun / whole.limit)

    def account(self, size: int, group: Domain | None) -> None:
        """So many bytes are dirty. Waits: never."""
        with self._of._guard:
            if not self.dirty:  # it was idle, and what it did not clean then says nothing
                self._begin_interval(self._of.runtime.now())
            for domain in self._domains(group):
                domain.dirty += size
            self.dirty += size
            self._dirtied += size
            flusher = None
            if self.is_due(group):
                flusher, self.flusher = self.flusher, None
        if flusher is not None:
            flusher.wake()

    def is_due(self, group: Domain | None = None) -> bool:
        """Whether it is time to write, in the background: a domain, or its own part of one, is half full."""
        whole = self._of.whole
        own = self.part * whole.background / whole.limit
        return self.dirty > own or any(
            domain.dirty > domain.background for domain in self._domains(group)
        )

    def is_over(self, group: Domain | None = None) -> bool:
        """Whether more is dirty than may be: in a domain, or, above the free run, of this device's part."""
        whole = self._of.whole
        return (whole.dirty > whole.freerun and self.dirty > self.part) or any(
            domain.dirty > domain.limit for domain in self._domains(group)
        )

    def dropped(self, size: int, group: Domain | None = None) -> None:
        """So many dirty bytes are wanted no more: nobody has to write them. Waits: never."""
        with self._of._guard:
            self._uncount(size, group)
        self._of.end_waits()

    def _uncount(self, size: int, group: Domain | None) -> None:
        for domain in self._domains(group):
            assert size <= domain.dirty, "more was cleaned than was dirty"
            domain.dirty -= size
        self.dirty -= size

    def _domains(self, group: Domain | None) -> Iterator[Domain]:
        """All in which it counts: the whole, and the group with those that it is in."""
        yield self._of.whole
        yield from chain(group)

    def cleaned(self, size: int, group: Domain | None = None) -> None:
        """So many bytes were written back. Waits: never."""
        of = self._of
        now_s = of.runtime.now()
        with of._guard:
            self._uncount(size, group)
            self.cleaned_bytes += size
            of.age(now_s)
            self.recent += size
            self._estimate(now_s)
        of.end_waits()

    def _estimate(self, now_s: float) -> None:
        took_s = now_s - self._estimated_s
        if took_s < INTERVAL_S:
            return
        cleaned_bps = (self.cleaned_bytes - self._cleaned_then) / took_s
        dirtied_bps = (self._dirtied - self._dirtied_then) / took_s
        part = 0.125 if self._is_known else 1.0
        self._is_known = True
        self.bandwidth_bps += (cleaned_bps - self.bandwidth_bps) * part
        if dirtied_bps:
            balanced = self.base_bps * self._ratio(None) * self.bandwidth_bps / dirtied_bps
            balanced = min(max(balanced, self.bandwidth_bps / 1000), self.bandwidth_bps)
            self.base_bps += (balanced - self.base_bps) / 2
        self._begin_interval(now_s)

    def _begin_interval(self, now_s: float) -> None:
        self._estimated_s = now_s
        self._cleaned_then, self._dirtied_then = self.cleaned_bytes, self._dirtied

    # -- pauses ----------------------------------------------------------------------------------

    def dirtied(self, size: int, group: Domain | None = None, *, local: bool = False) -> None:
        """So many bytes are dirty; pause for it, if there are many.

        `local`: this writer cleans for others, and is not slowed for other devices' dirt.
        Waits: in pauses of at most 200 ms; while this device is over its part, more than one.
        """
        runtime = self._of.runtime
        runtime.run(self.dirtied_plan(size, group, local, runtime.scope(), runtime.owner()))

    def try_dirtied(self, size: int, group: Domain | None = None, *, local: bool = False) -> bool:
        """The same where no pause is due; False, and nothing is accounted for, where one is."""
        with self._of._guard:
            free = self._is_free(group, local)
        if free:
            self.account(size, group)
        return free

    def dirtied_plan(
        self, size: int, group: Domain | None, local: bool, scope: int, who: str
    ) -> Plan[None]:
        """`dirtied` as a plan. Asks: Now, Park."""
        if size < 0:
            raise UsageError(f"device {self.name!r}: {size} bytes were dirtied; give 0 or more")
        began_s = yield from now()
        self.account(size, group)
        if scope & _NORECLAIM:
            return  # reclaim waits for it
        if self._of.pacing is Pacing.CONGESTION:
            yield from self._wait_for_anybody(who)
            return
        while True:
            with self._of._guard:
                if self._is_free(group, local):
                    return
                ratio = self._ratio(group, local)
                rate_bps = self.base_bps * ratio
                most_s = self.dirty / self.bandwidth_bps / DRAIN_PART
            pause_s = most_s = min(max(most_s, TURN_S), MAX_PAUSE_S)
            if rate_bps > 0:
                now_s = yield from now()
                pause_s = min(size / rate_bps - (now_s - began_s), most_s)
                if pause_s < MIN_PAUSE_S:
                    return
            yield from self._pause(pause_s, who)
            if rate_bps > 0:
                return

    def _is_free(self, group: Domain | None, local: bool) -> bool:
        """Under the guard: nobody has to pause."""
        if local and self.dirty <= self.freerun:
            return True
        whole = self._of.whole
        free = whole.dirty <= whole.freerun and self.dirty <= self.part
        return free and all(domain.dirty <= domain.freerun for domain in chain(group))

    def _ratio(self, group: Domain | None, local: bool = False) -> float:
        """Under the guard: the smaller one of the domains, scaled by the device's own position."""
        domains = [] if local else [self._of.whole.ratio]
        domains.extend(domain.ratio for domain in chain(group))
        part, freerun = self.part, self.freerun
        own = 0.0
        if self.dirty < part:
            own = min((part - self.dirty) / (part - (freerun + part) / 2), 2.0)
        if self.dirty < part / 2:  # it is about to run dry, however dirty the others are
            own *= min(part / 2 / max(self.dirty, 1), MOST_BOOST)
        return min(domains, default=1.0) * own

    def _pause(self, pause_s: float, who: str) -> Plan[None]:
        self.pauses += 1
        self.paused_s += pause_s
        self.longest_pause_s = max(self.longest_pause_s, pause_s)
        yield from park(Ticket(f"{who}, which dirties {self.name} too fast"), pause_s)

    def _wait_for_anybody(self, who: str) -> Plan[None]:
        whole = self._of.whole
        while whole.dirty > whole.limit:
            ticket = Ticket(f"{who} for congestion to end")
            self._of.wait_for_any(ticket)
            self.pauses += 1
            self.paused_s += CONGESTION_S
            yield from park(ticket, CONGESTION_S)

    def stats(self) -> DirtyStats:
        with self._of._guard:
            return DirtyStats(
                self.name, self.dirty, self.part, self.bandwidth_bps, self.cleaned_bytes,
                self.pauses, self.paused_s, self.longest_pause_s,
            )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<DirtyDevice {self.name!r}: {format_size(self.dirty)} dirty of "
            f"{format_size(self.part)}, {self.bandwidth_bps / (1 << 20):.1f} MiB/s>"
        )
