"""One thread, nobody waits: what a pair of alloc and free costs, beside what a program would use instead.

Every side is written as its documentation shows it, attribute look-ups included. "Features" are
hooks, traces, poison, injected faults, closing, resizing, time limits, masks and scopes: all there,
all off.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import headway
from bench.measure import Loop, Row, compared, pairs_ns
from headway import Gfp

NOTE = "no other thread: says nothing about waiting, or about what the backend itself costs"
PEERS = {
    "queue.LifoQueue": 0.13,
    "threading.Semaphore": 0.15,
    "SQLAlchemy QueuePool": 0.035,
    "queue.SimpleQueue": 4.5,
}
OVER_BACKEND: dict[str, float | None] = dict.fromkeys(PEERS) | {"queue.SimpleQueue": 8.0}


def run(quick: bool) -> list[Row]:
    cases: dict[str, Loop] = {
        "fixed": _pool_loop(_fixed()),
        "backend": _pool_loop(_backed()),
        "reserve": _pool_loop(_empty_backed()),
        "lease": _lease_loop(),
        "all was on": _pool_loop(_switched_on_and_off()),
        "watched": _pool_loop(_watched()),
        "traced": _pool_loop(_traced()),
        "nowait": _nowait_loop(),
        "heavy": _pool_loop(_only_heavy()),
        **_queues(),
        **_semaphores(),
    }
    if find_spec("sqlalchemy") is not None:
        cases["SQLAlchemy QueuePool"] = _sqlalchemy_loop()
    rounds, round_s = (3, 0.002) if quick else (15, 0.03)
    took = pairs_ns(cases, rounds=rounds, round_s=round_s)

    def row(case: str, ours: str, peer: str, goal: float | None, note: str = NOTE) -> Row:
        return compared(case, took[ours], "ns", peer, took[peer], goal=goal, note=note)

    peers = [peer for peer in PEERS if peer in cases]
    rows = [row("pair, fixed elements", "fixed", peer, PEERS[peer]) for peer in peers]
    rows += [row("pair, over a backend", "backend", peer, OVER_BACKEND[peer]) for peer in peers]
    rows += [
        row("pair, backend fails, from the reserve", "reserve", "queue.LifoQueue", None),
        row("with lease()", "lease", "with Semaphore", 0.4),
        row("pair, every feature was on and is off", "all was on", "fixed", 1.03),
        row("pair, watched by an empty hook", "watched", "fixed", None),
        row("pair, holders traced", "traced", "fixed", None),
        row("NOWAIT pair, by the slow path's plan", "nowait", "queue.LifoQueue", 1.0),
        row("pair, heavy try by the plan", "heavy", "queue.LifoQueue", 1.0),
    ]
    return rows


def _fixed() -> Any:
    return headway.Mempool.of(range(4))


def _backed() -> Any:
    """A backend whose light try always gives: it costs one call of an empty function each way."""
    return headway.Mempool(
        alloc=lambda gfp: 1, free=lambda element: None, light=lambda gfp: 1, min_count=4
    )


def _empty_backed() -> Any:
    """The light try never gives: every element comes from the reserve, which is over half full."""
    return headway.Mempool(
        alloc=lambda gfp: 1, free=lambda element: None, light=lambda gfp: None, min_count=4
    )


def _only_heavy() -> Any:
    """No light try, and a reserve below half: the plan asks the allocator, and the reserve fills up."""
    return headway.Mempool(alloc=lambda gfp: 1, free=lambda element: None, min_count=0)


def _switched_on_and_off() -> Any:
    pool = _fixed()

    def hook(event: object) -> None: ...

    pool.watch(hook)
    pool.trace()
    pool.inject(lambda: False)
    pool.free(pool.alloc())
    pool.unwatch(hook)
    pool.trace(False)
    pool.inject(None)
    return pool


def _watched() -> Any:
    pool = _fixed()
    pool.watch(lambda event: None)
    return pool


def _traced() -> Any:
    pool = _fixed()
    pool.trace()
    return pool


def _pool_loop(pool: Any) -> Loop:
    def loop(count: int) -> None:
        for _ in range(count):
            pool.free(pool.alloc())

    return loop


def _lease_loop() -> Loop:
    pool = _fixed()

    def loop(count: int) -> None:
        for _ in range(count):
            with pool.lease():
                pass

    return loop


def _nowait_loop() -> Loop:
    pool = _fixed()
    nowait = Gfp.NOWAIT

    def loop(count: int) -> None:
        for _ in range(count):
            pool.free(pool.alloc(nowait))

    return loop


def _queues() -> dict[str, Loop]:
    def loop_of(make: Callable[[], Any]) -> Loop:
        elements = make()
        for number in range(4):
            elements.put(number)

        def loop(count: int) -> None:
            for _ in range(count):
                elements.put(elements.get())

        return loop

    return {
        "queue.LifoQueue": loop_of(queue.LifoQueue),
        "queue.SimpleQueue": loop_of(queue.SimpleQueue),
    }


def _semaphores() -> dict[str, Loop]:
    semaphore = threading.Semaphore(4)

    def pair(count: int) -> None:
        for _ in range(count):
            semaphore.acquire()
            semaphore.release()

    def scoped(count: int) -> None:
        for _ in range(count):
            with semaphore:
                pass

    return {"threading.Semaphore": pair, "with Semaphore": scoped}


def _sqlalchemy_loop() -> Loop:
    from sqlalchemy.pool import QueuePool

    from bench.threads import Connection

    pool = QueuePool(Connection, pool_size=4, max_overflow=0, reset_on_return=None)  # type: ignore

    def loop(count: int) -> None:
        for _ in range(count):
            pool.connect().close()

    return loop
