"""How much of a zone is kept back, and which request may dip how far into that.

It does not count pages and grants nothing: `headway.core.mm.zone` asks it for a mark and compares.

Three marks, in pages. A first, light try must leave `low`; a heavy one must leave `min`;
background reclaim works until `high`. Below `min` lives what urgent requests may still have: HIGH
a half of it; HIGH and unable to wait, five eighths; MEMALLOC all. NOMEMALLOC takes all of these
rights away except that of HIGH. Being unable to wait is no right by itself. Shares are rounded in
whole pages, in this order.

The comparison is the kernel's, with ``<=`` and all but one page of the request counted as
unusable, so that exactly the marked pages may remain: `is_refused`.

Source: Linux ``mm/page_alloc.c`` (6.12): ``__zone_watermark_ok``, ``__setup_per_zone_wmarks``.
Departure: an arena may be far smaller than a machine, so `min` is never more than an eighth of it
(the formula's own share at 1 MiB, where the kernel's lower clamp begins to bite).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Final, final

from headway.core.mm.gfp import DIRECT_RECLAIM, Gfp
from headway.errors import UsageError

SCALE_FACTOR: Final = 10  # in 1/10000 of the zone: the least gap between two marks
LEAST_MIN_KIB: Final = 128
MOST_MIN_KIB: Final = 262144

_HIGH: Final = int(Gfp.HIGH)
_MEMALLOC: Final = int(Gfp.MEMALLOC)
_NOMEMALLOC: Final = int(Gfp.NOMEMALLOC)


@final
@dataclass(frozen=True, slots=True)
class Watermarks:
    """The marks of one zone. Units: pages."""

    min: int
    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.low <= self.high:
            raise UsageError(
                f"watermarks min={self.min} low={self.low} high={self.high}: "
                "they must not be negative, and must not fall"
            )

    @staticmethod
    def of(page_count: int, page_bytes: int, min_pages: int | None = None) -> Watermarks:
        """The marks for a zone of `page_count` pages; `min_pages` overrides the formula.

        With ``min_pages=0`` all marks are 0: the whole zone may be handed out, and nothing is kept
        back for urgent requests.
        Raises: UsageError if `min_pages` leaves nothing to hand out.
        """
        if min_pages is None:
            zone_kib = page_count * page_bytes // 1024
            min_kib = min(max(isqrt(zone_kib * 16), LEAST_MIN_KIB), MOST_MIN_KIB)
            min_pages = min(min_kib * 1024 // page_bytes, page_count // 8)
        if not 0 <= min_pages < page_count:
            raise UsageError(
                f"a minimum of {min_pages} pages in a zone of {page_count}: "
                f"it must be 0 to {page_count - 1}"
            )
        gap = max(min_pages // 4, page_count * SCALE_FACTOR // 10000) if min_pages else 0
        low = min(min_pages + gap, page_count)
        return Watermarks(min_pages, low, min(low + gap, page_count))


def lowest_mark(gfp: int, min_pages: int, *, victim: bool = False) -> int:
    """How many pages a heavy try with this mask must leave. Units: pages.

    `victim`: the request is made on behalf of something that is being ended to free its memory.
    """
    mark = min_pages
    if gfp & _HIGH:
        mark -= mark // 2
    if gfp & _NOMEMALLOC:
        return mark
    if gfp & _MEMALLOC:
        return 0
    if gfp & _HIGH and not gfp & DIRECT_RECLAIM:
        mark -= mark // 4
    if victim:
        mark -= mark // 2
    return mark


def is_refused(free_pages: int, order: int, mark: int) -> bool:
    """True if a run of `order` out of `free_pages` would leave less than `mark`. Units: pages."""
    return free_pages - ((1 << order) - 1) <= mark
