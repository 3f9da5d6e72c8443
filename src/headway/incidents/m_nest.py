"""M-NEST (today): a call holds one connection, and the function it calls checks out a second one.

At as many callers as connections each holds one, and all wait for another. The reports are many, under
every pool's name; most end as "increase the pool size", and say by how much nowhere. The size is the
2009 one, N*(k-1)+1.

Source: cognee #4389, aiopg #113, asyncpg #5; the kernel's twin is E-003.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, Fix, Incident, Stage

CALLERS = 2
DEPTH = 2  # a call, and the call inside it


def play(stage: Stage, fix: str | None) -> str:
    size = CALLERS * (DEPTH - 1) + 1 if fix == "capacity" else CALLERS
    shared = _pool(stage, size, "connections")
    inner = _pool(stage, 1, "inner connections") if fix == "depth" else shared
    for number in range(1, CALLERS + 1):
        stage.enter(f"call {number}", _call(stage, f"call {number}", shared, inner, fix))
    return stage.play()


def _pool(stage: Stage, size: int, name: str) -> FixedMempool[Any]:
    return FixedMempool(range(size), runtime=stage.simulator, name=name)


def _call(
    stage: Stage, who: str, outer: FixedMempool[Any], inner: FixedMempool[Any], fix: str | None
) -> Plan[None]:
    if fix == "together":
        both = yield from outer.alloc_plan(Gfp.KERNEL, 0, who, DEPTH, None)
        assert both is not None
        stage.say(who, f"takes {DEPTH} from {outer.name}, all or nothing")
        yield from stage.turn()
        for one in both:
            stage.free(who, outer, one)
        return
    first = yield from stage.alloc(who, outer, "checks out a connection")
    yield from stage.turn()
    if fix == "pass":
        stage.say(who, "passes its connection to the function that it calls")
    else:
        second = yield from stage.alloc(who, inner, "checks out another, inside")
        stage.free(who, inner, second)
    stage.free(who, outer, first)


INCIDENT = Incident(
    "M-NEST",
    "every call holds a connection, and waits for a second one",
    DEADLOCK,
    (
        Fix("capacity", "size the pool for the nesting: N*(k-1)+1"),
        Fix("together", "take all that a call needs at once, all or nothing"),
        Fix("depth", "a pool for each depth of nesting"),
        Fix("pass", "let the callee use the caller's connection"),
    ),
    play,
)
