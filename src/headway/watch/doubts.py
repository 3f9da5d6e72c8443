"""What a child asks for while its parent holds something: an edge only if the parent waits for the child meanwhile.

It decides that by what happens: who holds on until the child has ended may have waited for it, and whoever lets go
while the child goes on has not (the body of a task group that has a lock, say, and its tasks that want it). So such
an edge is kept apart until its holding comes back. Where another one gives it back (the child itself, say), it was
needed.

Bound: 256 holdings in doubt, with at most 64 edges each.
"""

from __future__ import annotations

from typing import final

from headway.watch.classes import Holding, Owner
from headway.watch.graph import Edge, Graph

_HOLDINGS = 256
_EDGES = 64


@final
class Doubts:
    """The edges that are not believed yet. `apart` is their graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.apart = Graph(graph)
        self.open: dict[int, tuple[Holding, dict[tuple[Owner, Edge], None]]] = {}

    def graph_of(self, holding: Holding, pool_number: int, same: bool) -> Graph:
        """Where an edge belongs that is asked by a child of the holder: known ones are known."""
        known = (holding.pool.cls.number, pool_number, same) in self._graph.edges
        return self._graph if known else self.apart

    def note(self, holding: Holding, child: Owner, edge: Edge) -> None:
        """`edge` is true if `holding` outlasts `child`."""
        _, edges = self.open.setdefault(id(holding), (holding, {}))
        if len(edges) < _EDGES:
            edges[child, edge] = None
        for oldest in list(self.open)[:1] if len(self.open) > _HOLDINGS else ():
            self.open.pop(oldest, None)

    def settle(self, holding: Holding, who: Owner) -> None:
        """The holding comes back, brought by `who`."""
        _, edges = self.open.pop(id(holding), (None, {}))
        for child, edge in list(edges):  # which `look` shortens, in another thread
            if who is not holding.owner or not child.alive():
                self._believe(edge)

    def look(self) -> None:
        """Believe what can be believed by now: of what is still held, where the child has ended."""
        for _, edges in list(self.open.values()):
            for child, edge in list(edges):
                if not child.alive():
                    edges.pop((child, edge), None)
                    self._believe(edge)

    def _believe(self, edge: Edge) -> None:
        key = (edge.held.number, edge.wanted.number, edge.same)
        self.apart.edges.pop(key, None)
        if key not in self._graph.edges:
            self._graph.edges[key] = edge
            self._graph.version += 1
