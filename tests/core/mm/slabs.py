"""Slabs to test, over 128 pages of which 16 are `min`: objects are bytearrays, or real bytes of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headway.core.mm.pages import PageRun
from headway.core.mm.slab import Slab
from headway.core.mm.slab_caches import SlabCaches
from headway.core.mm.slab_merge import Entitlement, SlabFlag, SlabSpec
from headway.core.plan import Runtime
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import PAGE, PAGES, Memory


class Pages:
    """Bytes for a whole zone; which runs are carved just now."""

    def __init__(self) -> None:
        self.bytes = bytearray(PAGES * PAGE)
        self.lent: dict[int, PageRun] = {}

    def lend(self, run: PageRun) -> None:
        assert run.first not in self.lent, "a page is carved twice"
        self.lent[run.first] = run

    def take_back(self, run: PageRun) -> None:
        del self.lent[run.first]

    def cut(self, offset: int, size: int) -> memoryview:
        return memoryview(self.bytes)[offset : offset + size]

    def drop(self, element: memoryview) -> None:
        element.release()


class Shop:
    """A zone and the slabs made over it."""

    def __init__(self, runtime: Runtime = THREADS, *, merging: bool = True) -> None:
        self.runtime = runtime
        self.memory = Memory(runtime)
        self.pages = Pages()
        self.caches = SlabCaches(self.memory.path, runtime, self.pages, merging=merging)

    def slab(
        self,
        name: str = "s",
        size: int = 1024,
        *,
        order: int | None = 0,
        keep: int | None = 0,
        constructor: Callable[[Any], object] | None = None,
        **spec: Any,
    ) -> Slab[memoryview]:
        """By default four objects to a page, and none kept at hand, so that each step can be seen."""
        what = SlabSpec(name, size, constructed=constructor is not None, **spec)
        return Slab(
            self.caches, what, runtime=self.runtime, constructor=constructor, order=order, keep=keep
        )

    def drain_to(self, leave: int) -> None:
        self.memory.fill(leave)

    def check(self, *slabs: Slab[Any]) -> None:
        for slab in slabs:
            slab.check_invariants()
        self.memory.zone.check_invariants()


__all__ = ["Entitlement", "Pages", "Shop", "SlabFlag", "SlabSpec"]
