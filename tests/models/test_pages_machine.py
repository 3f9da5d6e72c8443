"""The buddy allocator against a model: a list of pages, and a search for an aligned free block."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from headway.core.mm.pages import PageAllocator, PageRun
from headway.errors import UsageError


class Model:
    """Which pages are in use. A run is any aligned block of free pages: no lists, no merging."""

    def __init__(self, page_count: int) -> None:
        self.used = [False] * page_count

    def is_free(self, run: PageRun) -> bool:
        end = run.first + run.page_count
        return (
            run.first % run.page_count == 0
            and end <= len(self.used)
            and not any(self.used[run.first : end])
        )

    def has(self, order: int) -> bool:
        return any(
            self.is_free(PageRun(first, order)) for first in range(0, len(self.used), 1 << order)
        )

    def mark(self, run: PageRun, used: bool) -> None:
        self.used[run.first : run.first + run.page_count] = [used] * run.page_count


class PagesMachine(RuleBasedStateMachine):
    runs: Bundle[PageRun] = Bundle("runs")

    @initialize(page_count=st.integers(1, 70))
    def make(self, page_count: int) -> None:
        self.pages = PageAllocator(page_count)
        self.model = Model(page_count)

    @rule(target=runs, order=st.integers(0, 4))
    def alloc(self, order: int) -> PageRun | MultipleResults[PageRun]:
        if order > self.pages.max_order:
            with pytest.raises(UsageError):
                self.pages.alloc(order)
            return multiple()
        expected = self.model.has(order)
        run = self.pages.alloc(order)
        assert (run is not None) == expected, "a run was missed, or taken from where none was"
        if run is not None:
            assert self.model.is_free(run)
            self.model.mark(run, True)
            return run
        return multiple()

    @rule(run=consumes(runs))
    def free(self, run: PageRun) -> None:
        self.pages.free(run)
        self.model.mark(run, False)
        with pytest.raises(UsageError):
            self.pages.free(run)

    @rule(order=st.integers(0, 4), count=st.integers(1, 8))
    def foresee(self, order: int, count: int) -> None:
        """What `can_serve` promises is what asking in turn would get."""
        got: list[PageRun] = []
        foreseen = self.pages.can_serve({order: count})
        while (
            order <= self.pages.max_order and len(got) < count and (run := self.pages.alloc(order))
        ):
            got.append(run)
        assert foreseen == (len(got) == count)
        for run in got:
            self.pages.free(run)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "pages"):
            self.pages.check_invariants()
            assert self.pages.free_pages == self.model.used.count(False)


TestPages = PagesMachine.TestCase
