"""E-D0 (2001): the first, light try of a mempool still allowed I/O, and re-entered its allocator.

The allocator is low, and its way out with IO allowed is to write a dirty page out; the write needs a
descriptor from the very pool that asked. Without IO in the first mask the allocator just says no, the
descriptor comes from the reserve, and the allocator is never entered twice in one call stack.

Source: I. Molnar, "mempool-2.5.1-D0" (reported by Arjan van de Ven).
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import BackedMempool
from headway.incidents.stage import DONE, RECURSION, Fix, Incident, Stage
from headway.runtimes.baton import BatonRuntime

_STACK = 6  # levels until the stack is full


class _StackFull(Exception):
    """The call stack has no room for another level."""


class _LowAllocator:
    """Pages of a machine full of dirty ones: it frees one by writing it out, if it may."""

    def __init__(self, stage: Stage, strips_io: bool) -> None:
        self.stage = stage
        self.strips_io = strips_io
        self.pool: Any = None
        self.filling = True
        self.depth = self.deepest = 0

    def light(self, gfp: Gfp) -> Any:
        """The broken pool took only the WAIT bit away."""
        return self._alloc(gfp if self.strips_io else gfp | Gfp.IO, "first try")

    def alloc(self, gfp: Gfp) -> Any:
        return object() if self.filling else self._alloc(gfp & ~Gfp.IO, "heavy try")

    def free(self, element: Any) -> None:
        pass

    def _alloc(self, gfp: Gfp, which: str) -> Any:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        try:
            if not gfp & Gfp.IO:
                self.stage.say("allocator", f"{which} without IO, depth {self.depth}", "none")
                return None
            self.stage.say("allocator", f"{which} with IO, depth {self.depth}", "writes a page out")
            if self.depth == _STACK:
                raise _StackFull(f"the allocator is {self.depth} deep in its own call stack")
            self.pool.free(self.pool.alloc(Gfp.NOIO))
            return object()
        finally:
            self.depth -= 1


def play(stage: Stage, fix: str | None) -> str:
    simulator = stage.simulator
    runtime = BatonRuntime(
        simulator,
        current=lambda: simulator.current and simulator.current.body,
        start=simulator.start,
    )
    backend = _LowAllocator(stage, strips_io=fix == "strip-io")
    pool: BackedMempool[Any] = BackedMempool(backend, min_count=1, runtime=runtime, name="P")
    backend.pool, backend.filling = pool, False

    def writer() -> None:
        try:
            element = pool.alloc(Gfp.NOIO)
        except _StackFull as full:
            stage.say("T1", "alloc from P", str(full))
            return
        stage.say("T1", "alloc from P", "an element of the reserve")
        pool.free(element)

    runtime.spawn(writer)
    ended = stage.play()
    return RECURSION if backend.deepest > 1 else ended


INCIDENT = Incident(
    "E-D0",
    "the light try starts I/O, and the I/O needs the pool",
    RECURSION,
    (Fix("strip-io", "the first try may neither wait nor start I/O", DONE),),
    play,
)
