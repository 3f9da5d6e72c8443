"""What a process says of its pools, zones, caches and budgets at one moment: one JSON object.

It decides nothing and sends nothing: `headway.publishing` does, and ``headway.integrations.prometheus`` reads
the same. Each thing tells its own `stats()`; who waits and, where that is traced, who holds what is
listed beside, the oldest first. Figures of a program that runs may be a few operations apart.

Bound: at most `MOST` things of each kind and `LINES` waits and holdings are listed; `left_out` counts the rest.

Source: own.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from headway.core.mm.budget import Budget
from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.mempool import Mempool
from headway.core.units import format_size
from headway.edge.zone import Zone
from headway.errors import UsageError
from headway.roster import ROSTER

__all__ = ["FORMAT", "snapshot"]

PURPOSE: Final = "top"  # of the sockets on which snapshots are asked for

FORMAT: Final = (
    1  # another one when a field changes its meaning or goes; new fields may come any time
)
MOST: Final = 1000
LINES: Final = 200

_KINDS: Final[Mapping[str, type]] = {
    "pools": Mempool,
    "zones": Zone,
    "caches": ShrinkableCache,
    "budgets": Budget,
}


def open_roster() -> None:
    """Know of everything from now on, also of what was made before. Takes one walk over all objects, once."""
    ROSTER.open(tuple(_KINDS.values()))


def snapshot(name: str | None = None) -> dict[str, Any]:
    """What there is now; `name` is what the program calls itself.

    Waits: for guards, which are held for moments.
    """
    open_roster()
    found: dict[str, Any] = {
        "format": FORMAT,
        "pid": os.getpid(),
        "program": name or program(),
        "python": sys.version.split()[0],
        "at": time.time(),  # seconds since 1970
        "clock_s": time.monotonic(),  # for rates between two snapshots
        **{kind: [] for kind in _KINDS},
        "waits": [],
        "held": [],
        "left_out": 0,
    }
    for thing in ROSTER.all():
        kind = next(kind for kind, type_ in _KINDS.items() if isinstance(thing, type_))
        if len(found[kind]) == MOST:
            found["left_out"] += 1
            continue
        found[kind].append(_told(thing))
        if isinstance(thing, (Mempool, Budget)):
            _tell_waits(found, thing)
    for lines in ("waits", "held"):
        found[lines].sort(key=lambda line: -(line["for_s"] or 0.0))
        found["left_out"] += len(found[lines][LINES:])
        del found[lines][LINES:]
    return found


def program() -> str:
    """What this program is called, without its arguments, which may be secret."""
    first = (getattr(sys, "orig_argv", None) or [sys.executable])[0]
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    if script in ("", "-c", "-m"):
        script = first
    folder, file = os.path.split(script)
    return (os.path.basename(folder) if file == "__main__.py" else file) or "python"


def read(text: str | bytes, source: str) -> dict[str, Any]:
    """A snapshot that was sent or saved. Raises: UsageError, naming `source`, if it is none."""
    import json

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and "error" in found:
        raise UsageError(f"{source} says: {found['error']}")
    lists = (*_KINDS, "waits", "held")
    if not isinstance(found, dict) or not all(isinstance(found.get(kind), list) for kind in lists):
        raise UsageError(f"{source} is no snapshot: save one with headway top --json PID")
    if found.get("format") != FORMAT:
        raise UsageError(
            f"{source} has format {found.get('format')}, and this headway reads {FORMAT}: "
            "use the same version on both sides"
        )
    return found


def _told(thing: Any) -> dict[str, Any]:
    told = dataclasses.asdict(thing.stats())
    if isinstance(thing, Mempool):
        told["capacity"] = getattr(thing, "capacity", None)  # None: as many as the backend gives
    elif isinstance(thing, Budget):
        told["unit"] = "byte" if thing.show is format_size else ""
        told["parent"] = None if thing.parent is None else thing.parent.name
    elif isinstance(thing, ShrinkableCache):
        told["max"] = thing.max_bytes
        budget = thing._holding.budget
        told["budget"] = None if budget is None else budget.name
    return told


def _tell_waits(found: dict[str, Any], thing: Mempool[Any] | Budget) -> None:
    now_s = thing.runtime.now()
    about: Mapping[str, Any] = {"kind": thing.what, "name": thing.name}
    if thing.waiters:
        for wait in thing.waiting():
            for_s = None if wait.since_s is None else max(0.0, now_s - wait.since_s)
            found["waits"].append({**about, "who": wait.owner, "need": wait.need, "for_s": for_s})
    for holding in thing.holders():
        found["held"].append(
            {
                **about, "who": holding.owner, "count": holding.count,
                "for_s": max(0.0, now_s - holding.since_s), "in_flight": holding.in_flight,
                "where": holding.where[0] if holding.where else None,
            }
        )  # fmt: skip
