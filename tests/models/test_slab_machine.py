"""Slabs against a model that is a list of what is out: nothing lost, nothing twice, no emergency leaked."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.core.mm.gfp import Gfp
from headway.core.mm.slab import Slab
from headway.core.mm.watermarks import lowest_mark
from tests.core.mm.memory import MIN, PAGE
from tests.core.mm.slabs import Entitlement, Shop

MASKS = [Gfp.KERNEL, Gfp.NOWAIT, Gfp.NOIO | Gfp.HIGH, Gfp.ATOMIC, Gfp.KERNEL | Gfp.MEMALLOC]


class SlabMachine(RuleBasedStateMachine):
    """Three slabs of which two may merge, over a zone that somebody fills and empties."""

    @initialize(
        keep=st.sampled_from([0, 0, None]),
        entitlement=st.sampled_from(list(Entitlement)),
        floor=st.sampled_from([0, 4096]),
    )
    def make(self, keep: int | None, entitlement: Entitlement, floor: int) -> None:
        self.shop = Shop()
        self.shop.memory.path.reclaim.background = (
            None  # a thread of its own: here each step is ours
        )
        self.failing = False
        options: Any = {"keep": keep, "entitlement": entitlement}
        self.slabs = [
            self.shop.slab("a", 1000, **options),
            self.shop.slab("b", 1024, **options),
            self.shop.slab("c", 1500, constructor=self.construct, floor=floor, **options),
        ]
        self.out: list[tuple[Slab[memoryview], memoryview, int]] = []
        self.number = 0

    def construct(self, view: memoryview) -> None:
        if self.failing:
            raise OSError("injected")

    @rule(
        which=st.integers(0, 2), gfp=st.sampled_from(MASKS), light=st.booleans(), fail=st.booleans()
    )
    def take(self, which: int, gfp: Gfp, light: bool, fail: bool) -> None:
        slab = self.slabs[which]
        self.failing = fail
        try:
            view = slab.light(gfp) if light else slab.alloc(gfp)
        except OSError:
            return
        finally:
            self.failing = False
        if view is None:
            return
        self.number += 1
        view[:4] = self.number.to_bytes(4, "big")
        self.out.append((slab, view, self.number))
        page = slab.cache._pages[slab.cache._page_of(slab._slots[id(view)])]
        if slab.cache.spec.entitlement is Entitlement.WATERMARK:
            assert page.level >= lowest_mark(int(gfp), MIN), "an emergency page in the wrong hands"

    @precondition(lambda self: self.out)
    @rule(number=st.integers(0, 50), count=st.integers(1, 6))
    def give(self, number: int, count: int) -> None:
        for _ in range(min(count, len(self.out))):
            slab, view, mark = self.out.pop(number % len(self.out))
            assert int.from_bytes(view[:4], "big") == mark, "handed out twice"
            slab.free(view)

    @rule(which=st.integers(0, 2))
    def shrink(self, which: int) -> None:
        self.slabs[which].shrink()

    @rule(leave=st.sampled_from([0, 3, 5, 7, 9, 17, 21, 40]))
    def pressure(self, leave: int) -> None:
        self.shop.memory.fill(leave)

    @precondition(lambda self: self.shop.memory.held)
    @rule(count=st.integers(1, 40))
    def relief(self, count: int) -> None:
        self.shop.memory.release(min(count, len(self.shop.memory.held)))

    @invariant()
    def all_is_accounted_for(self) -> None:
        if hasattr(self, "shop"):
            self.shop.check(*self.slabs)
            assert sum(slab.held_count for slab in self.slabs) == len(self.out)

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        for slab, view, mark in self.out:
            assert int.from_bytes(view[:4], "big") == mark
            slab.free(view)
        for slab in self.slabs:
            slab.close()
        assert not self.shop.pages.lent
        stats = self.shop.memory.zone.stats()
        assert stats.held_pages == len(self.shop.memory.held)
        assert stats.page_count * PAGE == len(self.shop.pages.bytes)


TestSlab = SlabMachine.TestCase
