"""headway: pools that cannot deadlock, buffers that cannot run out, and a tool that says which sizes are safe."""

import os as _os

from headway.budgets import Budget
from headway.buffers import BufferCache, BufferLimit
from headway.caching import ShrinkableCache
from headway.core.mm.composite import Composite
from headway.core.mm.dirty import Pacing
from headway.core.mm.faults import FailAlloc
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Ladder, Wake
from headway.core.mm.oom import Oom, OutOfMemory
from headway.core.mm.shrinker import STOP
from headway.core.mm.slab_merge import Entitlement, SlabFlag
from headway.core.mm.together import Together
from headway.devices import open_device, open_stack
from headway.edge.reservation import Reservations
from headway.edge.slab import Slab
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
from headway.flow import BudgetExecutor, BudgetQueue
from headway.publishing import publish, publish_if_possible
from headway.relief import Relief
from headway.roster import ROSTER
from headway.runtimes.finalisers import nofinalisers, put_off
from headway.runtimes.scopes import carry, effective, nofs, noio, noreclaim
from headway.spilling import SpillStore, Swap
from headway.threaded import Mempool, Zone, io_flusher, spawn
from headway.throttling import DirtyThrottle

__version__ = "0.1.0"

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

if _os.environ.get("HEADWAY_PUBLISH", "") not in ("", "0"):
    ROSTER.start_with_first(publish_if_possible)
