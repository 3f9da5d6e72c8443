"""E-LOOP (2001): a device stands on a file, and both levels take their bios from one pool.

Every element is a request to the upper device. Each waits for the loop's thread, which needs an element for
the request below. The pool's rule, nobody waits for a second while holding a first, is broken by no
single task: the holder waits for another, who waits for the pool. So each level needs its own.

Source: B. LaHaise in "mempool-2.5.1-D2" (2001); Linux gives every stacked driver a bio set of its own.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park, unpark
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

ELEMENTS = 2
WRITERS = 2


def play(stage: Stage, fix: str | None) -> str:
    size = ELEMENTS + 1 if fix == "capacity" else ELEMENTS
    upper: FixedMempool[Any] = FixedMempool(range(size), runtime=stage.simulator, name="bios")
    lower = upper
    if fix == "private":
        lower = FixedMempool([0], runtime=stage.simulator, name="bios of the file below")
    door: FixedMempool[Any] = FixedMempool(
        range(ELEMENTS - 1), runtime=stage.simulator, name="tickets to the loop"
    )
    for number in range(1, WRITERS + 1):
        stage.enter(f"W{number}", _write(stage, f"W{number}", upper, lower, door, fix))
    return stage.play()


def _write(
    stage: Stage,
    who: str,
    upper: FixedMempool[Any],
    lower: FixedMempool[Any],
    door: FixedMempool[Any],
    fix: str | None,
) -> Plan[None]:
    ticket = None
    if fix == "limit":
        ticket = yield from stage.alloc(who, door, "asks to come in")
    bio = yield from stage.alloc(who, upper, "a request to the loop device")
    yield from stage.turn()
    done = Ticket(who)
    stage.say(who, "submits it to the loop's thread, and waits")
    stage.enter(f"loop for {who}", _loop(stage, f"loop for {who}", lower, done))
    yield from park(done)
    stage.free(who, upper, bio, "its request is complete: free")
    if ticket is not None:
        stage.free(who, door, ticket, "leaves")


def _loop(stage: Stage, who: str, lower: FixedMempool[Any], done: Ticket) -> Plan[None]:
    bio = yield from stage.alloc(who, lower, "a request to the file's device")
    stage.free(who, lower, bio, "the write is complete: free")
    yield from unpark(done)


INCIDENT = Incident(
    "E-LOOP",
    "every bio waits for a device that needs a bio of the same pool",
    DEADLOCK,
    (
        Fix("private", "a pool of its own for the level below"),
        Fix("limit", "let fewer requests in than there are elements"),
        Fix("capacity", "one element more than requests that may be under way"),
    ),
    play,
)
