"""Zone, slabs, reservations and budgets together on one zone, against small models, while things fail.

The models: a list of all that is out, each with the number that was written into it; for each budget how
many units are out; what was promised. In every state: no page and no unit is lost, none is handed out twice,
no page of the emergency memory is in the hands of who was not entitled to it, and whoever was promised
something can have it at once. Writes fail, constructors fail, pages cannot be looked at, waits are cancelled
or time out, and neighbours take what they can get.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Wake
from headway.core.mm.reservation import Reservations, Reserve, check_sum
from headway.core.mm.slab import Slab
from headway.core.mm.watermarks import lowest_mark
from headway.core.plan import Now, Park, Plan
from headway.errors import PoolTimeout
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import MIN, PAGE, PAGES, cached
from tests.core.mm.slabs import Entitlement, Shop
from tests.steps import Stepper, step

ENTITLED = Gfp.KERNEL | Gfp.MEMALLOC
MASKS = [Gfp.KERNEL, Gfp.NOWAIT, Gfp.NOIO | Gfp.HIGH, Gfp.ATOMIC, ENTITLED]


@dataclass(eq=False)
class Out:
    """Something that is out: its memory, the number in it, where it came from, and who pays for it."""

    view: memoryview
    number: int
    source: Slab[memoryview] | Reserve[memoryview]
    budget: int


class MemoryMachine(RuleBasedStateMachine):
    """Objects of two slabs and pages of reservations; each pays one unit of one of three budgets."""

    @initialize(
        entitlement=st.sampled_from([Entitlement.WATERMARK, Entitlement.PFMEMALLOC]),
        keep=st.sampled_from([0, None]),
        floor=st.sampled_from([0, 4096]),
        wake=st.sampled_from([Wake.FIFO, Wake.ANY_FIT]),
    )
    def make(self, entitlement: Entitlement, keep: int | None, floor: int, wake: Wake) -> None:
        self.shop = Shop()
        self.memory, self.zone = self.shop.memory, self.shop.memory.zone
        self.memory.path.reclaim.background = None  # a thread of its own: here each step is ours
        self.failing = False
        options: Any = {"keep": keep, "entitlement": entitlement}
        self.slabs = [
            self.shop.slab("a", 1000, **options),
            self.shop.slab("b", 1500, constructor=self.construct, floor=floor, **options),
        ]
        self.of: Reservations[memoryview] = Reservations(
            self.memory.path, runtime=THREADS, memory=self.shop.pages, name="r"
        )
        self.kept = self.zone.share(1, 2, name="kept")  # two pages at a time, two of those for ever
        self.runs: list[Any] = []
        self.cache = cached(self.memory, write_back=self.write)
        self.roots: list[Reserve[memoryview]] = []
        root = Budget(30, name="root", wake=wake, reclaim=self.reclaim, runtime=THREADS)
        self.budgets = [
            root,
            Budget(20, name="child", parent=root, floor=3),
            Budget(12, name="urgent", reserve=2, force=True),
        ]
        self.hoard: list[int] = []  # keys of what is cached, and paid for by the root
        self.out: list[Out] = []
        self.waiting: list[
            tuple[Stepper[bool], int]
        ] = []  # for a unit of which budget; -1: a promise
        self.number = 0

    # -- what others do -------------------------------------------------------------------------------

    def construct(self, view: memoryview) -> None:
        if self.failing:
            raise OSError("injected")

    def write(self, key: Any, value: Any) -> None:
        if self.failing:
            raise OSError("injected")

    def reclaim(self, units: int) -> int:
        """What is cached gives its units back, and its pages."""
        keys, self.hoard = self.hoard[:units], self.hoard[units:]
        for key in keys:
            self.cache.pop(key, None)
        if keys:
            self.budgets[0].free(len(keys))
        return len(keys)

    def fresh(self) -> int:
        self.number += 1
        return self.number

    # -- taking ---------------------------------------------------------------------------------------

    def taking(self, which: int, budget: int, gfp: Gfp, light: bool) -> Plan[bool]:
        """A unit first, then an object; who gets none gives the unit back."""
        entitled = bool(gfp & Gfp.MEMALLOC)
        source, may_wait = self.budgets[budget], gfp & Gfp.DIRECT_RECLAIM
        mask = Gfp.KERNEL if may_wait else Gfp.NOWAIT
        if not (yield from source.alloc_plan(1, mask, 0, "somebody", 60.0, entitled)):
            return False
        slab = self.slabs[which]
        try:
            view = slab.light(gfp) if light else slab.alloc(gfp)
        except OSError:
            view = None
        if view is None:
            source.free(1)
            return False
        self.note(view, slab, budget)
        self.check_entitled(slab, view, gfp)
        return True

    def note(self, view: memoryview, source: Any, budget: int) -> None:
        number = self.fresh()
        view[:4] = number.to_bytes(4, "big")
        self.out.append(Out(view, number, source, budget))

    def check_entitled(self, slab: Slab[memoryview], view: memoryview, gfp: Gfp) -> None:
        page = slab.cache._pages[slab.cache._page_of(slab._slots[id(view)])]
        if slab.cache.spec.entitlement is Entitlement.WATERMARK:
            assert page.level >= lowest_mark(int(gfp), MIN), "an emergency page in the wrong hands"
        elif page.level < slab.cache.least:
            assert lowest_mark(int(gfp), MIN) == 0, "an emergency page in the wrong hands"

    @rule(
        which=st.integers(0, 1), budget=st.integers(0, 2), gfp=st.sampled_from(MASKS),
        light=st.booleans(), count=st.sampled_from([1, 1, 4]), fail=st.booleans(),
    )  # fmt: skip
    def take(self, which: int, budget: int, gfp: Gfp, light: bool, count: int, fail: bool) -> None:
        self.failing = fail
        for _ in range(count):
            self.follow(step(self.taking(which, budget, gfp, light)), budget)
        self.failing = False

    def follow(self, stepper: Stepper[bool], budget: int) -> None:
        """Up to its next wait, or its end; a wait that is over already is passed."""
        while not stepper.done:
            request = stepper.request
            if isinstance(request, Park):
                if not request.ticket.woken:
                    self.waiting.append((stepper, budget))
                    return
                stepper.answer(True)
            elif isinstance(request, Now):
                stepper.answer(0.0)
            else:
                stepper.effect()

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 9))
    def wake_up(self, number: int) -> None:
        self.follow(*self.waiting.pop(number % len(self.waiting)))

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 9), late=st.booleans())
    def give_up(self, number: int, late: bool) -> None:
        stepper, budget = self.waiting.pop(number % len(self.waiting))
        try:
            if not late:
                stepper.throw(KeyboardInterrupt())
            stepper.answer(False)
            while isinstance(stepper.request, Now):
                stepper.answer(60.0)
        except (KeyboardInterrupt, PoolTimeout):
            return
        self.follow(stepper, budget)  # it was served in the last moment

    # -- promises ---------------------------------------------------------------------------------------

    def nodes(self) -> list[Reserve[memoryview]]:
        return [*self.roots, *(child for root in self.roots for child in root.children)]

    @rule(count=st.integers(0, 12), under=st.integers(0, 3))
    def reserve(self, count: int, under: int) -> None:
        parent = self.roots[under] if under < len(self.roots) else None
        stats = self.zone.stats()
        firm = PAGES - stats.dirty_pages - stats.held_pages - stats.floor_pages
        node = self.of.try_reserve(count, "n", parent)
        assert node is None or firm - count >= MIN
        if node is not None and parent is None:
            self.roots.append(node)

    @rule(count=st.integers(1, 30))
    def reserve_and_wait(self, count: int) -> None:
        def reserving() -> Plan[bool]:
            node = yield from self.of.reserve_plan(count, "n", "somebody", None, 60.0)
            self.roots.append(node)
            return True

        self.follow(step(reserving()), -1)

    @precondition(lambda self: self.roots)
    @rule(which=st.integers(0, 30), count=st.sampled_from([1, 3, 100]))
    def draw(self, which: int, count: int) -> None:
        node = self.nodes()[which % len(self.nodes())]
        for _ in range(min(count, node.limit - node.drawn)):
            self.note(node.draw(), node, -1)

    @precondition(lambda self: self.roots)
    @rule(which=st.integers(0, 30))
    def release(self, which: int) -> None:
        node = self.nodes()[which % len(self.nodes())]
        if not node.children and not node.drawn:
            node.release()
            if node.parent is None:
                self.roots.remove(node)

    # -- giving back, and pressure --------------------------------------------------------------------

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 99), count=st.integers(1, 9))
    def give(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.out))):
            out = self.out.pop(which % len(self.out))
            assert int.from_bytes(out.view[:4], "big") == out.number, "handed out twice"
            out.source.free(out.view)
            if out.budget >= 0:
                self.budgets[out.budget].free(1)

    @rule(count=st.integers(1, 8), dirty=st.booleans(), fail=st.booleans())
    def cache_something(self, count: int, dirty: bool, fail: bool) -> None:
        self.failing = fail
        for _ in range(count):
            key = self.fresh()
            try:
                if self.budgets[0].try_alloc(1):
                    self.hoard.append(key)
                    self.cache.put(key, PAGE, dirty=dirty)
            except OSError:
                pass  # the write that had to be made at once failed: it is the writer who hears of it
        self.failing = False

    @rule(count=st.integers(1, 6))
    def take_runs(self, count: int) -> None:
        for _ in range(count):
            run = self.kept.alloc(Gfp.KERNEL)
            if run is None:
                assert len(self.runs) >= self.kept.floor_count, "a floor was not honoured"
                return
            self.runs.append(run)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 9))
    def give_a_run(self, which: int) -> None:
        self.kept.free(self.runs.pop(which % len(self.runs)))

    @rule(leave=st.sampled_from([0, 3, 7, 9, 17, 21, 40]))
    def pressure(self, leave: int) -> None:
        while self.zone.room() > leave and (run := self.memory.holder.take(0)) is not None:
            self.memory.held.append(run)

    @precondition(lambda self: self.memory.held)
    @rule(count=st.integers(1, 80))
    def relief(self, count: int) -> None:
        self.memory.release(min(count, len(self.memory.held)))

    @rule(which=st.integers(0, 1), capacity=st.sampled_from([24, 30, 40]))
    def shrink_and_resize(self, which: int, capacity: int) -> None:
        self.slabs[which].shrink()
        self.budgets[0].resize(capacity)

    # -- what must hold ---------------------------------------------------------------------------------

    @invariant()
    def no_page_is_lost_and_none_is_out_twice(self) -> None:
        if not hasattr(self, "shop"):
            return
        self.shop.check(*self.slabs)
        self.cache.check_invariants()
        check_sum(self.of, self.roots)
        runs = [*self.shop.pages.lent.values(), *self.memory.held, *self.runs]
        pages = [page for run in runs for page in range(run.first, run.first + run.page_count)]
        assert len(set(pages)) == len(pages), "a page is out twice"
        assert self.zone.stats().held_pages == len(pages), "a page was lost"
        objects = sum(isinstance(out.source, Slab) for out in self.out)
        assert sum(slab.held_count for slab in self.slabs) == objects

    @invariant()
    def no_unit_is_lost_and_none_is_out_twice(self) -> None:
        if not hasattr(self, "shop"):
            return
        used = [0, 0, 0]
        for out in self.out:
            if out.budget >= 0:
                used[out.budget] += 1
        granted = [0, 0, 0]  # to those who wait, and have not woken up yet
        for stepper, index in self.waiting:
            assert isinstance(stepper.request, Park)
            granted[index] += index >= 0 and bool(stepper.request.ticket.gift)
        child = used[1] + granted[1]
        root = used[0] + granted[0] + len(self.hoard) + max(3, child)
        assert [b.used for b in self.budgets] == [root, child, used[2] + granted[2]]
        for budget in self.budgets:
            budget.check_numbers()

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        for node in self.nodes():  # the promise, once more: all of it, from everybody, at once
            self.draw(self.nodes().index(node), 1000)
        assert all(node.drawn == node.limit for node in self.nodes())
        self.reclaim(len(self.hoard))
        while self.runs:
            self.give_a_run(0)
        for _ in range(300):
            if self.out:
                self.give(0, 1000)
            elif self.roots:
                self.release(len(self.nodes()) - 1)
            elif self.waiting:
                self.memory.release(len(self.memory.held))
                self.wake_up(0)
        assert not self.waiting and not self.out, "somebody is left behind"
        assert [budget.used for budget in self.budgets] == [3, 0, 0]
        self.of.close()
        self.cache.close()
        for slab in self.slabs:
            slab.close()
        assert not self.shop.pages.lent and self.zone.stats().held_pages == len(self.memory.held)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=max(50, settings.default.max_examples // 5))
