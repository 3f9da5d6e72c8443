"""A zone with floors, caches and a balloon under random use: nothing is lost, and no floor is ever missing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headway.core.mm.balloon import Balloon
from headway.core.mm.charge import Charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Share, Zone
from headway.runtimes.threads import THREADS

PAGES, MIN, HIGH = 128, 4, 8
FLOORS = ((0, 10), (2, 4))  # order and count of two users; a third has none


class BalloonMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.zone = Zone(PAGES, Watermarks(MIN, MIN + 2, HIGH), runtime=THREADS)
        self.shares = [
            *(self.zone.share(order, count, f"floor {order}") for order, count in FLOORS),
            self.zone.share(1, 0, "none"),
        ]
        self.charge = Charge(self.zone, "cache")
        self.away: set[int] = set()  # pages whose bytes the system has
        self.willing = True
        self.balloon = Balloon(self.zone, THREADS, self._release, self._restore)
        self.held: list[tuple[Share, PageRun]] = []
        self.charged = 0

    def _pages(self, run: PageRun) -> set[int]:
        return set(range(run.first, run.first + run.page_count))

    def _release(self, run: PageRun) -> bool:
        if self.willing:
            assert not self.away & self._pages(run), "given away twice"
            self.away |= self._pages(run)
        return self.willing

    def _restore(self, run: PageRun) -> bool:
        if self.willing:
            assert self.away >= self._pages(run), "taken back, and was never given"
            self.away -= self._pages(run)
        return self.willing

    @rule(which=st.integers(0, 2))
    def take(self, which: int) -> None:
        share = self.shares[which]
        run = share.alloc(Gfp.KERNEL)
        if run is None:
            assert share.held_count >= share.floor_count, "a floor was not there"
        else:
            assert not self.away & self._pages(run), "lent, with its bytes away"
            self.held.append((share, run))

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 1000))
    def free(self, index: int) -> None:
        share, run = self.held.pop(index % len(self.held))
        share.free(run)

    @rule(count=st.integers(1, 40))
    def cache(self, count: int) -> None:
        if self.charge.take(MIN, count):
            self.charged += count

    @rule(count=st.integers(1, 40))
    def drop(self, count: int) -> None:
        count = min(count, self.charged)
        self.charge.give(count)
        self.charged -= count

    @rule(count=st.integers(1, PAGES))
    def inflate(self, count: int) -> None:
        before = self.zone.room()
        given = self.balloon.inflate(count)
        assert not given or self.zone.room() >= HIGH, "it went below the mark"
        assert given == before - self.zone.room()

    @rule(count=st.integers(1, PAGES))
    def deflate(self, count: int) -> None:
        out = self.balloon.out_pages
        taken = self.balloon.deflate(count)
        assert taken >= min(count, out) or not self.willing

    @rule()
    def change_the_system_s_mind(self) -> None:
        self.willing = not self.willing

    @invariant()
    def nothing_is_lost(self) -> None:
        self.zone.check_invariants()
        assert len(self.away) == self.balloon.out_pages
        held = sum(run.page_count for _, run in self.held)
        assert self.zone.stats().held_pages == held + len(self.away)

    def teardown(self) -> None:
        self.balloon.end()
        for share, run in self.held:
            share.free(run)
        self.charge.give(self.charged)
        assert self.zone.room() == PAGES - sum(count << order for order, count in FLOORS)


TestBalloon = BalloonMachine.TestCase
TestBalloon.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
