"""Reservations, a slab, a cache and a greedy neighbour on one zone; the model counts what was promised.

The promise: whoever reserved can draw all of it at any moment, whatever the others did, and while
writes fail.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.core.mm.gfp import Gfp
from headway.core.mm.reservation import Reservations, Reserve, check_sum
from headway.errors import UsageError
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import MIN, PAGE, PAGES, cached
from tests.core.mm.slabs import Shop


class ReservationMachine(RuleBasedStateMachine):
    """`out` is what was drawn, with the number written into it; `promised` the limits of live nodes."""

    @initialize(order=st.sampled_from([0, 0, 2]))
    def make(self, order: int) -> None:
        self.shop = Shop()
        self.memory = self.shop.memory
        self.memory.path.reclaim.background = None  # a thread of its own: here each step is ours
        self.of: Reservations[memoryview] = Reservations(
            self.memory.path, runtime=THREADS, memory=self.shop.pages, order=order, name="r"
        )
        self.slab = self.shop.slab()
        self.objects: list[memoryview] = []
        self.failing = False
        self.cache = cached(self.memory, write_back=self.write)
        self.key = 0
        self.roots: list[Reserve[memoryview]] = []
        self.out: list[tuple[Reserve[memoryview], memoryview, int]] = []

    def write(self, key: Any, value: Any) -> None:
        if self.failing:
            raise OSError("injected")

    def nodes(self) -> list[Reserve[memoryview]]:
        return [*self.roots, *(child for root in self.roots for child in root.children)]

    @rule(count=st.integers(0, 40), under=st.integers(0, 5))
    def reserve(self, count: int, under: int) -> None:
        parent = self.roots[under] if under < len(self.roots) else None
        stats, order = self.memory.zone.stats(), self.of.share.order
        firm = PAGES - stats.dirty_pages - stats.held_pages - stats.floor_pages
        try:
            node = self.of.try_reserve(count, "n", parent)
        except UsageError:
            assert count << order > PAGES - MIN
            return
        fits = firm - (count << order) >= MIN
        assert order or (node is not None) == fits, "yes or wait, by the sum alone"
        assert node is None or fits
        if node is not None and parent is None:
            self.roots.append(node)

    @precondition(lambda self: self.roots)
    @rule(which=st.integers(0, 30), count=st.sampled_from([1, 3, 100]))
    def draw(self, which: int, count: int) -> None:
        node = self.nodes()[which % len(self.nodes())]
        for _ in range(min(count, node.limit - node.drawn)):
            view = node.draw()
            self.key += 1
            view[:4] = self.key.to_bytes(4, "big")
            self.out.append((node, view, self.key))

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 99), count=st.integers(1, 9))
    def give(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.out))):
            node, view, number = self.out.pop(which % len(self.out))
            assert int.from_bytes(view[:4], "big") == number, "handed out twice"
            node.free(view)

    @precondition(lambda self: self.roots)
    @rule(which=st.integers(0, 30))
    def release(self, which: int) -> None:
        node = self.nodes()[which % len(self.nodes())]
        if not node.children:
            node.release()
            if node.parent is None and not node.limit:
                self.roots.remove(node)

    @rule(count=st.integers(1, 60), dirty=st.booleans(), fail=st.booleans())
    def cache_something(self, count: int, dirty: bool, fail: bool) -> None:
        self.failing = fail
        try:
            for _ in range(count):
                self.key += 1
                self.cache.put(self.key, PAGE, dirty=dirty)
        except OSError:
            pass  # the write that had to be made at once failed: it is the writer who hears of it
        finally:
            self.failing = False

    @rule(gfp=st.sampled_from([Gfp.KERNEL, Gfp.NOWAIT, Gfp.ATOMIC]), count=st.integers(1, 12))
    def use_the_slab(self, gfp: Gfp, count: int) -> None:
        for _ in range(count):
            found = self.slab.alloc(gfp)
            if found is not None:
                self.objects.append(found)

    @precondition(lambda self: self.objects)
    @rule(count=st.integers(1, 12))
    def empty_the_slab(self, count: int) -> None:
        for _ in range(min(count, len(self.objects))):
            self.slab.free(self.objects.pop())

    @rule(count=st.integers(1, 80))
    def neighbour_takes(self, count: int) -> None:
        for _ in range(count):
            run = self.memory.holder.take(0)
            if run is None:
                break
            self.memory.held.append(run)

    @precondition(lambda self: self.memory.held)
    @rule(count=st.integers(1, 80))
    def neighbour_gives(self, count: int) -> None:
        self.memory.release(min(count, len(self.memory.held)))

    @invariant()
    def the_sum_holds(self) -> None:
        if hasattr(self, "of"):
            self.memory.zone.check_invariants()
            self.cache.check_invariants()
            self.slab.check_invariants()
            check_sum(self.of, self.roots)

    def teardown(self) -> None:
        if not hasattr(self, "of"):
            return
        for node in self.nodes():  # the promise, once more: all of it, from everybody, at once
            self.draw(self.nodes().index(node), 1000)
        assert all(node.drawn == node.limit for node in self.nodes())
        while self.out:
            self.give(0, 1000)
        for node in reversed(self.nodes()):
            node.release()
        self.of.close()
        self.cache.close()
        while self.objects:
            self.slab.free(self.objects.pop())
        self.slab.close()
        assert not self.shop.pages.lent


TestReservations = ReservationMachine.TestCase
