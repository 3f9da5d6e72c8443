"""The graph "held H while waiting for W", class by class, with counts and both stacks.

It does not judge (`nesting` does). An edge keeps what a judgement needs: the most units of one pool
that were held, which other pools were held each time (a gate that bounds how many may be here at
once), which instances met, how many owners were here at the same time, and at which next edges others were. The same
time is what no start or end of a thread, task or item of work puts in order (`Owner.at_once`).

Bound: an edge that is known costs one dictionary look-up for each element held; memory is one edge
for each pair of classes, with at most 256 pairs of instances.

Source: lockdep's lock_list; gate locks are Havelund's GoodLock.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import final

from headway.watch.alive import living
from headway.watch.classes import Owner, Pool, PoolClass
from headway.watch.places import Place

_PAIRS = 256
_CROWD = 1000  # more owners at once than this are not counted one by one


@final
class Edge:
    """That elements of `held` were held while `wanted` was waited for, or might have been."""

    __slots__ = (
        "count", "crowd", "gates", "held", "inherited", "met", "pairs", "release_path", "same", "seen", "unit_max",
        "untimed", "wanted", "where_held", "where_wanted",
    )  # fmt: skip

    def __init__(self, held: PoolClass, wanted: PoolClass, same: bool) -> None:
        self.held = held
        self.wanted = wanted
        self.same = same  # one and the same pool, not another of its class
        self.count = 0
        self.unit_max = 0
        self.untimed = 0  # how often without a time limit
        self.inherited = 0  # how often the holder was one who waits for the asker
        self.release_path = False  # the held element came back inside
        self.gates: frozenset[Pool] | None = None
        self.pairs: set[tuple[int, int]] = set()
        self.where_held: Place = ()
        self.where_wanted: Place = ()
        self.crowd: weakref.WeakSet[Owner] = weakref.WeakSet()
        self.seen = 0  # of them at once
        self.met: set[Edge] = set()  # edges where somebody else was at the same time

    def note(self, held: Pool, pool: Pool, units: int, pools: Iterable[Pool], timed: bool) -> None:
        """It happened again; `pools` is all that was held."""
        self.count += 1
        if not timed:
            self.untimed += 1
        if units > self.unit_max:
            self.unit_max = units
        if len(self.pairs) < _PAIRS:
            self.pairs.add((held.number, pool.number))
        if self.gates is None:
            self.gates = frozenset(gate for gate in pools if gate is not held)
        elif self.gates:
            self.gates = self.gates.intersection(pools)

    def saw(self, owner: Owner) -> None:
        """Somebody is here, for the first time since another was started: how many are, at once?"""
        self.crowd.add(owner)
        if len(self.crowd) > self.seen and self.seen < _CROWD:
            self.seen = max(self.seen, 1 + sum(1 for _ in self.others(owner)))

    def others(self, owner: Owner) -> Iterator[Owner]:
        """Who else is here at once with `owner`, who acts now."""
        for other in living(self.crowd):
            if owner.at_once(other, other.edges[self]):
                yield other
            elif not other.alive():
                self.crowd.discard(other)

    def __repr__(self) -> str:
        return f"<Edge {self.held.name!r} -> {self.wanted.name!r}: {self.count} times>"


@final
class Graph:
    """All edges so far; `version` changes with each that is new or tells something new."""

    def __init__(self, beside: Graph | None = None) -> None:
        self.edges: dict[tuple[int, int, bool], Edge] = {}
        self.version = 0
        # Edges by what is held and by what is wanted; of a graph beside this one, too.
        self._held: dict[PoolClass, list[Edge]] = {} if beside is None else beside._held
        self._wanted: dict[PoolClass, list[Edge]] = {} if beside is None else beside._wanted

    def edge(self, held: PoolClass, wanted: PoolClass, same: bool) -> Edge:
        key = (held.number, wanted.number, same)
        found = self.edges.get(key)
        if found is None:
            found = self.edges.setdefault(key, Edge(held, wanted, same))
            self._held.setdefault(held, []).append(found)
            self._wanted.setdefault(wanted, []).append(found)
            self.version += 1
        return found

    def here(self, edge: Edge, owner: Owner, starts: int) -> None:
        """`owner` is at an edge; there have been `starts` in all by now."""
        if owner.edges.get(edge) == starts:
            return  # nobody has been started since he was here before
        owner.edges[edge] = starts
        edge.saw(owner)
        for other in (*self._held.get(edge.wanted, ()), *self._wanted.get(edge.held, ())):
            if other is not edge and other not in edge.met:
                if next(other.others(owner), None) is not None:
                    edge.met.add(other)
                    other.met.add(edge)
                    self.version += 1
