"""What lies at the bottom of a simulated stack: disks with a cache that a power cut empties, and pages of a zone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun, order_for
from headway.core.mm.zone import Share, Zone
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError

BLOCK = 512


class Disk(MemoryDevice):
    """What was not flushed may be lost, block by block, when the power goes. `fails` of the calls fail."""

    def __init__(self, size: int, chance: random.Random, fails: float) -> None:
        super().__init__(size)
        self.stable = bytearray(size)
        self.chance = chance
        self.fails = fails
        self.failed = 0

    def _may_fail(self, what: str, offset: int) -> None:
        if self.fails and self.chance.random() < self.fails:
            self.failed += 1
            raise BlockError(5, f"the simulation let a {what} fail", offset=offset)

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._may_fail("read", offset)
        super().pread_into(view, offset)

    def pwrite(self, view: memoryview, offset: int) -> None:
        try:
            self._may_fail("write", offset)
        except BlockError:
            done = self.chance.randrange(len(view) // BLOCK + 1) * BLOCK
            super().pwrite(view[:done], offset)  # a failed write may have written some
            raise
        super().pwrite(view, offset)

    def flush(self) -> None:
        self._may_fail("flush", 0)
        super().pread_into(memoryview(self.stable), 0)

    def cut(self) -> None:
        """The power goes: of what was not flushed, each block is there or not."""
        now = bytearray(self.size)
        super().pread_into(memoryview(now), 0)
        for start in range(0, self.size, BLOCK):
            if self.chance.random() < 0.5:
                self.stable[start : start + BLOCK] = now[start : start + BLOCK]
        super().pwrite(memoryview(self.stable), 0)

    def again(self) -> Disk:
        """The same bytes on a disk that works."""
        disk = Disk(self.size, self.chance, 0.0)
        view = memoryview(bytearray(self.size))
        super().pread_into(view, 0)
        MemoryDevice.pwrite(disk, view, 0)
        return disk


class Frames:
    """Buffers of a zone's pages, as a mempool's backend; one is memory of its own, told by its run."""

    def __init__(self, zone: Zone, size: int, name: str) -> None:
        self.size = size
        self.share: Share = zone.share(order_for(-(-size // zone.page_bytes)), name=name)
        self._runs: dict[int, tuple[PageRun, memoryview]] = {}

    def _lend(self, run: PageRun | None) -> memoryview | None:
        if run is None:
            return None
        view = memoryview(bytearray(self.size))
        self._runs[id(view)] = run, view
        return view

    def alloc(self, gfp: Gfp) -> Any:
        return self._lend(self.share.alloc(gfp))

    def light(self, gfp: Gfp) -> Any:
        return self._lend(self.share.light(gfp))

    def free(self, element: memoryview) -> None:
        run, view = self._runs.pop(id(element))
        assert view is element
        element.release()  # whoever still looks at it fails
        self.share.free(run)

    def on_room(self, call: Callable[[], object]) -> None:
        self.share.on_room(call)

    def off_room(self, call: Callable[[], object]) -> None:
        self.share.off_room(call)
