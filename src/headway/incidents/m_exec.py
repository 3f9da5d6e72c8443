"""M-EXEC (today): a job on an executor queues a child on the same executor, and waits for it.

Two workers, two parents: both workers wait for children that nobody can run. Every task queue's manual
says "do not do that"; the remedies below are what those who must do it have built.

Source: huey #618, celery #3031, xorq #2243, dask/distributed #1705, sinas #81.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park, unpark
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

PARENTS = 2


def play(stage: Stage, fix: str | None) -> str:
    size = PARENTS + 1 if fix == "capacity" else PARENTS
    workers = _workers(stage, size, "workers")
    nested = _workers(stage, 1, "workers for children") if fix == "nested" else workers
    for number in range(1, PARENTS + 1):
        stage.enter(f"parent {number}", _parent(stage, f"parent {number}", workers, nested, fix))
    return stage.play()


def _workers(stage: Stage, size: int, name: str) -> FixedMempool[Any]:
    return FixedMempool(range(size), runtime=stage.simulator, name=name)


def _parent(
    stage: Stage, who: str, workers: FixedMempool[Any], nested: FixedMempool[Any], fix: str | None
) -> Plan[None]:
    worker = yield from stage.alloc(who, workers, "starts on a worker")
    yield from stage.turn()
    if fix == "inline":
        stage.say(who, "runs its child itself")
        stage.free(who, workers, worker, "ends, and gives its worker back")
        return
    done = Ticket(who)
    child = who.replace("parent", "child")
    stage.say(who, f"queues {child}, and waits for it")
    stage.enter(child, _child(stage, child, nested, done))
    if fix == "secede":
        stage.free(who, workers, worker, "lends its worker out while it waits")
    yield from park(done)
    if fix == "secede":
        worker = yield from stage.alloc(who, workers, "goes on")
    stage.free(who, workers, worker, "ends, and gives its worker back")


def _child(stage: Stage, who: str, workers: FixedMempool[Any], done: Ticket) -> Plan[None]:
    worker = yield from stage.alloc(who, workers, "starts on a worker")
    stage.free(who, workers, worker, "ends, and gives its worker back")
    yield from unpark(done)


INCIDENT = Incident(
    "M-EXEC",
    "every worker waits for a child that is queued behind it",
    DEADLOCK,
    (
        Fix("capacity", "one worker more than parents that wait"),
        Fix("nested", "a worker that only children may use"),
        Fix("secede", "give the worker back while waiting, and take one again"),
        Fix("inline", "run the child on the parent's own worker"),
    ),
    play,
)
