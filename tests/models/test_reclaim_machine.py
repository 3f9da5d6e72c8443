"""Requests, charges and failing shrinkers on one zone, against sums: nothing lost, no mark passed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.core.mm.charge import Charge
from headway.core.mm.gfp import Gfp
from headway.core.mm.oom import Oom, OutOfMemory
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks, lowest_mark
from headway.core.mm.zone import Share, Zone
from headway.core.plan import Park
from headway.errors import NoMemory
from headway.runtimes.threads import THREADS
from tests.steps import step

NORETRY = Gfp.KERNEL | Gfp.NORETRY
MASKS = [Gfp.KERNEL, Gfp.NOIO, Gfp.NOWAIT, Gfp.ATOMIC, NORETRY, Gfp.KERNEL | Gfp.RETRY_MAYFAIL,
         Gfp.KERNEL | Gfp.MEMALLOC, Gfp.ATOMIC | Gfp.MEMALLOC | Gfp.NOMEMALLOC]  # fmt: skip
FAILURES = ["none", "stop", "raise count", "raise scan", "lie"]


class Cache:
    """Gives clean pages back, unless a failure is injected."""

    def __init__(self, zone: Zone) -> None:
        self.charge = Charge(zone, "cache")
        self.failure = "none"

    def count_objects(self, control: ScanControl) -> int:
        if self.failure == "raise count":
            raise OSError("count")
        return self.charge.clean

    def scan_objects(self, control: ScanControl) -> int:
        if self.failure == "raise scan":
            raise OSError("scan")
        if self.failure == "stop":
            return STOP
        if self.failure == "lie":
            return control.scan_count
        count = min(control.scan_count, self.charge.clean)
        self.charge.give(count)
        return count


class ReclaimMachine(RuleBasedStateMachine):
    zone: Zone

    @initialize(
        pages=st.integers(32, 128),
        kept=st.integers(0, 12),
        oom=st.sampled_from([*Oom, "victim"]),
    )
    def make(self, pages: int, kept: int, oom: Oom | str) -> None:
        self.zone = Zone(pages, Watermarks(kept, kept + 1, kept + 3), runtime=THREADS)
        self.path = SlowPath(self.zone, THREADS, oom if isinstance(oom, Oom) else self.victim)
        self.caches = [Cache(self.zone) for _ in range(2)]
        for number, cache in enumerate(self.caches):
            self.path.reclaim.shrinkers.register(
                cache, seeks=1 + number, batch=4, needs=Gfp.FS if number else Gfp(0)
            )
        self.shares = [self.zone.share(order, floor) for order, floor in ((0, 3), (1, 0), (2, 1))]
        self.held: list[tuple[Share, PageRun]] = []

    def victim(self, info: OutOfMemory) -> bool:
        if not self.held:
            return False
        share, run = self.held.pop(0)
        share.free(run)
        return True

    @rule(which=st.integers(0, 2), gfp=st.sampled_from(MASKS), count=st.sampled_from([1, 3, 20]))
    def ask(self, which: int, gfp: Gfp, count: int) -> None:
        share = self.shares[which]
        for _ in range(count):
            reclaimable = sum(cache.charge.clean for cache in self.caches)
            healthy = all(cache.failure == "none" for cache in self.caches)
            room, inside = self.zone.room(), share.held_count < share.floor_count
            asked = step(self.path.alloc(share, gfp, 0, "a"))
            try:
                while asked.request is not None:
                    if isinstance(asked.request, Park):
                        asked.answer(False)  # its time is over
                    else:
                        asked.effect()
            except NoMemory:
                assert self.path.oom not in (Oom.FAIL, Oom.REFUSE)
                return
            mark = lowest_mark(int(gfp), self.zone.marks.min)
            if asked.result is None:
                fits = room + reclaimable - share.page_count >= self.zone.marks.low
                full = healthy and gfp & Gfp.FS and gfp.may_park and share.order == 0
                assert not inside and not (fits and full and not self.path._refusing)
                return
            self.held.append((share, asked.result))
            assert inside or self.zone.room() >= mark, "it dipped below what its mask may"

    @rule(count=st.integers(1, 40))
    def free(self, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            share, run = self.held.pop()
            share.free(run)

    @rule(which=st.integers(0, 1), count=st.integers(1, 60))
    def cache(self, which: int, count: int) -> None:
        room = self.zone.room()
        took = self.caches[which].charge.take(self.zone.marks.low, count)
        assert took == (room - count >= self.zone.marks.low)

    @rule(which=st.integers(0, 1), count=st.integers(0, 60), wash=st.booleans())
    def change_class(self, which: int, count: int, wash: bool) -> None:
        charge = self.caches[which].charge
        if wash:
            charge.wash(min(count, charge.dirty))
        else:
            charge.soil(min(count, charge.clean))

    @rule(which=st.integers(0, 1), failure=st.sampled_from(FAILURES))
    def inject(self, which: int, failure: str) -> None:
        self.caches[which].failure = failure

    @precondition(lambda self: hasattr(self, "zone"))
    @invariant()
    def all_pages_are_accounted_for(self) -> None:
        self.zone.check_invariants()
        stats = self.zone.stats()
        assert stats.held_pages == sum(run.page_count for _, run in self.held)
        assert stats.clean_pages == sum(cache.charge.clean for cache in self.caches)
        assert stats.dirty_pages == sum(cache.charge.dirty for cache in self.caches)
        assert stats.free_pages >= 0 and self.path.reclaim.deepest <= 1
        assert stats.swap_due == (stats.clean_pages * 20 < stats.page_count)
        assert not self.zone._waiting
        pages = [
            page for _, run in self.held for page in range(run.first, run.first + run.page_count)
        ]
        assert len(set(pages)) == len(pages)


TestReclaim = ReclaimMachine.TestCase
TestReclaim.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
