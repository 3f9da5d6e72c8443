"""What all patches of connection pools do: ask, wait if the pool is empty, take; on threads and as tasks."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import POOL
from headway.watch.patches.carried import entered
from headway.watch.patches.loops import stops_loop

_UNLIMITED = 1_000_000  # a "limit" that nobody reaches


def made(ledger: Ledger, thing: Any, label: str, size: int | None) -> Pool:
    """A pool for a connection pool that was just made."""
    if size is not None and not 0 < size < _UNLIMITED:
        size = None
    pool = ledger.pool("connections", label, size, of=thing)
    setattr(thing, POOL, pool)
    return pool


def take(ledger: Ledger, pool: Pool, timeout_s: float | None, get: Callable[[], Any]) -> Any:
    """A connection, taken on this thread."""
    owner = ledger.ask(pool, timeout_s is not None)
    crowded = pool.crowded()
    try:
        if crowded:
            stops_loop(ledger, f"a wait for {pool.cls.label}", sys._getframe(1))
            with entered(ledger, ledger.wait(pool.cls.label, pool, timeout_s, owner=owner)):
                taken = get()
        else:
            taken = get()
        ledger.grant(pool, taken, owner)  # before the others may think that there is one
    finally:
        pool.taking.pop()
    return taken


async def take_async(
    ledger: Ledger, pool: Pool, timeout_s: float | None, get: Callable[[], Awaitable[Any]]
) -> Any:
    """A connection, taken by this task."""
    owner = ledger.ask(pool, timeout_s is not None)
    crowded = pool.crowded()
    try:
        if crowded:
            with entered(ledger, ledger.wait(pool.cls.label, pool, timeout_s, owner=owner)):
                taken = await get()
        else:
            taken = await get()
        ledger.grant(pool, taken, owner)
    finally:
        pool.taking.pop()
    return taken
