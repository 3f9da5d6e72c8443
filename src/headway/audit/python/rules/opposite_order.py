"""Two pools that are taken in one order here and in the other order there.

Decides by pairs: A held while B is waited for, and somewhere else B held while A is waited for, both
without a time-out. If a third lock is held at both places, the two cannot meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Function, Held, Module, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import finding, label

RULE = Rule(
    "opposite-order",
    "two pools or locks taken in opposite orders",
    ("can-deadlock",),
    "error",
)
_TAKEN = frozenset({Kind.LOCK, Kind.REENTRANT, Kind.SEMAPHORE, Kind.POOL, Kind.LIMITER})


@dataclass(frozen=True, slots=True)
class _Edge:
    first: Held
    use: Use
    line: int
    site: str
    function: Function
    module: Module
    around: frozenset[str]  # what else is held
    direct: bool
    steps: tuple[Evidence, ...]


def find(program: Program) -> Iterator[Finding]:
    """One finding for each pair, at the place that comes first in the list of files."""
    edges: dict[tuple[str, str], list[_Edge]] = {}
    for function, module in program.functions():
        for edge in _edges(program, function, module):
            edges.setdefault((edge.first.place, edge.use.place), []).append(edge)
    for (a, b), forward in edges.items():
        back = edges.get((b, a), [])
        if a >= b or not back:
            continue
        pair = next(((x, y) for x in forward for y in back if not x.around & y.around), None)
        if pair is not None:
            yield _finding(program, *pair)


def _edges(program: Program, function: Function, module: Module) -> Iterator[_Edge]:
    for use in function.uses:
        if use.held and use.takes:
            held = program.held(use.held)
            yield from _pairs(program, held, use, use.line, use.text, function, module, True, ())
    for call in function.calls:
        held = program.held(call.held)
        if not held:
            continue
        for reach in program.reach(call, module):
            yield from _pairs(
                program, held, reach.use, call.line, call.text, function, module, False,
                tuple(reach.evidence(module)),
            )  # fmt: skip


def _pairs(
    program: Program,
    held: list[Held],
    use: Use,
    line: int,
    site: str,
    function: Function,
    module: Module,
    direct: bool,
    steps: tuple[Evidence, ...],
) -> Iterator[_Edge]:
    inner = program.pools.get(use.place)
    if inner is None or inner.kind not in _TAKEN or not use.takes or not use.waits or use.timed:
        return
    if any(each.place == use.place for each in held):
        return  # that is the nested take's business, or a reentrant lock that is held already
    places = {each.place for each in held}
    for each in held:
        outer = program.pools.get(each.place)
        if outer is not None and outer.kind in _TAKEN and each.place[0] in "gi":
            around = frozenset(places - {each.place})
            yield _Edge(each, use, line, site, function, module, around, direct, steps)


def _finding(program: Program, here: _Edge, there: _Edge) -> Finding:
    a, b = program.pools[here.first.place], program.pools[here.use.place]
    away = "" if there.module is here.module else there.module.path
    sure = here.direct and there.direct
    severity: Severity = "error" if sure else "warning"
    return finding(
        RULE, here.module, here.function, here.line, here.site, "can-deadlock",
        f"{label(a)} is held while {label(b)} is waited for; {there.function.name} does it the other "
        "way round: one caller of each, and neither goes on",
        "choose one order for both and keep it, or take them in one request",
        [
            Evidence(here.first.line, f"holds {label(a)}"),
            *(here.steps or (Evidence(here.line, f"waits for {label(b)}"),)),
            Evidence(there.first.line, f"{there.function.name} holds {label(b)}", away),
            *(there.steps or (Evidence(there.line, f"waits for {label(a)}", away),)),
        ],
        severity,
    )  # fmt: skip
