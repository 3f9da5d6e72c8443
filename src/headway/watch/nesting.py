"""Cycles in the graph, and whether the numbers let them close: from how many at once, and who bounds that.

It decides what is a finding among edges. One rule covers all: in a cycle P1 -> P2 -> ... -> P1, each
owner holds u_i elements of P_i while it waits for P_(i+1). All is stuck when owners hold every element of
every pool of the cycle: it takes the sum of ceil(size_i / u_i) owners. For one pool that is
the law of users who take m each: n of them are safe on n(m-1)+1 elements, and not on fewer.

What the program itself bounds is believed: if each time some gate was held too (a semaphore, an
executor's worker, a lock), no more than its size can be here at once. So legal programs are not accused.

Source: lockdep's check for a path back; GoodLock's gate locks; HikariCP's pool sizing for the law.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from headway.watch import places
from headway.watch.classes import CONNECTIONS, MAP, Pool, PoolClass
from headway.watch.finding import Finding, stacks
from headway.watch.graph import Edge, Graph

_LONGEST = 4  # pools in a cycle


@final
@dataclass(frozen=True, slots=True)
class Cycle:
    """Edges that lead from a pool back to it; `exact`: by the same instances, not their likes."""

    edges: tuple[Edge, ...]
    exact: bool

    @property
    def parts(self) -> tuple[int, ...]:
        """How many owners it takes at each edge."""
        return tuple(_owners(edge) for edge in self.edges)

    @property
    def hangs_from(self) -> int:
        return max(1, sum(self.parts))

    @property
    def gate(self) -> Pool | None:
        """The narrowest pool that is held at all its edges, outside the cycle."""
        members = {edge.held for edge in self.edges}
        common: frozenset[Pool] | None = None
        for edge in self.edges:
            common = edge.gates if common is None else common & (edge.gates or frozenset())
        gates = [g for g in common or () if g.size is not None and g.cls not in members]
        gates = [g for g in gates if g.cls.holds and g.cls.kind != MAP]
        return min(gates, key=lambda g: (g.size or 0, g.number), default=None)

    @property
    def crowd(self) -> int:
        """How many were at its edges at once; where it takes none, nobody is counted."""
        seen = [max(1, edge.seen) for edge in dict.fromkeys(self.edges) if _owners(edge)] or [1]
        return sum(seen) if self.met else max(seen)

    @property
    def met(self) -> bool:
        """Whether there were different owners at its edges at once, where it takes one."""
        edges = list(dict.fromkeys(edge for edge in self.edges if _owners(edge)))
        ring = zip(edges, [*edges[1:], edges[0]], strict=True) if len(edges) > 1 else ()
        return all(two in one.met for one, two in ring)

    @property
    def enough(self) -> bool:
        """Whether as many were there at once as it takes."""
        parts: dict[Edge, int] = {}
        for edge, owners in zip(self.edges, self.parts, strict=True):
            parts[edge] = parts.get(edge, 0) + owners
        return self.met and all(edge.seen >= owners for edge, owners in parts.items())


def _owners(edge: Edge) -> int:
    if edge.held.kind == MAP:
        return 0
    size, units = edge.held.size or 1, max(1, edge.unit_max)
    return -(-size // units)


def cycles(graph: Graph) -> Iterator[Cycle]:
    """Every cycle of at most four pools, each once, the shortest first."""
    edges = [edge for edge in list(graph.edges.values()) if _can_wait(edge)]
    edges.sort(key=lambda edge: (edge.held.number, edge.wanted.number, not edge.same))
    out: dict[PoolClass, list[Edge]] = {}
    for edge in edges:
        if edge.held is not edge.wanted:
            out.setdefault(edge.held, []).append(edge)
        elif edge.same:
            yield Cycle((edge,), True)
        elif any((b, a) in edge.pairs for a, b in list(edge.pairs)):
            yield Cycle((edge, edge), True)  # two of a class, in both orders
    for length in range(2, _LONGEST + 1):
        for start in sorted(out, key=lambda cls: cls.number):
            yield from _paths(out, start, (), length)


def _paths(
    out: dict[PoolClass, list[Edge]], start: PoolClass, path: tuple[Edge, ...], length: int
) -> Iterator[Cycle]:
    at = path[-1].wanted if path else start
    for edge in out.get(at, ()):
        if len(path) + 1 == length:
            if edge.wanted is start:
                yield Cycle((*path, edge), _meet((*path, edge)))
        elif edge.wanted.number > start.number and all(e.held is not edge.wanted for e in path):
            yield from _paths(out, start, (*path, edge), length)


def _can_wait(edge: Edge) -> bool:
    wanted = edge.wanted
    waits = wanted.kind == MAP or (wanted.size is not None and wanted.holds)
    return waits and edge.held.holds


def _meet(edges: tuple[Edge, ...]) -> bool:
    """Whether the instances of the edges join to a ring."""
    reach = set(edges[0].pairs)
    for edge in edges[1:]:
        reach = {(a, d) for a, b in reach for c, d in list(edge.pairs) if b == c}
    return any(a == b for a, b in reach)


def findings(graph: Graph, concurrency: int | None) -> Iterator[Finding]:
    """What can hang by taking pools in turn."""
    for cycle in cycles(graph):
        severity = _severity(cycle, concurrency)
        if severity is not None:
            yield _finding(cycle, severity)


def _severity(cycle: Cycle, concurrency: int | None) -> str | None:
    """None if the program's own numbers say that it cannot happen."""
    needed, gate = cycle.hangs_from, cycle.gate
    bounds = [n for n in (concurrency, None if gate is None else gate.size) if n is not None]
    if bounds and min(bounds) < needed:
        return None
    if not cycle.exact:
        return "note"
    if bounds or cycle.enough:
        return "risk"
    return "warning" if cycle.crowd <= 1 else "note"


