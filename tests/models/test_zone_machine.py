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

    @initialize(page_count=st.integers(8, 70), kept=st.integers(0, 6))
    def make(self, page_count: int, kept: int) -> None:
        self.zone = Zone(page_count, Watermarks(kept, kept + 1, kept + 2), runtime=THREADS)
        self.held: dict[Share, list[PageRun]] = {}

    @precondition(lambda self: len(self.held) < 4)
    @rule(order=st.integers(0, 4), floor=st.integers(0, 6))
    def admit(self, order: int, floor: int) -> None:
        try:
            self.held[self.zone.share(order, floor)] = []
        except (UsageError, NoMemory):
            pass

    @precondition(lambda self: self.held)
    @rule(data=st.data(), gfp=st.sampled_from(MASKS), light=st.booleans())
    def take(self, data: st.DataObject, gfp: Gfp, light: bool) -> None:
        share = data.draw(st.sampled_from(list(self.held)))
        run = share.light(gfp) if light else share.alloc(gfp)
        if run is not None:
            self.held[share].append(run)
        else:
            assert len(self.held[share]) >= share.floor_count, "a floor was not honoured"

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        share = data.draw(st.sampled_from([share for share, runs in self.held.items() if runs]))
        index = data.draw(st.integers(0, len(self.held[share]) - 1))
        share.free(self.held[share].pop(index))

    @precondition(lambda self: not all(self.held.values()) and self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        idle = [share for share, runs in self.held.items() if not runs]
        share = data.draw(st.sampled_from(idle))
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
