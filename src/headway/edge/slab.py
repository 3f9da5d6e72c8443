"""A slab with memory in it: objects as views of the zone's arena.

It decides nothing: the core's slab says which object is lent, the arena has its bytes.

Source: ``kmem_cache_create`` of Linux ``mm/slab_common.c`` (6.12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from headway.core.mm import slab as core
from headway.core.mm.pages import PageRun
from headway.core.mm.slab_merge import WORD, Entitlement, SlabFlag, SlabSpec
from headway.core.units import parse_size
from headway.edge.arena import PAGE_BYTES, Arena
from headway.edge.lending import Lending
from headway.edge.zone import Zone


class Slab(core.Slab[memoryview]):
    """Equal objects of `size`, carved from pages of `zone`: views, several to a page.

    For objects much smaller than a buffer's pages: descriptors, headers, blocks of a few KiB. Slabs of
    one size share their pages (see `decision`), unless `merge` is False or a rule forbids it; then a
    free object may come from a page that another user's request obtained, and `entitlement` says
    who may have it. `constructor` is called with every new object, and whoever frees one leaves it so.
    `floor`: so much of the zone this slab can always have. `debug` surrounds objects with red
    zones and fills free ones with poison; None does so where the zone was made with ``debug=True``.

    >>> import headway as hw
    >>> zone = hw.Zone("1MiB")
    >>> headers = hw.Slab(zone, 200, name="headers")
    >>> header = headers.alloc()
    >>> len(header)
    200
    >>> headers.free(header)
    >>> blocks = hw.Mempool(hw.Slab(zone, "4KiB", name="blocks"), min_count=4)
    >>> with blocks.lease() as block:
    ...     block[:5] = b"hello"

    Raises: UsageError if the arguments make no slab, or the zone could never give a page of it;
    NoMemory if the floor fits, but not beside what others hold just now.
    """

    __slots__ = ("zone",)

    def __init__(
        self,
        zone: Zone,
        size: int | str,
        *,
        name: str = "slab",
        align: int = WORD,
        constructor: Callable[[memoryview], object] | None = None,
        merge: bool = True,
        flags: SlabFlag = SlabFlag.NONE,
        entitlement: Entitlement = Entitlement.WATERMARK,
        floor: int | str = 0,
        debug: bool | None = None,
    ) -> None:
        if debug or (debug is None and zone._lending is not None):
            flags |= SlabFlag.DEBUG
        if not merge:
            flags |= SlabFlag.NO_MERGE
        spec = SlabSpec(
            name=name,
            size=parse_size(size, f"size of slab {name!r}"),
            align=align,
            flags=flags,
            constructed=constructor is not None,
            entitlement=entitlement,
            floor=parse_size(floor, f"floor of slab {name!r}"),
        )
        self.zone = zone
        caches = zone.slab_caches(lambda: Pages(zone._arena, zone._lending, zone._found))
        super().__init__(caches, spec, runtime=zone._runtime, constructor=constructor)
        zone.adopt(self)


@final
class Pages:
    """The bytes below all slabs of one zone; where the zone watches its memory, each page is a loan."""

    __slots__ = ("_arena", "_found", "_lending", "_lent")

    def __init__(self, arena: Arena, lending: Lending | None, found: Callable[[str], None]) -> None:
        self._arena = arena
        self._lending = lending
        self._found = found
        self._lent: dict[int, memoryview] = {}  # first byte -> the loan

    def lend(self, run: PageRun) -> None:
        if self._lending is not None:
            first = run.first * PAGE_BYTES
            size = run.page_count * PAGE_BYTES
            self._lent[first], finding = self._lending.lend(first, size)
            if finding is not None:
                self._found(finding)

    def take_back(self, run: PageRun) -> None:
        if self._lending is not None:
            first = run.first * PAGE_BYTES
            del self._lent[first]
            self._lending.take_back(first)

    def cut(self, offset: int, size: int) -> memoryview:
        return self._arena.view(offset, size)

    def drop(self, element: memoryview) -> None:
        try:
            element.release()
        except BufferError:
            pass  # an array made from it is alive; the zone's close will say so
