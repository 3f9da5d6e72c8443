"""anyio on asyncio: tokens of its limiters (the one of its worker threads too), semaphores and locks.

A worker thread of anyio runs in its task's copied context, so what it takes the task holds.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, TypeAlias

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import Patcher
from headway.watch.patches.checkout import take_async
from headway.watch.places import keep_quiet, near

_Pools: TypeAlias = "weakref.WeakKeyDictionary[Any, Pool]"
MODULE = "anyio._backends._asyncio"


def install(patcher: Patcher) -> None:
    import anyio
    from anyio._backends import _asyncio as backend

    keep_quiet(anyio)
    # anyio's objects have slots, and no room for an attribute of ours.
    pools: _Pools = weakref.WeakKeyDictionary()
    _limiter(patcher, backend.CapacityLimiter, pools)
    value = {"Semaphore": lambda s: s.value or None, "Lock": lambda s: 1}
    for name, size in value.items():
        _primitive(patcher, getattr(backend, name), name.lower(), size, pools)


def _init(ledger: Ledger, pools: _Pools, kind: str, label: str, size: Any) -> Any:
    def make(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made = near(sys._getframe(1))
            pools[self] = ledger.pool(kind, label, size(self), made=made, of=self)

        return __init__

    return make


def _limiter(patcher: Patcher, kind: Any, pools: _Pools) -> None:
    ledger, pool_of = patcher.ledger, pools.get

    def borrow(original: Any) -> Any:
        async def acquire_on_behalf_of(self: Any, borrower: object) -> None:
            pool = pool_of(self)
            if pool is None:
                await original(self, borrower)
                return
            _follow(pool, self)

            async def get() -> object:
                await original(self, borrower)
                return borrower

            await take_async(ledger, pool, None, get)

        return acquire_on_behalf_of

    def give_back(original: Any) -> Any:
        def release_on_behalf_of(self: Any, borrower: object) -> None:
            original(self, borrower)  # it refuses who borrowed nothing
            pool = pool_of(self)
            if pool is not None:
                ledger.release(pool, borrower)

        return release_on_behalf_of

    patcher.replace(kind, "__init__", _init(ledger, pools, "tokens", "limiter", _tokens))
    patcher.replace(kind, "acquire_on_behalf_of", borrow)
    patcher.replace(kind, "release_on_behalf_of", give_back)


def _primitive(patcher: Patcher, kind: Any, name: str, size: Any, pools: _Pools) -> None:
    ledger, pool_of = patcher.ledger, pools.get

    def acquire(original: Any) -> Any:
        async def acquire(self: Any) -> None:
            pool = pool_of(self)
            if pool is None:
                await original(self)
            else:
                await take_async(ledger, pool, None, lambda: original(self))

        return acquire

    def release(original: Any) -> Any:
        def release(self: Any) -> None:
            pool = pool_of(self)
            try:
                if pool is not None:
                    ledger.release(pool)
            finally:
                original(self)

        return release

    patcher.replace(kind, "__init__", _init(ledger, pools, name, f"anyio {name}", size))
    patcher.replace(kind, "acquire", acquire)
    patcher.replace(kind, "release", release)


def _tokens(limiter: Any) -> int | None:
    total = limiter.total_tokens
    return None if total == float("inf") else int(total)


def _follow(pool: Pool, limiter: Any) -> None:
    """The number of tokens may be set at any time."""
    tokens = _tokens(limiter)
    if tokens != pool.size:
        pool.size = pool.cls.size = tokens
