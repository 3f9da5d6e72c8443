"""E-003 (2009): a request takes its bounce bios one after another from a pool, and submits them at the end.

Two acts. In the first, one task needs three from a reserve of two, and waits for what it holds itself.
In the second, two tasks need two each: each takes one and waits for the other's. The slab is
exhausted throughout: only the reserve gives. Four remedies: *capacity* (N*(k-1)+1 elements), *unwind*
(a try that may fail, then everything goes back and the error is returned), *private* (a pool of its own
for each request's whole need), *submit* (each is in flight before the next is asked for).

Source: V. Bolkhovitin and J. Axboe, "Implementation of blk_rq_map_kern_sg()" (2009).
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Plan
from headway.incidents.stage import CLEAN_ERROR, DEADLOCK, DONE, Fix, Incident, Stage

BIO_POOL_SIZE = 2


class _ExhaustedSlab:
    """Fills reserves, and from then on gives nothing."""

    def __init__(self) -> None:
        self.filling = True

    def alloc(self, gfp: Gfp) -> Any:
        return object() if self.filling else None

    def light(self, gfp: Gfp) -> Any:
        return self.alloc(gfp)

    def free(self, element: Any) -> None:
        pass


def play(stage: Stage, fix: str | None) -> str:
    first = _act(stage, fix, tasks=1, needs=3)
    second_stage = Stage()
    second = _act(second_stage, fix, tasks=2, needs=2)
    stage.say("act 1", "one task, three bounce bios", first)
    stage.events += second_stage.events
    stage.say("act 2", "two tasks, two bounce bios each", second)
    return first if first == second else f"{first}, then {second}"


def _act(stage: Stage, fix: str | None, *, tasks: int, needs: int) -> str:
    slab = _ExhaustedSlab()

    def pool_of(size: int, name: str) -> BackedMempool[Any]:
        return BackedMempool(slab, min_count=size, runtime=stage.simulator, name=name)

    size = tasks * (needs - 1) + 1 if fix == "capacity" else BIO_POOL_SIZE
    shared = pool_of(size, "P")
    names = [f"T{number}" for number in range(1, tasks + 1)]
    own = {name: pool_of(needs, f"P of {name}") if fix == "private" else shared for name in names}
    slab.filling = False
    errors: list[str] = []
    for name in names:
        stage.enter(name, _map_request(stage, name, own[name], needs, fix, errors))
    ended = stage.play()
    if ended == DONE:
        for pool in {id(pool): pool for pool in own.values()}.values():
            stats = pool.stats()
            assert stats.outstanding == 0 and stats.reserve_count == stats.min_count
    return CLEAN_ERROR if ended == DONE and errors else ended


def _map_request(
    stage: Stage,
    name: str,
    pool: BackedMempool[Any],
    needs: int,
    fix: str | None,
    errors: list[str],
) -> Plan[None]:
    bounced: list[Any] = []
    gfp = Gfp.NOWAIT if fix == "unwind" else Gfp.NOIO
    for number in range(1, needs + 1):
        yield from stage.turn()
        element = yield from stage.alloc(name, pool, f"bounce #{number}", gfp=gfp)
        if element is None:
            stage.say(name, "unwinds, and returns the error", "it owns nothing")
            errors.append(name)
            break
        if fix == "submit":
            pool.hand_over(element)
            stage.say(name, f"submits bounce #{number}")
            stage.enter("D", _complete(stage, pool, element))
        else:
            bounced.append(element)
    else:
        stage.say(name, "submits its request")
    while bounced:
        stage.free(name if name in errors else "D", pool, bounced.pop())


def _complete(stage: Stage, pool: BackedMempool[Any], element: Any) -> Plan[None]:
    yield from stage.turn()
    stage.free("D", pool, element, "completes, and frees")


INCIDENT = Incident(
    "E-003",
    "a request waits for the bounce bios that it holds itself",
    DEADLOCK,
    (
        Fix("capacity", "size the pool for the worst case: N*(k-1)+1"),
        Fix("unwind", "let the try fail, and give everything back", CLEAN_ERROR),
        Fix("private", "a pool of its own, for the whole request"),
        Fix("submit", "put each in flight before asking for the next"),
    ),
    play,
)
