"""`golden-rule`: a second element of a pool is waited for while the first is held.

If each of several tasks holds one element and waits for a second, and the pool is empty, none ever
goes on. Pools promise progress only to those who give back before they take again.

Decides by walking from each waiting take: the element stays held until it is freed or submitted; if
another waiting take of the same pool comes first (in the same function, the same call again in a
loop, or in a function of the same file one call deep), that is a finding. Ways out that are known:
a mutex taken before (it makes the function the only holder), a take that may not wait, a bulk take,
and handing the element over before the next. Not known: whether the pool is as large as the largest
request of a single holder; the remedy names it.

Source: the contract of mempools and bio sets, block/bio.c of Linux 6.12; a fix of block/blk-crypto
of January 2026 for such a loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headway.audit.c.flow import Flow
from headway.audit.c.gfp import Mask
from headway.audit.c.masks import Analysis, target_of
from headway.audit.c.tree import Expr
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="golden-rule",
    title="a second element of a pool is waited for while the first is held",
    verdicts=("takes-while-holding",),
    severity="error",
)
WORDS = ("mempool_alloc(", "bio_alloc_bioset(", "bio_split(", "bio_alloc_clone(", "bio_clone_fast(")
_POOL_ARGUMENT = {
    "mempool_alloc": 0,
    "bio_alloc_bioset": -1,
    "bio_split": -1,
    "bio_alloc_clone": -1,
    "bio_clone_fast": -1,
}
_GIVES_UP = re.compile(
    r"submit|free|(^|_)put(_|$)|dispatch|issue|queue|complete|end_?io|make_request|send|flush|"
    r"bio_endio|_done$|release|destroy"
)
_LOCKS = re.compile(r"^mutex_lock|^down(_write)?$|^down_interruptible$")


@dataclass(frozen=True, slots=True)
class _Take:
    step: int
    call: Expr
    pool: str
    target: str


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every take that waits while an element of the same pool is held."""
    takes = {analysis.function.name: _takes(analysis) for analysis in analyses}
    for analysis in analyses:
        for take in takes[analysis.function.name]:
            if _locked(analysis.graph, take.step):
                continue
            found = _second(analysis, take, takes)
            if found is not None:
                yield _finding(analysis, take, *found)


def _takes(analysis: Analysis) -> list[_Take]:
    out = []
    for number, step in enumerate(analysis.graph.steps):
        for call in step.calls():
            place = _POOL_ARGUMENT.get(call.op)
            if place is None or len(call.args) < 2:
                continue
            site = analysis.site_of(number, call)
            mask = site.mask if site is not None else Mask()
            if mask.holds("__GFP_DIRECT_RECLAIM") is True:
                pool = call.args[place].text
                if pool not in ("NULL", "0"):
                    out.append(_Take(number, call, pool, target_of(step.expr, call)))
    return out


def _locked(graph: Flow, at: int) -> bool:
    """Whether a mutex is taken on every way to the take."""
    for number, step in enumerate(graph.steps):
        if any(_LOCKS.match(call.op) for call in step.calls()) and graph.dominates(number, at):
            return True
    return False


def _second(
    analysis: Analysis, take: _Take, takes: dict[str, list[_Take]]
) -> tuple[int, str] | None:
    """The line of a second waiting take of that pool with the first still held, and what it is."""
    graph = analysis.graph
    mine = {(t.step, t.call.text): t for t in takes[analysis.function.name] if t.pool == take.pool}
    seen: set[int] = set()
    stack = list(graph.steps[take.step].then)
    while stack:
        number = stack.pop()
        if number in seen or number < 0:
            continue
        seen.add(number)
        step = graph.steps[number]
        if step.kind == "return":
            continue
        given = False
        for call in step.calls():
            if (number, call.text) in mine:
                again = "the same take again, in a loop" if number == take.step else "a second take"
                return step.line, again
            inner = [t for t in takes.get(call.op, []) if t.pool == take.pool]
            if inner and call.op != analysis.function.name:
                return step.line, f"{call.op}() takes from the same pool"
            given = given or _gives(call, take)
        if not given:
            stack.extend(step.next())
    return None


def _gives(call: Expr, take: _Take) -> bool:
    """Whether this call gives the element, or what it was stored in, away."""
    return bool(_GIVES_UP.search(call.op))


def _finding(analysis: Analysis, take: _Take, line: int, what: str) -> Finding:
    function = analysis.function
    return Finding(
        path=function.path,
        line=take.call.line,
        function=function.name,
        rule=RULE.id,
        verdict="takes-while-holding",
        bug=True,
        message=f"{what} of {take.pool} waits while an element of it is held: two tasks that do "
        "this can wait for each other for ever",
        fix="take all at once (a bulk take), hand each over before the next, hold one mutex around "
        "all takes, or make the pool as large as the largest request",
        evidence=(
            Evidence(take.call.line, f"taken: {take.call.text[:60]}"),
            Evidence(line, what),
        ),
        severity="error",
        site=take.call.text,
        span=(function.line, function.end),
    )
