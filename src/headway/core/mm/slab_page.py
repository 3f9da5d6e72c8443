"""A run of pages that was carved into objects: how large it is best, and how it was obtained.

It does not say who may have the objects (`headway.core.mm.slab_cache` does). A run should hold eight
objects and leave little over, but never be so large that a small zone has no place for it.

Source: Linux ``mm/slub.c``, ``calculate_order`` (6.12).
"""

from __future__ import annotations

from typing import Any, Final, Protocol, final

from headway.core.mm.pages import PageRun, order_for
from headway.core.mm.zone import Share

MOST_ORDER: Final = 3
ENOUGH: Final = 8  # objects of a page, if that makes it no larger than MOST_ORDER
WASTE: Final = 16  # at most this part of a page is left over


@final
class SlabPage:
    """One run of pages, carved. Changed under the cache's guard."""

    __slots__ = ("free", "level", "run")

    def __init__(self, run: PageRun, level: int, free: list[int]) -> None:
        self.run = run
        self.level = level  # what the zone kept when it was obtained, at most `min`. Units: pages
        self.free = free

    def __repr__(self) -> str:
        return f"<SlabPage at {self.run.first}: {len(self.free)} free, level {self.level}>"


@final
class Taker:
    """One request for a page; what it got it with."""

    __slots__ = ("_share", "inside", "mark", "name", "page_count")

    def __init__(self, share: Share) -> None:
        self._share = share
        self.name = share.name
        self.page_count = share.page_count
        self.mark = 0
        self.inside = False

    def take(self, mark: int) -> PageRun | None:
        run = self._share.take(mark)
        if run is not None:
            self.mark = mark
            self.inside = self._share.held_count <= self._share.floor_count
        return run


class Memory(Protocol):
    """The bytes below."""

    def lend(self, run: PageRun, /) -> None: ...
    def take_back(self, run: PageRun, /) -> None: ...
    def cut(self, offset: int, size: int, /) -> Any:
        """What lies there, to be handed out."""

    def drop(self, element: Any, /) -> None:
        """It is handed out no more."""


def choose_order(stride: int, page_bytes: int, page_count: int) -> int:
    """The least order whose runs hold eight objects and waste little; else that which wastes least."""
    least = order_for(-(-stride // page_bytes))
    most = max(least, min(MOST_ORDER, order_for(max(page_count // 16, 1))))

    def waste(order: int) -> float:
        return (page_bytes << order) % stride / (page_bytes << order)

    for order in range(least, most + 1):
        if (page_bytes << order) // stride >= ENOUGH and waste(order) <= 1 / WASTE:
            return order
    return min(range(least, most + 1), key=lambda order: (waste(order), -order))