def _finding(cycle: Cycle, severity: str) -> Finding:
    kind = _kind(cycle)
    seen: dict[str, list[str]] = {}
    for number, edge in enumerate(dict.fromkeys(cycle.edges), 1):
        which = "" if len(cycle.edges) == 1 else f"_({number})"
        seen |= stacks(
            **{f"taken{which}:_{edge.held.label}": edge.where_held},
            **{f"then_asked_for{which}:_{edge.wanted.label}": edge.where_wanted},
        )
    edges = tuple((edge.held.name, edge.wanted.name) for edge in cycle.edges)
    return Finding(
        kind, severity, " and ".join(dict.fromkeys(edge.held.name for edge in cycle.edges)), seen,
        _why(cycle, kind), cycle.hangs_from, cycle.crowd,
        _remedy(cycle, kind),
        f"{kind}: " + "; ".join(
            f"{edge.held.label} {places.stable(edge.held.made)} -> {places.stable(edge.where_wanted)}"
            for edge in cycle.edges
        ),
        edges,
    )  # fmt: skip


def _kind(cycle: Cycle) -> str:
    kinds = {edge.held.kind for edge in cycle.edges}
    if MAP in kinds:
        return "reclaim-recursion"
    if kinds == {"workers"} and any(edge.held.label.startswith("budget") for edge in cycle.edges):
        return "own-executor"  # one whose work has a weight
    if len(cycle.edges) == 1:
        return "own-executor" if kinds == {"workers"} else "nested"
    if any(edge.release_path and edge.held.kind in CONNECTIONS for edge in cycle.edges):
        return "release-path"
    return "opposite-orders"


def _why(cycle: Cycle, kind: str) -> str:
    first, needed = cycle.edges[0], cycle.hangs_from
    ends = (
        ""
        if any(edge.untimed for edge in cycle.edges)
        else "; the waits have a time limit, so it ends in errors"
    )
    gate = cycle.gate
    if gate is not None:
        ends = f"; {gate.cls.name} lets {gate.size} in at once" + ends
    if len(cycle.edges) == 1:
        units = first.unit_max
        more = "its child waits" if first.inherited == first.count else "it waits"
        return (
            f"{units} {_elements(first, kind)} held while {more} for one more of the same "
            f"{first.held.size}: {needed} that do so at once hold all of them, and each waits for ever "
            f"(n are safe on n*{units} + 1){ends}"
        )
    steps = ", ".join(_step(edge, n) for edge, n in zip(cycle.edges, cycle.parts, strict=True))
    return f"{steps}: nobody can go on{ends}"


def _elements(edge: Edge, kind: str) -> str:
    """What is held, in words."""
    weighed = edge.held.label.startswith("budget")
    one, more = ("grant", "grants") if weighed else ("element", "elements")
    if kind == "own-executor":
        one, more = ("share of work under way",) * 2 if weighed else ("worker", "workers")
    return one if edge.unit_max == 1 else more


def _step(edge: Edge, owners: int) -> str:
    held, wanted = _short(edge.held), _short(edge.wanted)
    if edge.held.kind == MAP:
        return f"{held} needs {wanted}"
    if edge.held.size == 1:
        return f"one holds {held} and waits for {wanted}"
    return f"{owners} hold all of {held} and wait for {wanted}"


def _short(cls: PoolClass) -> str:
    """A class by label and line."""
    return f"{cls.label} ({places.where(cls.made).partition(' in ')[0]})" if cls.made else cls.label


def _remedy(cycle: Cycle, kind: str) -> str:
    first = cycle.edges[0]
    match kind:
        case "nested":
            return (
                "take all at once, or pass the first element on instead of taking a second; or size the "
                f"pool to n*{first.unit_max} + 1 for n at once, or let fewer than {cycle.hangs_from} in"
            )
        case "own-executor":
            return (
                "do not wait for work of the same executor, nor for room to submit some: give nested work an "
                "executor of its own, or "
                f"n*{first.unit_max} + 1 workers for n at once, or run it inline"
            )
        case "release-path":
            needed = next(edge for edge in cycle.edges if edge.release_path)
            return (
                f"keep one element of {needed.wanted.label} for giving {needed.held.label} back (a reserve "
                "that only the release path may use), or give back without it"
            )
        case "reclaim-recursion":
            if any(edge.wanted.label.startswith("completion") for edge in cycle.edges):
                return "give it back before waiting for that, or only try to take it where that is completed"
            return "allocate inside noio() or nofs() while holding it, or only try to take it in reclaim"
    return "take them in one order everywhere, or give the first back before asking for the second"
