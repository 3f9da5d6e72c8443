"""The zone's one promise: whatever happens, everybody gets the floor, at once and as whole runs."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Share, Zone
from headway.errors import NoMemory, UsageError
from headway.runtimes.threads import THREADS

MASKS = [Gfp.KERNEL, Gfp.NOWAIT, Gfp.ATOMIC, Gfp.KERNEL | Gfp.MEMALLOC]


class ZoneMachine(RuleBasedStateMachine):
    """The model is what everybody holds: a list of runs for each share."""

    @initialize(
        page_count=st.sampled_from([16, 24, 32, 47]),
        kept=st.sampled_from([0, 0, 3]),
        users=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=4),
    )
    def make(self, page_count: int, kept: int, users: list[tuple[int, int]]) -> None:
        self.zone = Zone(page_count, Watermarks(kept, kept + 1, kept + 2), runtime=THREADS)
        self.held: dict[Share, list[PageRun]] = {}
        for order, floor in users:
            self.admit(order, floor)

    @precondition(lambda self: len(self.held) < 4)
    @rule(order=st.integers(0, 3), floor=st.integers(0, 4))
    def admit(self, order: int, floor: int) -> None:
        try:
            self.held[self.zone.share(order, floor)] = []
        except (UsageError, NoMemory):
            pass

    def pick(self, number: int) -> Share:
        return list(self.held)[number % len(self.held)]

    @precondition(lambda self: self.held)
    @rule(
        number=st.integers(0, 11),
        gfp=st.sampled_from(MASKS),
        light=st.booleans(),
        count=st.sampled_from([1, 1, 2, 5, 40]),
    )
    def take(self, number: int, gfp: Gfp, light: bool, count: int) -> None:
        """As many as are to be had, up to `count`."""
        share = self.pick(number)
        for _ in range(count):
            run = share.light(gfp) if light else share.alloc(gfp)
            if run is None:
                assert len(self.held[share]) >= share.floor_count, "a floor was not honoured"
                break
            self.held[share].append(run)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 11), first=st.integers(0, 7), stride=st.sampled_from([1, 2, 3, 9]))
    def give_back(self, number: int, first: int, stride: int) -> None:
        """Every second one, say, so that what is free lies scattered."""
        share = self.pick(number)
        runs = self.held[share]
        for run in runs[first::stride]:
            share.free(run)
        del runs[first::stride]

    @precondition(lambda self: not all(self.held.values()) and self.held)
    @rule(number=st.integers(0, 11))
    def leave(self, number: int) -> None:
        idle = [share for share, runs in self.held.items() if not runs]
        share = idle[number % len(idle)]
        share.close()
        del self.held[share]

    @rule()
    def all_take_their_floors_and_put_them_back(self) -> None:
        taken: list[tuple[Share, PageRun]] = []
        for share, runs in self.held.items():
            for _ in range(share.floor_count - len(runs)):
                run = share.light(Gfp.NOWAIT)
                assert run is not None, "a floor was not honoured"
                taken.append((share, run))
        self.zone.check_invariants()
        for share, run in taken:
            share.free(run)

    @invariant()
    def no_page_is_held_twice(self) -> None:
        if hasattr(self, "zone"):
            pages = [
                page
                for runs in self.held.values()
                for run in runs
                for page in range(run.first, run.first + run.page_count)
            ]
            assert len(set(pages)) == len(pages)
            assert self.zone.stats().held_pages == len(pages)

    def teardown(self) -> None:
        if hasattr(self, "zone"):
            self.zone.check_invariants()


TestZone = ZoneMachine.TestCase
