"""trio: tokens of its limiters, semaphores and locks; and its tasks, which are owners of their own.

A task of trio is awaited by the one whose nursery it is in. Its waits cannot be ended by `--break`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from headway.watch.patches import POOL, Patcher, pool_of
from headway.watch.patches.checkout import take_async
from headway.watch.places import keep_quiet, near

MODULE = "trio"


def install(patcher: Patcher) -> None:
    import trio
    from trio._core._run import GLOBAL_RUN_CONTEXT

    keep_quiet(trio)
    patcher.ledger.other_tasks(lambda: getattr(GLOBAL_RUN_CONTEXT, "task", None))
    patcher.on_undo(partial(patcher.ledger.other_tasks, None))
    for kind, name, take, give, size in (
        (trio.CapacityLimiter, "tokens", "acquire_on_behalf_of", "release_on_behalf_of", _tokens),
        (trio.Semaphore, "semaphore", "acquire", "release", lambda self: self.value or None),
        (trio.Lock, "lock", "acquire", "release", lambda self: 1),
        (trio.StrictFIFOLock, "lock", "acquire", "release", lambda self: 1),
    ):
        label = "trio limiter" if name == "tokens" else f"trio {name}"
        patcher.replace(kind, "__init__", partial(_init, patcher, name, label, size))
        patcher.replace(kind, take, partial(_take, patcher, size if name == "tokens" else None))
        patcher.replace(kind, give, partial(_give, patcher))


def _init(patcher: Patcher, kind: str, label: str, size: Any, original: Any) -> Any:
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made = near(sys._getframe(1))
        setattr(self, POOL, patcher.ledger.pool(kind, label, size(self), made=made, of=self))

    return __init__


def _take(patcher: Patcher, size: Any, original: Any) -> Any:
    async def acquire(self: Any, *borrower: Any) -> None:
        pool = pool_of(self)
        if pool is None:
            await original(self, *borrower)
            return
        if size is not None and size(self) != pool.size:  # it may be set at any time
            pool.size = pool.cls.size = size(self)

        async def get() -> Any:
            await original(self, *borrower)
            return borrower[0] if borrower else None

        await take_async(patcher.ledger, pool, None, get)

    return acquire


def _give(patcher: Patcher, original: Any) -> Any:
    def release(self: Any, *borrower: Any) -> None:
        original(self, *borrower)  # it refuses who has none
        pool = pool_of(self)
        if pool is not None:
            patcher.ledger.release(pool, *borrower)

    return release


def _tokens(limiter: Any) -> int | None:
    total = limiter.total_tokens
    return None if total == float("inf") else int(total)
