"""headway: pools that cannot deadlock, buffers that cannot run out, and a tool that says which sizes are safe.

What most programs want (pools, zones, masks, scopes, errors) is here after ``import headway``; the rest is
imported when it is first named, so that a program pays for devices or caches only if it has some.
"""

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Ladder, Wake
from headway.errors import (
    BlockError,
    Deadlock,
    DeviceTimeout,
    GfpConflict,
    HeadwayError,
    NoMemory,
    PoolBusy,
    PoolClosed,
    PoolTimeout,
    UsageError,
)
from headway.roster import ROSTER
from headway.runtimes.scopes import carry, effective, nofs, noio, noreclaim
from headway.threaded import Mempool, Zone, io_flusher, spawn

if TYPE_CHECKING:
    from headway.budgets import Budget
    from headway.buffers import BufferCache, BufferLimit
    from headway.caching import ShrinkableCache
    from headway.core.mm.composite import Composite
    from headway.core.mm.dirty import Pacing
    from headway.core.mm.faults import FailAlloc
    from headway.core.mm.oom import Oom, OutOfMemory
    from headway.core.mm.shrinker import STOP
    from headway.core.mm.slab_merge import Entitlement, SlabFlag
    from headway.core.mm.together import Together
    from headway.devices import open_device, open_stack
    from headway.edge.reservation import Reservations
    from headway.edge.slab import Slab
    from headway.flow import BudgetExecutor, BudgetQueue
    from headway.publishing import publish
    from headway.relief import Relief
    from headway.runtimes.finalisers import nofinalisers, put_off
    from headway.spilling import SpillStore, Swap
    from headway.throttling import DirtyThrottle

__version__ = "0.1.0"

# Where the names above are found; `tests/house/test_import.py` holds the two lists together.
_LATER = {
    "STOP": "core.mm.shrinker",
    "Budget": "budgets",
    "BudgetExecutor": "flow",
    "BudgetQueue": "flow",
    "BufferCache": "buffers",
    "BufferLimit": "buffers",
    "Composite": "core.mm.composite",
    "DirtyThrottle": "throttling",
    "Entitlement": "core.mm.slab_merge",
    "FailAlloc": "core.mm.faults",
    "Oom": "core.mm.oom",
    "OutOfMemory": "core.mm.oom",
    "Pacing": "core.mm.dirty",
    "Relief": "relief",
    "Reservations": "edge.reservation",
    "ShrinkableCache": "caching",
    "Slab": "edge.slab",
    "SlabFlag": "core.mm.slab_merge",
    "SpillStore": "spilling",
    "Swap": "spilling",
    "Together": "core.mm.together",
    "nofinalisers": "runtimes.finalisers",
    "open_device": "devices",
    "open_stack": "devices",
    "publish": "publishing",
    "put_off": "runtimes.finalisers",
}

__all__ = [
    "STOP",
    "BlockError",
    "Budget",
    "BudgetExecutor",
    "BudgetQueue",
    "BufferCache",
    "BufferLimit",
    "Composite",
    "Deadlock",
    "DeviceTimeout",
    "DirtyThrottle",
    "Entitlement",
    "FailAlloc",
    "Gfp",
    "GfpConflict",
    "HeadwayError",
    "Ladder",
    "Mempool",
    "NoMemory",
    "Oom",
    "OutOfMemory",
    "Pacing",
    "PoolBusy",
    "PoolClosed",
    "PoolTimeout",
    "Relief",
    "Reservations",
    "ShrinkableCache",
    "Slab",
    "SlabFlag",
    "SpillStore",
    "Swap",
    "Together",
    "UsageError",
    "Wake",
    "Zone",
    "carry",
    "effective",
    "io_flusher",
    "nofinalisers",
    "nofs",
    "noio",
    "noreclaim",
    "open_device",
    "open_stack",
    "publish",
    "put_off",
    "spawn",
]

if not TYPE_CHECKING:  # for a type checker every other name stays an error

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module 'headway' has no attribute {name!r}")
        found = getattr(_import_module(f"headway.{_LATER[name]}"), name)
        globals()[name] = found  # the next time it is an attribute like any other
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


def _publish_if_possible() -> None:
    from headway.publishing import publish_if_possible

    publish_if_possible()


if _os.environ.get("HEADWAY_PUBLISH", "") not in ("", "0"):
    ROSTER.start_with_first(_publish_if_possible)
