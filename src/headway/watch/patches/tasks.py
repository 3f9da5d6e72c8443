"""asyncio: semaphores, locks, queues; and the waits of threads that stop the loop.

A semaphore or lock that asyncio makes for itself stays as it is. Waiting is entered only where there is
something to wait for.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import sys
from functools import partial
from typing import Any

from headway.watch.ledger import Ledger
from headway.watch.patches import POOL, Patcher
from headway.watch.patches.carried import entered
from headway.watch.patches.queues import comes, done, passes
from headway.watch.places import QUIET, maker, near

MODULE = "asyncio"


def install(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(kind: str, label: str) -> Any:
        def make(original: Any) -> Any:
            def __init__(self: Any, *args: Any, **options: Any) -> None:
                original(self, *args, **options)
                frame = maker(sys._getframe(1), asyncio.BoundedSemaphore)
                if not QUIET[frame.f_code.co_filename]:
                    value = getattr(self, "_value", 1)
                    pool = ledger.pool(kind, label, value or None, made=near(frame), of=self)
                    setattr(self, POOL, pool)

            return __init__

        return make

    def acquire(original: Any, free: Any) -> Any:
        async def acquire(self: Any) -> bool:
            pool = self._headway_pool
            if pool is None:
                return bool(await original(self))
            if free(self):
                await original(self)
                ledger.enter(pool)
                return True
            owner = ledger.ask(pool)
            wait = ledger.wait(pool.cls.label, pool, owner=owner)
            with entered(ledger, wait):
                await original(self)
            ledger.grant(pool, None, owner)
            return True

        return acquire

    def release(original: Any) -> Any:
        def release(self: Any) -> None:
            pool = self._headway_pool
            try:
                if pool is not None:
                    ledger.release(pool)
            finally:
                original(self)

        return release

    patcher.mark(asyncio.Semaphore, asyncio.Lock)
    patcher.replace(asyncio.Semaphore, "__init__", init("semaphore", "asyncio semaphore"))
    patcher.replace(asyncio.Lock, "__init__", init("lock", "asyncio lock"))
    frees = {asyncio.Semaphore: _has_value, asyncio.Lock: _is_open}
    for kind, free in frees.items():
        patcher.replace(kind, "acquire", partial(acquire, free=free))
        patcher.replace(kind, "release", release)
    _queue(patcher)
    _made(patcher)


def _made(patcher: Patcher) -> None:
    owners = patcher.ledger.owners

    def create_task(original: Any) -> Any:
        def create_task(self: Any, coro: Any, **options: Any) -> Any:
            owners.start_task(options.get("context"))
            return original(self, coro, **options)

        return create_task

    patcher.replace(asyncio.base_events.BaseEventLoop, "create_task", create_task)


def _has_value(semaphore: Any) -> bool:
    return semaphore._value > 0 and not semaphore._waiters


def _is_open(lock: Any) -> bool:
    return not lock._locked and not lock._waiters


def _queue(patcher: Patcher) -> None:
    ledger = patcher.ledger

    def init(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            frame = sys._getframe(1)
            if not QUIET[frame.f_code.co_filename]:
                setattr(
                    self, POOL, ledger.pool("queue", "asyncio queue", 1, made=near(frame), of=self)
                )

        return __init__

    def get_nowait(original: Any) -> Any:
        def get_nowait(self: Any) -> Any:
            item = original(self)
            pool = self._headway_pool
            if pool is not None and not QUIET[sys._getframe(1).f_code.co_filename]:
                if not passes(ledger, pool):
                    ledger.grant(pool, item)
            return item

        return get_nowait

    def put_nowait(original: Any) -> Any:
        def put_nowait(self: Any, item: Any) -> None:
            pool = self._headway_pool
            try:
                if pool is not None and not pool.cls.road.settled:
                    comes(ledger, pool, item, self, asyncio.Queue.qsize)
            finally:
                original(self, item)

        return put_nowait

    patcher.mark(asyncio.Queue)
    patcher.replace(asyncio.Queue, "__init__", init)
    patcher.replace(asyncio.Queue, "get", _get(ledger, asyncio.Queue.get_nowait))
    patcher.replace(asyncio.Queue, "get_nowait", get_nowait)
    patcher.replace(asyncio.Queue, "put_nowait", put_nowait)
    patcher.replace(asyncio.Queue, "task_done", done)


def _get(ledger: Ledger, take: Any) -> Any:
    def get(original: Any) -> Any:
        async def get(self: Any) -> Any:
            pool = self._headway_pool
            if pool is None:
                return await original(self)
            if self._queue:
                item = take(self)  # not the one that is told
                if pool.cls.road.back or not passes(ledger, pool):
                    ledger.enter(pool, item)
                return item
            owner = ledger.ask(pool)
            if not pool.cls.road.back:
                ledger.note_wait("asyncio.Queue.get()", False, sys._getframe(0))
            wait = ledger.wait("asyncio queue", pool, owner=owner)
            with entered(ledger, wait):
                item = await original(self)
            if not passes(ledger, pool):
                ledger.grant(pool, item, owner)
            return item

        return get

    return get
