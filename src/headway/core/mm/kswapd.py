"""Making room in the background: from below `low` up to `high`, so that few requests have to.

It does not decide who gets the room, and nobody's progress rests on it: a request that finds none
reclaims by itself. It is a plan that whoever needs it spawns, so it is a thread under threads, a
task under asyncio, a task of the simulator there; it ends by itself after a second without work, so
an idle program has none.

Sixteen fruitless runs, and it gives up until a requester has freed something: it must not burn a
core to no purpose. Requesters that find less than half of `min` wait here for its progress, which
is told after each pass that freed something, and when it ends; those that may not wait for code
above us (no FS) wait a second at most, since it may be waiting for a lock they hold.

Bound: one run is twelve passes over the shrinkers; whoever waits here is woken at the end of it.

Source: Linux ``mm/vmscan.c``, ``balance_pgdat`` and ``throttle_direct_reclaim`` (6.12).
"""

from __future__ import annotations

from typing import Final, final

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.reclaim import PRIORITY, Reclaim
from headway.core.mm.shrinker import ScanControl
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Runtime, Ticket, park, spawn, unpark

MAX_FRUITLESS: Final = 16
LINGER_S: Final = 1.0
NOFS_WAIT_S: Final = 1.0


@final
class Kswapd:
    """The background reclaimer of one zone. All its state changes under `_guard`."""

    __slots__ = (
        "_guard", "_idle", "_reclaim", "_sleepers", "_stopping", "_wanted", "_zone", "fruitless",
        "running", "runs",
    )  # fmt: skip

    def __init__(self, zone: Zone, reclaim: Reclaim, runtime: Runtime) -> None:
        self._zone = zone
        self._reclaim = reclaim
        self._guard = runtime.guard()
        self._idle: Ticket | None = None  # where it waits for work
        self._sleepers: list[Ticket] = []
        self._wanted = False
        self._stopping = False
        self.running = False
        self.fruitless = 0  # runs in a row that freed nothing
        self.runs = 0  # statistics

    @property
    def hopeless(self) -> bool:
        """True once it has given up: then a requester's progress is awaited."""
        return self.fruitless >= MAX_FRUITLESS

    def progress(self) -> None:
        """Told that a requester has freed something."""
        self.fruitless = 0

    def wake(self) -> Plan[bool]:
        """See to it that it runs, if there is something it could do; whether it does.

        Asks: Spawn, or Unpark.
        """
        with self._guard:
            if self._stopping or self.hopeless or not len(self._reclaim.shrinkers):
                return False
            begin = not self.running
            self.running = self._wanted = True
            idle, self._idle = self._idle, None
        if begin:
            try:
                yield from spawn(self._run(), f"kswapd of {self._zone.name}")
            except BaseException:
                with self._guard:
                    self.running = False
                self._tell()
                raise
        elif idle is not None:
            yield from unpark(idle)
        return True

    def wait(self, who: str, gfp: Gfp) -> Plan[bool]:
        """Park until it made progress, gave up or ended; at most a second without FS.

        False if that time was over. Returns at once if it does not run just then.
        """
        ticket = Ticket(f"{who} throttled for kswapd of {self._zone.name}")
        with self._guard:
            if not self.running or self.hopeless or self._idle is not None:
                return True
            self._sleepers.append(ticket)
        try:
            return (yield from park(ticket, None if gfp & Gfp.FS else NOFS_WAIT_S))
        finally:
            with self._guard:
                if ticket in self._sleepers:
                    self._sleepers.remove(ticket)

    def stop(self) -> None:
        """End it, now or at the end of its pass, and never start again. Waits: never."""
        with self._guard:
            self._stopping = True
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.wake()

    def _run(self) -> Plan[None]:
        ended = False
        try:
            while not ended:
                self._wanted = False
                while (yield from self._balance()):
                    pass
                idle = self._rest()
                if idle is not None:
                    yield from park(idle, LINGER_S)
                ended = self._has_ended()
        finally:
            if not ended:  # cancelled, or its loop was closed
                with self._guard:
                    self.running = False
                self._tell()

    def _rest(self) -> Ticket | None:
        """After a run: where to wait for work; None if there is some, or it is to stop.

        Who waits for us is told in the same step that makes us idle, and nobody begins to wait for
        one that is idle: else he would wait for a run that may never come.
        """
        with self._guard:
            sleepers, self._sleepers = self._sleepers, []
            if not self._wanted and not self._stopping:
                self._idle = Ticket(f"work for kswapd of {self._zone.name}")
            idle = self._idle
        for ticket in sleepers:
            ticket.wake()
        return idle

    def _has_ended(self) -> bool:
        with self._guard:
            self._idle = None
            if self._wanted and not self._stopping:
                return False
            self.running = False  # in this step: who wants it from now on spawns it
            sleepers, self._sleepers = self._sleepers, []
        for ticket in sleepers:
            ticket.wake()
        return True

    def _balance(self) -> Plan[bool]:
        """One run, harder and harder, until `high` is open; whether another would help."""
        self.runs += 1
        control = ScanControl(Gfp.KERNEL, int(Scope.NORECLAIM), "kswapd")
        high = self._zone.marks.high
        freed = 0
        for priority in range(PRIORITY, 0, -1):
            missing = high - self._zone.room()
            if missing <= 0 or self._stopping:
                return False
            found = yield from self._reclaim.sweep(control, priority, missing)
            if found:
                freed += found
                self.fruitless = 0
                self._tell()
        if not freed:
            self.fruitless += 1
        return freed > 0

    def _tell(self) -> None:
        with self._guard:
            sleepers, self._sleepers = self._sleepers, []
        for ticket in sleepers:
            ticket.wake()

    def __repr__(self) -> str:
        state = "hopeless" if self.hopeless else "running" if self.running else "asleep"
        return f"<Kswapd of {self._zone.name!r}: {state}, {self.runs} runs>"
