"""The buddy allocator: splitting, merging, odd totals, exact frees, the bound on waste."""

from __future__ import annotations

import pytest

from headway.core.mm.pages import PageAllocator, PageRun, order_for
from headway.errors import UsageError


def test_splits_the_smallest_block_that_will_do_and_merges_back() -> None:
    pages = PageAllocator(16)
    assert pages.alloc(0) == PageRun(0, 0)
    assert pages.alloc(1) == PageRun(2, 1)
    assert pages.alloc(3) == PageRun(8, 3)
    assert pages.largest_free_order == 2
    pages.check_invariants()
    for run in (PageRun(2, 1), PageRun(8, 3), PageRun(0, 0)):
        pages.free(run)
        pages.check_invariants()
    assert pages.largest_free_order == 4
    assert pages.free_pages == 16
    assert pages.alloc(4) == PageRun(0, 4)
    assert pages.alloc(0) is None


@pytest.mark.parametrize("page_count", [1, 2, 3, 7, 12, 100, 1023, 1024, 1025])
def test_any_total_hands_out_every_page_once(page_count: int) -> None:
    pages = PageAllocator(page_count)
    pages.check_invariants()
    runs = []
    while (run := pages.alloc(0)) is not None:
        runs.append(run)
    assert sorted(run.first for run in runs) == list(range(page_count))
    assert pages.free_pages == 0
    pages.check_invariants()
    for run in runs:
        pages.free(run)
    pages.check_invariants()
    assert pages.largest_free_order == pages.max_order == page_count.bit_length() - 1
    assert (pages.alloc_count, pages.free_count) == (page_count, page_count)


def test_a_total_of_thirteen_is_blocks_of_eight_four_and_one() -> None:
    pages = PageAllocator(13)
    assert pages.alloc(3) == PageRun(0, 3)
    assert pages.alloc(2) == PageRun(8, 2)
    assert pages.alloc(0) == PageRun(12, 0)
    assert pages.alloc(0) is None


def test_refuses_frees_that_are_not_exact_and_changes_nothing() -> None:
    pages = PageAllocator(16)
    run = pages.alloc(2)
    assert run == PageRun(0, 2)
    for wrong, told in [
        (PageRun(0, 1), "taken with order 2"),
        (PageRun(1, 0), "not in use"),
        (PageRun(4, 2), "not in use"),
        (PageRun(16, 0), "pages 0 to 15"),
        (PageRun(-1, 0), "pages 0 to 15"),
    ]:
        with pytest.raises(UsageError, match=told):
            pages.free(wrong)
        pages.check_invariants()
    pages.free(run)
    with pytest.raises(UsageError, match="freed before"):
        pages.free(run)
    assert pages.free_pages == 16


@pytest.mark.parametrize("order", [-1, 4, 64])
def test_refuses_orders_that_can_never_be_had(order: int) -> None:
    with pytest.raises(UsageError, match="orders are 0 to 3"):
        PageAllocator(15).alloc(order)


def test_an_allocator_over_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        PageAllocator(0)


def test_the_bound_one_page_in_each_block_refuses_the_order_and_one_fewer_does_not() -> None:
    pages = PageAllocator(64)
    runs = [pages.alloc(0) for _ in range(64)]
    for run in runs:
        assert run is not None
        if run.first % 8:
            pages.free(run)
    assert pages.free_pages == 56
    assert pages.alloc(3) is None  # 8 pages in use out of 64 are enough
    pages.free(PageRun(40, 0))
    assert pages.alloc(3) == PageRun(40, 3)


def test_equal_requests_never_fragment() -> None:
    pages = PageAllocator(64)
    held = [pages.alloc(2) for _ in range(16)]
    for step in range(200):
        freed = held.pop(step * 7 % 16)
        assert freed is not None
        pages.free(freed)
        held.append(pages.alloc(2))
        assert held[-1] is not None


def test_can_serve_counts_runs_and_not_pages() -> None:
    pages = PageAllocator(16)
    run = pages.alloc(0)
    assert run is not None  # free: 1 + 2 + 4 + 8
    assert pages.can_serve({3: 1, 2: 1, 1: 1, 0: 1})
    assert pages.can_serve({2: 3, 1: 1})
    assert not pages.can_serve({3: 1, 2: 2})
    assert not pages.can_serve({0: 16})
    assert not pages.can_serve({4: 1})
    assert not pages.can_serve({5: 1})
    assert pages.can_serve({5: 0})
    pages.free(run)
    assert pages.can_serve({4: 1})


def test_order_for_rounds_up() -> None:
    assert [order_for(count) for count in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 0, 1, 2, 2, 3, 3, 4]


def test_look() -> None:
    pages = PageAllocator(16)
    assert PageRun(0, 3).page_count == 8
    pages.alloc(3)
    assert repr(pages) == "<PageAllocator 8 of 16 pages free, 1 runs in use, largest free order 3>"
