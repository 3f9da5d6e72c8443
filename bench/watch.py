"""What watching costs where nobody waits: a get and a put of each library, and a checkout of SQLAlchemy with a query.

The same loop runs watched and not, in turn; the value is what watching adds to a pair. Objects are made under watch, as
in a watched program; while nothing watches, the methods are the library's own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from bench.measure import Row, alone, compared, in_turn
from headway import watch

Loop = Callable[[int], None]
GOAL_US = 2.0
GOAL_RATIO = 1.15


def _locks() -> dict[str, Loop]:
    semaphore, elements = threading.Semaphore(4), queue.Queue[Any]()
    elements.put(object())
    lock = threading.Lock()

    def semaphores(count: int) -> None:
        for _ in range(count):
            semaphore.acquire()
            semaphore.release()

    def queues(count: int) -> None:
        for _ in range(count):
            elements.put(elements.get())

    def locks(count: int) -> None:
        for _ in range(count):
            with lock:
                pass

    return {"threading.Lock": locks, "threading.Semaphore": semaphores, "queue.Queue": queues}


def _tasks() -> dict[str, Loop]:
    semaphore, elements = asyncio.Semaphore(4), asyncio.Queue[Any]()
    elements.put_nowait(object())

    async def semaphores(count: int) -> None:
        for _ in range(count):
            await semaphore.acquire()
            semaphore.release()

    async def queues(count: int) -> None:
        for _ in range(count):
            elements.put_nowait(await elements.get())

    return {
        "asyncio.Semaphore": lambda count: asyncio.run(semaphores(count)),
        "asyncio.Queue": lambda count: asyncio.run(queues(count)),
    }


def _checkout() -> Loop:
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool)
    statement = sqlalchemy.text("select 1")

    def loop(count: int) -> None:
        for _ in range(count):
            with engine.connect() as connection:
                connection.execute(statement).scalar()

    return loop


def _timed(loop: Loop, count: int, watched: bool) -> Callable[[], float]:
    def plain() -> float:
        loop(100)
        began = time.perf_counter_ns()
        loop(count)
        return (time.perf_counter_ns() - began) / count / 1000

    def under_watch() -> float:
        with watch.watching():
            return plain()

    return under_watch if watched else plain


def run(quick: bool) -> list[Row]:
    rounds, count = (3, 500) if quick else (15, 20_000)
    rows = []
    with watch.watching():
        loops = {**_locks(), **_tasks()}
    for name, loop in loops.items():
        if name == "threading.Lock":  # the raw one is another class: an object cannot be both
            raw = threading.Lock()
            own = _raw_lock(raw)
        else:
            own = loop
        taken = in_turn(
            {"own": _timed(own, count, False), "watched": _timed(loop, count, True)}, rounds=rounds
        )
        added = [ours - own for ours, own in zip(taken["watched"], taken["own"], strict=True)]
        rows.append(alone(f"watching a pair of {name}", added, "us", goal=GOAL_US))
    if find_spec("sqlalchemy") is not None:
        with watch.watching():
            loop = _checkout()
        taken = in_turn(
            {"own": _timed(loop, count // 20, False), "watched": _timed(loop, count // 20, True)},
            rounds=rounds,
        )
        rows.append(
            compared(
                "a checkout with a query on SQLite, watched", taken["watched"], "us", "SQLAlchemy's own",
                taken["own"], goal=GOAL_RATIO,
            )
        )  # fmt: skip
    return rows


def _raw_lock(lock: Any) -> Loop:
    def locks(count: int) -> None:
        for _ in range(count):
            with lock:
                pass

    return locks
