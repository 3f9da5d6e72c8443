"""One file for each library that is watched: `MODULE`, what it waits for, and `install(patcher)`.

A patch replaces methods of the library's own classes; it decides nothing, and tells the ledger who asks,
gets, gives back and waits. An object made before the patch has no pool and is left alone. Undoing puts
back what was there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger

# The file here that patches a module; a module is patched when it is imported, or at once if it has been.
PATCHES: Final = {
    "threading": "threads",
    "queue": "queues",
    "asyncio": "tasks",
    "concurrent.futures.thread": "executors",
    "sqlalchemy": "alchemy",
    "anyio._backends._asyncio": "limiters",
    "httpcore": "responses",
    "redis.connection": "redis_pools",
    "redis.asyncio.connection": "redis_tasks",
    "psycopg_pool": "postgres",
    "asyncpg": "asyncpg_pools",
    "aiosqlite.core": "aiosqlite_threads",
    "aiohttp.connector": "aiohttp_pools",
    "urllib3": "urllib3_pools",
    "trio": "trio_limiters",
    "multiprocessing.pool": "process_pools",
    "headway.threaded": "mempools",
    "headway.budgets": "budgets",
    "headway.flow": "weighed_work",
    "headway.aio_flow": "weighed_tasks",
    "headway.integrations.executor": "kept_threads",
    "headway.core.mm.shrinker": "reclaiming",
    "headway.edge.slab": "slabs",
    "headway.checker.loading": "checking",
}

POOL: Final = "_headway_pool"  # the attribute in which a watched object keeps its pool


def pool_of(thing: Any) -> Pool | None:
    """The pool of an object, if it was made under watch."""
    return getattr(thing, POOL, None)


@final
class Patcher:
    """What was replaced, so that it can be put back."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._undo: list[Callable[[], object]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(what is there)`` in the place of an attribute."""
        own = name in vars(owner)
        original = getattr(owner, name)
        changed = make(original)
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            if hasattr(original, attribute) and callable(changed) and not isinstance(changed, type):
                setattr(changed, attribute, getattr(original, attribute))
        if not isinstance(changed, type):
            changed.__wrapped__ = original
        setattr(owner, name, changed)
        self._undo.append(
            (lambda: setattr(owner, name, original)) if own else (lambda: delattr(owner, name))
        )

    def mark(self, *kinds: Any, name: str = POOL) -> None:
        """Let objects of these classes that were made before have no pool, for the price of an attribute."""
        for kind in kinds:
            setattr(kind, name, None)
            self._undo.append(partial(delattr, kind, name))

    def on_undo(self, act: Callable[[], object]) -> None:
        self._undo.append(act)

    @property
    def done(self) -> int:
        """How much there is to undo."""
        return len(self._undo)

    def undo(self, down_to: int = 0) -> None:
        """Put back what was replaced since `done` was `down_to`, the latest first."""
        while len(self._undo) > down_to:
            self._undo.pop()()
