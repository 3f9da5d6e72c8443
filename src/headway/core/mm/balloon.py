"""Which pages of a zone are lent to the system under outside pressure, and how fast, and back again.

It does not know what presses (`headway.edge.pressure` looks) and touches no memory: `release` gives the
bytes of a run to the system, `restore` makes them present again or says that it cannot. What it holds
are runs of one share without a floor, so it gets only what nobody has a claim to: the floors of others
and, above them, the mark `high` stay in the zone. Who works in the zone notices nothing before that.

A request of the zone's own comes first: as its last shrinker, dearer than all caches, the balloon takes
runs back before a request fails, if there is room outside.

`Pace` says how far to go. Pressed: a quarter of what could be given, at once, every time. Nothing but
little room: what is missing. Calm for `CALM_S`: an eighth of what is out is taken back, and only while
twice the margin stays free outside; so it goes fast and comes back slowly, and does not swing.

Source: the memory balloon of virtual machines (Waldspurger, OSDI 2002; ``virtio_balloon.c``, which also
deflates before an allocation fails).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.mm.zone import Share, Zone
from headway.core.plan import Guard, Runtime
from headway.errors import UsageError

PRESSURE: Final = "outside pressure"  # who reclaims so as to inflate: not from the balloon itself
LAST: Final = 4  # seeks: dearer than what caches have by default, and asked for all at priority 0
MOST_ORDER: Final = 9  # 2 MiB: one huge page, which would else be torn
PARTS: Final = 16  # of a zone, at least: smaller zones have smaller runs
GIVE_PART: Final = 4
TAKE_PART: Final = 8
CALM_S: Final = 10.0


def run_order(page_count: int) -> int:
    """The order of the runs that a zone of `page_count` pages gives and takes."""
    return max(0, min(MOST_ORDER, (page_count // PARTS).bit_length() - 1))


@final
class Balloon:
    """Runs that are out. Thread-safe; `_runs` and `_share` change under the guard."""

    __slots__ = (
        "_guard",
        "_release",
        "_restore",
        "_runs",
        "_share",
        "_zone",
        "order",
        "returned_runs",
    )

    def __init__(
        self,
        zone: Zone,
        runtime: Runtime,
        release: Callable[[PageRun], bool],
        restore: Callable[[PageRun], bool],
    ) -> None:
        self._zone = zone
        self._release = release
        self._restore = restore
        self._guard: Guard = runtime.guard()
        self._runs: list[PageRun] = []
        self._share: Share | None = None
        self.order = run_order(zone.page_count)
        self.returned_runs = 0  # statistics: taken back in all

    @property
    def run_pages(self) -> int:
        return 1 << self.order

    @property
    def out_pages(self) -> int:
        """Pages that are with the system now."""
        return len(self._runs) << self.order

    def spare_pages(self) -> int:
        """Pages that could be given now: free, in no floor, above `high`."""
        return max(0, self._zone.room() - self._zone.marks.high) >> self.order << self.order

    def inflate(self, page_count: int) -> int:
        """Give at least `page_count` pages to the system, or what there is; how many were given."""
        given = 0
        with self._guard:
            share = self._share or self._enter()
            while share is not None and given < page_count:
                run = share.take(self._zone.marks.high)
                if run is None:
                    break
                if not self._release(run):
                    share.free(run)
                    break
                self._runs.append(run)
                given += 1 << self.order
            self._leave_if_empty()
        return given

    def deflate(self, page_count: int) -> int:
        """Take at least `page_count` pages back, or what can be had; how many were."""
        taken = 0
        with self._guard:
            while self._runs and taken < page_count and self._restore(self._runs[-1]):
                self._give_zone(self._runs.pop())
                taken += 1 << self.order
            self._leave_if_empty()
        return taken

    def end(self) -> None:
        """Forget what is out: its memory goes with the arena."""
        with self._guard:
            while self._runs:
                self._give_zone(self._runs.pop())
            self._leave_if_empty()

    def _enter(self) -> Share | None:
        try:
            self._share = self._zone.share(self.order, 0, "balloon")
        except UsageError:  # the floors of others leave no such run, whoever gives back what
            return None
        return self._share

    def _give_zone(self, run: PageRun) -> None:
        assert self._share is not None
        self._share.free(run)
        self.returned_runs += 1

    def _leave_if_empty(self) -> None:
        """A share that holds nothing could still stand in the way of another's floor."""
        if self._share is not None and not self._runs:
            self._share.close()
            self._share = None

    # -- as the last shrinker ------------------------------------------------------------------------

    def count_objects(self, control: ScanControl) -> int:
        return 0 if control.who == PRESSURE else len(self._runs)

    def scan_objects(self, control: ScanControl) -> int:
        taken = self.deflate(control.scan_count << self.order)
        return taken >> self.order if taken else STOP

    def __repr__(self) -> str:
        return f"<Balloon of {self._zone.name!r}: {self.out_pages} pages given back, in runs of {self.run_pages}>"


@final
class Pace:
    """How far to go at each look. Units: bytes, or whatever all four figures are in."""

    __slots__ = ("_pressed_s", "calm_s", "margin")

    def __init__(self, margin: int, calm_s: float = CALM_S) -> None:
        self.margin = margin  # so much should be free outside
        self.calm_s = calm_s
        self._pressed_s: float | None = None

    def move(
        self, *, pressed: bool, headroom: int | None, spare: int, out: int, now_s: float
    ) -> int:
        """What to give (positive) or to take back (negative).

        `headroom` is what is free outside (None: nobody can tell), `spare` what could be given,
        `out` what is with the system.
        """
        missing = 0 if headroom is None else self.margin - headroom
        if pressed or missing > 0:
            self._pressed_s = now_s
            return max(missing, -(-spare // GIVE_PART) if pressed else 0, 1)
        if not out or (self._pressed_s is not None and now_s - self._pressed_s < self.calm_s):
            return 0
        step = -(-out // TAKE_PART)
        if headroom is not None:
            step = min(step, headroom - 2 * self.margin)
        return -step if step > 0 else 0
