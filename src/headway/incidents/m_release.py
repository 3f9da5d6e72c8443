"""M-RELEASE (today): all threads wait for a connection, and giving one back needs a thread.

A web framework runs blocking dependencies on a pool of threads, their clean-up too. As soon as
every thread waits for a connection, the one that is to be given back finds no thread. Five pull
requests over four years proposed what the kernel calls a reserve: a thread that only clean-up may use.

Source: FastAPI #3205, #5122, #12066, #15372, #15388.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

THREADS = 2
REQUESTS = THREADS + 1


def play(stage: Stage, fix: str | None) -> str:
    size = REQUESTS if fix == "capacity" else THREADS
    threads = _pool(stage, size, "threads")
    clean_up = _pool(stage, 1, "the thread for clean-up") if fix == "reserve" else threads
    connections = _pool(stage, 1, "connections")
    for number in range(1, REQUESTS + 1):
        who = f"request {number}"
        stage.enter(who, _request(stage, who, threads, clean_up, connections, fix))
    return stage.play()


def _pool(stage: Stage, size: int, name: str) -> FixedMempool[Any]:
    return FixedMempool(range(size), runtime=stage.simulator, name=name)


def _request(
    stage: Stage,
    who: str,
    threads: FixedMempool[Any],
    clean_up: FixedMempool[Any],
    connections: FixedMempool[Any],
    fix: str | None,
) -> Plan[None]:
    if fix == "connection-first":
        connection = yield from stage.alloc(who, connections, "takes a connection")
        thread = yield from stage.alloc(who, threads, "takes a thread for its work")
        stage.free(who, threads, thread)
    else:
        thread = yield from stage.alloc(who, threads, "takes a thread, to wait on")
        connection = yield from stage.alloc(who, connections, "takes a connection")
        stage.free(who, threads, thread)
    yield from stage.turn()
    thread = yield from stage.alloc(who, clean_up, "takes a thread to clean up")
    stage.free(who, connections, connection, "gives its connection back")
    stage.free(who, clean_up, thread)


INCIDENT = Incident(
    "M-RELEASE",
    "every thread waits for a connection, and giving one back needs a thread",
    DEADLOCK,
    (
        Fix("reserve", "a thread that only clean-up may use"),
        Fix("connection-first", "wait for the connection before taking a thread"),
        Fix("capacity", "a thread for every request that may wait, and one more"),
    ),
    play,
)
