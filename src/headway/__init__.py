"""headway: pools that cannot deadlock, buffers that cannot run out, and a tool that says which sizes are safe."""

import os as _os

from headway.budgets import Budget
from headway.caching import ShrinkableCache
from headway.core.mm.composite import Composite
from headway.core.mm.faults import FailAlloc
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Ladder, Wake
from headway.core.mm.oom import Oom, OutOfMemory
from headway.core.mm.shrinker import STOP
from headway.core.mm.together import Together
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
from headway.roster import ROSTER
from headway.runtimes.scopes import carry, effective, nofs, noio, noreclaim
from headway.threaded import Mempool, Zone, io_flusher, open_device, open_stack, spawn

__version__ = "0.1.0"

__all__ = [
    "STOP",
    "BlockError",
    "Budget",
    "BudgetExecutor",
    "BudgetQueue",
    "Composite",
    "Deadlock",
    "DeviceTimeout",
    "FailAlloc",
    "Gfp",
    "GfpConflict",
    "HeadwayError",
    "Ladder",
    "Mempool",
    "NoMemory",
    "Oom",
    "OutOfMemory",
    "PoolBusy",
    "PoolClosed",
    "PoolTimeout",
    "ShrinkableCache",
    "Together",
    "UsageError",
    "Wake",
    "Zone",
    "carry",
    "effective",
    "io_flusher",
    "nofs",
    "noio",
    "noreclaim",
    "open_device",
    "open_stack",
    "publish",
    "spawn",
]

if _os.environ.get("HEADWAY_PUBLISH", "") not in ("", "0"):
    ROSTER.start_with_first(publish_if_possible)
