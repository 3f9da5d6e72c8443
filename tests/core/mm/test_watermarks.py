"""The marks of a zone, and the table of who may dip below min: T3.1."""

from __future__ import annotations

import pytest

from headway.core.mm.gfp import Gfp
from headway.core.mm.watermarks import Watermarks, is_refused, lowest_mark
from headway.errors import UsageError

MIN = 1000
NOMEM = Gfp.NOMEMALLOC


@pytest.mark.parametrize(
    ("gfp", "victim", "mark"),
    [
        (Gfp.KERNEL, False, 1000),
        (Gfp.NOIO, False, 1000),
        (Gfp.NOFS, False, 1000),
        (Gfp.NOWAIT, False, 1000),  # being unable to wait is no right by itself
        (Gfp.KERNEL | Gfp.HIGH, False, 500),
        (Gfp.ATOMIC, False, 375),
        (Gfp.KERNEL, True, 500),
        (Gfp.KERNEL | Gfp.HIGH, True, 250),
        (Gfp.ATOMIC, True, 188),  # 375 - 375 // 2
        (Gfp.KERNEL | Gfp.MEMALLOC, False, 0),
        (Gfp.ATOMIC | Gfp.MEMALLOC, False, 0),
        (Gfp.KERNEL | Gfp.MEMALLOC | NOMEM, False, 1000),
        (Gfp.KERNEL | NOMEM, True, 1000),
        (Gfp.KERNEL | Gfp.HIGH | NOMEM, True, 500),
        (Gfp.ATOMIC | NOMEM, False, 500),
        (Gfp.ATOMIC | Gfp.MEMALLOC | NOMEM, False, 500),
    ],
)
def test_t3_1_who_may_dip_below_min_to_the_boundary_page(gfp: Gfp, victim: bool, mark: int) -> None:
    assert lowest_mark(int(gfp), MIN, victim=victim) == mark
    for order in (0, 3):
        size = 1 << order
        assert not is_refused(mark + size, order, mark), "exactly the marked pages may remain"
        assert is_refused(mark + size - 1, order, mark), "one page fewer may not"


@pytest.mark.parametrize(
    ("min_pages", "atomic"), [(0, 0), (1, 1), (2, 1), (3, 2), (5, 3), (7, 3), (9, 4)]
)
def test_t3_1_integer_arithmetic_in_the_order_of_the_table(min_pages: int, atomic: int) -> None:
    assert lowest_mark(int(Gfp.ATOMIC), min_pages) == atomic


@pytest.mark.parametrize(
    ("zone_mib", "min_kib"),
    [(1, 128), (8, 360), (64, 1024), (1024, 4096), (1 << 20, 131072), (8 << 20, 262144)],
)
def test_min_is_the_root_of_the_size(zone_mib: int, min_kib: int) -> None:
    assert Watermarks.of(zone_mib * 256, 4096).min * 4 == min_kib


def test_the_gap_is_a_quarter_of_min_or_a_thousandth_of_the_zone() -> None:
    small = Watermarks.of(64 * 256, 4096)
    assert (small.min, small.low, small.high) == (256, 320, 384)
    large = Watermarks.of(64 << 18, 4096)
    assert (
        large.low - large.min == large.high - large.low == max(large.min // 4, (64 << 18) // 1000)
    )
    assert large.low - large.min > large.min // 4


@pytest.mark.parametrize("page_count", range(1, 64))
def test_a_tiny_zone_keeps_at_most_an_eighth(page_count: int) -> None:
    marks = Watermarks.of(page_count, 4096)
    assert marks.min <= page_count // 8
    assert marks.high <= page_count


def test_a_given_minimum_wins_and_zero_keeps_nothing() -> None:
    assert Watermarks.of(1000, 4096, 400).min == 400
    assert Watermarks.of(1000, 4096, 0) == Watermarks(0, 0, 0)
    assert not is_refused(1, 0, 0)
    assert is_refused(0, 0, 0)


@pytest.mark.parametrize("min_pages", [-1, 100, 200])
def test_refuses_a_minimum_that_leaves_nothing(min_pages: int) -> None:
    with pytest.raises(UsageError, match="0 to 99"):
        Watermarks.of(100, 4096, min_pages)


@pytest.mark.parametrize("marks", [(-1, 0, 0), (2, 1, 3), (1, 3, 2)])
def test_refuses_marks_that_fall(marks: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="must not fall"):
        Watermarks(*marks)
