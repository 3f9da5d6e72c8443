"""Caches, buffers and failing writes on one zone, against dicts: never stale, never over, never lost."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headway.budgets import Budget
from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.plan import Park
from headway.errors import UsageError
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import LOW, PAGES, Memory
from tests.steps import step

KEYS = st.integers(0, 15)
PAGE = 4096


class CacheMachine(RuleBasedStateMachine):
    """`latest` is the last value put, `stored` what was written back: a dirty one is in cache or stored."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.fails = False
        self.stored: dict[Any, Any] = {}
        self.root = Budget(100 * PAGE, name="root", runtime=THREADS)
        self.tenant = Budget(30 * PAGE, parent=self.root, floor=8 * PAGE, name="tenant")
        self.units = [0, 0]  # taken of these two
        self.caches: list[ShrinkableCache[Any, Any]] = [
            ShrinkableCache(
                self.memory.path, runtime=THREADS, cost=lambda value: int(value[0]), name=f"c{n}",
                seeks=n + 1, max_bytes=None if n else 60 * PAGE, write_back=self.write,
                budget=budget,
            )
            for n, budget in enumerate((None, self.root, self.tenant))
        ]  # fmt: skip
        self.latest: dict[Any, Any] = {}
        self.dirty: dict[Any, Any] = {}  # must be in a cache or stored
        self.held: list[PageRun] = []
        self.serial = 0

    def write(self, key: Any, value: Any) -> None:
        if self.fails:
            raise OSError("injected")
        self.stored[key] = value

    def run(self, plan: Any) -> Any:
        asked = step(plan)
        while asked.request is not None:
            if isinstance(asked.request, Park):
                asked.answer(asked.request.ticket.woken)
            else:
                asked.effect()
        return asked.result

    @rule(which=st.integers(0, 2), key=KEYS, pages=st.sampled_from([0, 1, 3, 20, 200]),
          some=st.integers(0, PAGE - 1), dirty=st.booleans())  # fmt: skip
    def put(self, which: int, key: int, pages: int, some: int, dirty: bool) -> None:
        self.serial += 1
        value = (pages * PAGE + some, self.serial)
        self.latest[which, key] = value
        self.dirty.pop((which, key), None)
        cache = self.caches[which]
        try:
            kept = self.run(cache.put_plan((which, key), value, dirty, 0, "a"))
        except OSError:
            assert dirty and self.fails, "and the caller was told"
            return
        assert kept == ((which, key) in cache)
        if dirty:
            self.dirty[which, key] = value

    @rule(which=st.integers(0, 2), key=KEYS)
    def get(self, which: int, key: int) -> None:
        found = self.caches[which].get((which, key))
        assert found is None or found == self.latest[which, key]

    @rule(which=st.integers(0, 2), key=KEYS)
    def delete(self, which: int, key: int) -> None:
        self.caches[which].pop((which, key), None)
        self.dirty.pop((which, key), None)

    @rule(gfp=st.sampled_from([Gfp.KERNEL, Gfp.NOIO, Gfp.ATOMIC]), count=st.integers(1, 60))
    def take(self, gfp: Gfp, count: int) -> None:
        for _ in range(count):
            run = self.run(self.memory.path.alloc(self.memory.share, gfp, 0, "a"))
            if run is None:
                return
            self.held.append(run)

    @rule(count=st.integers(1, 60))
    def free(self, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            self.memory.share.free(self.held.pop())

    @rule(
        which=st.integers(0, 1),
        pages=st.integers(1, 30),
        gfp=st.sampled_from([Gfp.KERNEL, Gfp.NOIO]),
    )
    def take_units(self, which: int, pages: int, gfp: Gfp) -> None:
        """Had at once if what is clean, and what can be made so, comes to that much."""
        budget = (self.root, self.tenant)[which]
        try:
            taken = budget.alloc(pages * PAGE, gfp | Gfp.NORETRY)
        except UsageError:
            assert pages * PAGE > budget.most(False)
            return
        assert budget.stats().raised_count == 0
        if taken:
            self.units[which] += pages * PAGE
        elif which and not self.fails and gfp is Gfp.KERNEL:
            mine = self.units[1] + pages * PAGE
            others = max(0, self.units[1] - 8 * PAGE) + self.units[0]
            assert mine > 30 * PAGE or others + pages * PAGE > 92 * PAGE, "cache did not give way"

    @rule(which=st.integers(0, 1))
    def free_units(self, which: int) -> None:
        (self.root, self.tenant)[which].free(self.units[which])
        self.units[which] = 0

    @rule(fails=st.booleans())
    def inject(self, fails: bool) -> None:
        self.fails = fails

    @rule(which=st.integers(0, 2))
    def flush(self, which: int) -> None:
        try:
            self.caches[which].flush()
        except OSError:
            assert self.fails
        else:
            assert self.caches[which].stats().dirty == 0

    @invariant()
    def nothing_is_over_or_lost(self) -> None:
        stats = self.memory.zone.stats()
        assert stats.held_pages == len(self.held) and stats.free_pages >= 6  # what ATOMIC leaves
        assert stats.clean_pages + stats.dirty_pages <= PAGES - LOW
        for cache in self.caches:
            cache.check_invariants()
        self.memory.zone.check_invariants()
        for key, value in self.dirty.items():
            assert (
                self.caches[key[0]]._entries[key].value == value
                if key in self.caches[key[0]]
                else self.stored[key] == value
            ), "dirty data was lost"
        assert self.memory.path.reclaim.deepest <= 1
        its = self.caches[2].stats().charged + self.units[1]
        assert self.tenant.used == its, "what is charged to the zone is charged to the budget"
        above = max(its, 8 * PAGE) + self.caches[1].stats().charged + self.units[0]
        assert self.root.used == above
        assert its <= 30 * PAGE and above <= 100 * PAGE


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
