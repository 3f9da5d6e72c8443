"""Single events that need no graph to be bad: a wait in a finaliser, a shrinker or an event loop, or while holding.

It does not judge (`judge` does): each is kept once for each place where it was seen.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from types import FrameType

from headway.watch.classes import MAP, RECLAIM, Owner, Pool, PoolClass
from headway.watch.graph import Graph
from headway.watch.places import Place, far, is_final


class Sightings:
    """What was seen. `collecting`: the thread in which the garbage collector runs."""

    graph: Graph
    current: Callable[[], Owner]

    def __init__(self) -> None:
        self.sightings: dict[
            tuple[object, ...], tuple[str, PoolClass | None, str, Place, Place]
        ] = {}
        self.collecting = 0

    def sight(
        self, kind: str, cls: PoolClass | None, what: str, place: Place, other: Place = ()
    ) -> None:
        """Something that is bad by itself, or may be, was seen."""
        key = (kind, cls, what, *(id(part) for part in place[:1]), *place[1:2])
        if key not in self.sightings:
            self.sightings[key] = (kind, cls, what, place, other)
            self.graph.version += 1

    def _final(self, pool: Pool, timed: bool, frame: FrameType) -> None:
        place = far(frame)
        if self.collecting != get_ident() and not is_final(place):
            return  # the collector runs in another thread
        if not timed and not pool.cls.reentrant and pool.size is not None:
            self.sight("wait-in-finaliser", pool.cls, pool.cls.label, place)

    def note_wait(self, what: str, timed: bool, frame: FrameType, but: Pool | None = None) -> None:
        """A wait for somebody else's deed, not for an element: bad while holding, or in reclaim."""
        if timed:
            return
        for holding in self.current().held:
            cls = holding.pool.cls
            if cls.kind == MAP:
                if cls.label in RECLAIM:
                    self.sight("wait-in-shrinker", cls, what, far(frame), holding.place)
            elif holding.pool is not but and cls.kind != "workers":
                self.sight("wait-while-holding", cls, what, far(frame), holding.place)
