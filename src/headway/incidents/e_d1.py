"""E-D1 (2001): a caller that may not sleep got nothing, while the reserve was full.

The interrupt handler's allocation fails its one light try and returns NULL before anybody looked at
the reserve; it drops the work whose completion would have freed elements. Fixed, it takes from the
reserve, and gets None only if that is empty.

Source: I. Molnar, "mempool-2.5.1-D1" (reported by Suparna Bhattacharya).
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Step
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DONE, DROPPED_WORK, Fix, Incident, Stage


class _EmptyAllocator:
    """Gives the elements of the reserve, and from then on nothing."""

    def __init__(self) -> None:
        self.filling = True

    def alloc(self, gfp: Gfp) -> Any:
        return object() if self.filling else None

    def light(self, gfp: Gfp) -> Any:
        return None

    def free(self, element: Any) -> None:
        pass


def play(stage: Stage, fix: str | None) -> str:
    backend = _EmptyAllocator()
    pool: BackedMempool[Any] = BackedMempool(
        backend, min_count=4, runtime=stage.simulator, name="P"
    )
    backend.filling = False
    if fix != "reserve-before-null":  # the atomic caller's ladder ended after its first rung
        pool.first = pool.again = (Step.LIGHT,)
    done: list[bool] = []

    def handler() -> Plan[None]:
        element = yield from stage.alloc("IRQ", pool, "alloc (ATOMIC)", gfp=Gfp.ATOMIC)
        if element is None:
            idle = pool.stats().reserve_count
            stage.say("IRQ", "drops its completion work", f"{idle} elements lie idle")
            return
        done.append(True)
        stage.free("IRQ", pool, element)

    stage.enter("IRQ", handler())
    ended = stage.play()
    return ended if done else DROPPED_WORK


INCIDENT = Incident(
    "E-D1",
    "the reserve is invisible to callers that may not sleep",
    DROPPED_WORK,
    (Fix("reserve-before-null", "look into the reserve before giving up", DONE),),
    play,
)
