"""Which pages are free, and which run of them serves a request: a buddy allocator of numbers.

It holds no memory (`headway.edge.arena` maps a page number to bytes), takes no lock (its owner
calls it under its own guard), and does not judge who may have the pages (`headway.core.mm.zone`
does).

A block of order k is 2**k pages starting at a multiple of 2**k; its buddy differs in bit k alone.
A block is split only if no smaller free block will do, and merged whenever its buddy is free too.
So no two free buddies ever coexist, and every operation costs at most one step per order: O(log
n). A total that is no power of two is the sum of its binary digits: the blocks of those orders, at
their places.

Bound: internal waste is below one half (a request is rounded up to a power of two). External
waste: a request of order k fails only if each of the total/2**k aligned blocks has a page in use,
and total/2**k scattered pages can do that. No allocator that cannot move its blocks escapes:
against requests of powers of two up to n, with at most M pages in use, any policy needs
M*(log2(n)/2 + 1) - n + 1 pages in the worst case (Robson). Equal requests never fragment: all
blocks stay whole.

Source: Knowlton, CACM 8(10), 1965; Robson, JACM 18(3), 1971; Linux ``mm/page_alloc.c`` (no migrate
types here). Departure: free blocks are kept by number in mappings, so a buddy is found without a
page array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, final

from headway.errors import UsageError


class PageRun(NamedTuple):
    """2**order pages, from page number `first`."""

    first: int
    order: int

    @property
    def page_count(self) -> int:
        return 1 << self.order


def order_for(page_count: int) -> int:
    """The smallest order whose runs have at least `page_count` pages."""
    return max(page_count - 1, 0).bit_length()


@final
class PageAllocator:
    """The pages 0 .. page_count - 1. The owner holds its guard around each call."""

    __slots__ = (
        "_free",
        "_live",
        "_nonempty",
        "alloc_count",
        "free_count",
        "free_pages",
        "page_count",
    )

    def __init__(self, page_count: int) -> None:
        if page_count < 1:
            raise UsageError(f"page allocator over {page_count} pages: it needs at least 1")
        self.page_count = page_count
        self.free_pages = page_count
        self.alloc_count = 0
        self.free_count = 0
        # Free blocks of each order, last freed last; a mapping, as a merge removes from the middle.
        self._free: list[dict[int, None]] = [{} for _ in range(page_count.bit_length())]
        self._nonempty = 0  # bit k: there is a free block of order k
        self._live: dict[int, int] = {}  # first page of each run in use -> its order
        first = 0
        for order in reversed(range(page_count.bit_length())):
            if page_count >> order & 1:
                self._put(first, order)
                first += 1 << order

    @property
    def max_order(self) -> int:
        """The largest order that an empty allocator can serve."""
        return len(self._free) - 1

    @property
    def largest_free_order(self) -> int:
        """The largest order that can be served now; -1 if no page is free."""
        return self._nonempty.bit_length() - 1

    def alloc(self, order: int) -> PageRun | None:
        """Take a run of 2**order pages, from the smallest free block that has it; None if none has.

        Raises: UsageError if the order is negative, or larger than an empty allocator could serve.
        """
        if not 0 <= order < len(self._free):
            raise UsageError(
                f"a run of order {order} can never be had from {self.page_count} pages; "
                f"orders are 0 to {self.max_order}"
            )
        fitting = self._nonempty >> order
        if not fitting:
            return None
        found = order + (fitting & -fitting).bit_length() - 1
        blocks = self._free[found]
        first, _ = blocks.popitem()
        if not blocks:
            self._nonempty &= ~(1 << found)
        while found > order:
            found -= 1
            self._put(first + (1 << found), found)  # keep the lower half, give the upper one back
        self._live[first] = order
        self.free_pages -= 1 << order
        self.alloc_count += 1
        return PageRun(first, order)

    def free(self, run: PageRun) -> None:
        """Give a run back, exactly as it was taken, and merge it with its buddies.

        Raises: UsageError if the run is not in use as such (freed twice, foreign, or another size).
        """
        first, order = run
        if self._live.get(first) != order:
            raise UsageError(self._refusal(run))
        del self._live[first]
        self.free_pages += 1 << order
        self.free_count += 1
        top = len(self._free) - 1
        while order < top:
            buddy = first ^ (1 << order)
            blocks = self._free[order]
            if buddy not in blocks:
                break
            del blocks[buddy]
            if not blocks:
                self._nonempty &= ~(1 << order)
            first &= buddy
            order += 1
        self._put(first, order)

    def can_serve(self, demand: Mapping[int, int]) -> bool:
        """True if ``demand[order]`` runs of each order could be had at once, from what is free now.

        Exact, since blocks of powers of two pack without loss: it is so if, for every order k, the
        demand of orders >= k fits into the free blocks of orders >= k.
        """
        if any(count and order >= len(self._free) for order, count in demand.items()):
            return False
        spare = 0
        for order in reversed(range(len(self._free))):
            spare = 2 * spare + len(self._free[order]) - demand.get(order, 0)
            if spare < 0:
                return False
        return True

    def _put(self, first: int, order: int) -> None:
        self._free[order][first] = None
        self._nonempty |= 1 << order

    def _refusal(self, run: PageRun) -> str:
        first, order = run
        found = self._live.get(first)
        if found is not None:
            return f"free of order {order} at page {first}: it was taken with order {found}"
        if not 0 <= first < self.page_count:
            return f"free of page {first}: this allocator has pages 0 to {self.page_count - 1}"
        return f"free of the run at page {first}: not in use; it was freed before, or never taken"

    def __repr__(self) -> str:
        return (
            f"<PageAllocator {self.free_pages} of {self.page_count} pages free, "
            f"{len(self._live)} runs in use, largest free order {self.largest_free_order}>"
        )

    def check_invariants(self) -> None:
        """Each page is free once or in use once, blocks are aligned, free buddies are merged."""
        blocks = [(first, order, False) for first, order in self._live.items()]
        for order, free in enumerate(self._free):
            assert bool(free) == bool(self._nonempty >> order & 1), "a bit and its list disagree"
            for first in free:
                blocks.append((first, order, True))
                whole = (first & ~(1 << order)) + (2 << order) <= self.page_count
                assert not (whole and first ^ (1 << order) in free), (
                    "two free buddies were not merged"
                )
        end = 0
        for first, order, _ in sorted(blocks):
            assert first % (1 << order) == 0, "a block is not aligned to its size"
            assert first == end, "pages overlap or are missing"
            end = first + (1 << order)
        assert end == self.page_count, "the blocks do not cover all pages"
        assert self.free_pages == sum(1 << order for _, order, free in blocks if free)
        assert self.alloc_count - self.free_count == len(self._live)
