"""headway's slabs: an object that is not at hand may need a page, and so reclaim: every alloc touches the maps.

A pool over a slab touches them by itself. Objects are not watched: nobody waits for one.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.watch.maps import Maps
from headway.watch.patches import Patcher
from headway.watch.patches.reclaiming import touch

MODULE = "headway.edge.slab"


def install(patcher: Patcher) -> None:
    from headway.edge.slab import Slab

    maps = Maps(patcher.ledger)

    def alloc(original: Any) -> Any:
        def alloc(self: Any, gfp: Gfp = Gfp.KERNEL) -> Any:
            touch(maps, gfp)
            return original(self, gfp)

        return alloc

    patcher.replace(Slab, "alloc", alloc)
