"""`golden-rule`: a second element of a pool is waited for while the first is held.

If each of several tasks holds one element and waits for a second, and the pool is empty, none ever
goes on. Pools promise progress only to those who give back before they take again.

Decides by walking from each waiting take: the element stays held until it is freed or submitted; if
another waiting take of the same pool comes first (in the same function, the same call again in a
loop, or in a function of the same file one call deep), that is a finding. Ways out that are known:
a mutex taken before (it makes the function the only holder), a take that may not wait, a bulk take,
handing the element over before the next, and a pool made in the same file with as many elements as the
loop takes (`sizes`). Not known: whether there is only one such holder at a time.

Source: the contract of mempools and bio sets, block/bio.c of Linux 6.12; a fix of block/blk-crypto
of January 2026 for such a loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.masks import Analysis
from headway.audit.csource.said import finding_at
from headway.audit.csource.sizes import as_large
from headway.audit.csource.takes import Take, gives, locked, takes, while_held
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="golden-rule",
    title="a second element of a pool is waited for while the first is held",
    verdicts=("takes-while-holding",),
    severity="error",
)
WORDS = ("mempool_alloc(", "bio_alloc_bioset(", "bio_split(", "bio_alloc_clone(", "bio_clone_fast(")


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every take that waits while an element of the same pool is held."""
    known = {analysis.function.name: takes(analysis) for analysis in analyses}
    for analysis in analyses:
        for take in known[analysis.function.name]:
            if locked(analysis.graph, take.step):
                continue
            found = _second(analysis, take, known)
            if found is not None and not as_large(analysis, take):
                yield _finding(analysis, take, *found)


def _second(analysis: Analysis, take: Take, known: dict[str, list[Take]]) -> tuple[int, str] | None:
    """The line of a second waiting take of that pool with the first still held, and what it is."""
    graph = analysis.graph
    mine = {(t.step, t.call.text): t for t in known[analysis.function.name] if t.pool == take.pool}
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
            inner = [t for t in known.get(call.op, []) if t.pool == take.pool]
            if inner and call.op != analysis.function.name:
                return step.line, f"{call.op}() takes from the same pool"
            given = given or gives(call, take, analysis)
        if not given:
            stack.extend(while_held(step, take.target))
    return None


def _finding(analysis: Analysis, take: Take, line: int, what: str) -> Finding:
    return finding_at(
        analysis,
        take.call,
        RULE,
        "takes-while-holding",
        f"{what} of {take.pool} waits while an element of it is held: two tasks that do "
        "this can wait for each other for ever",
        "take all at once (a bulk take), hand each over before the next, hold one mutex around "
        "all takes, or, for one holder at a time, make the pool as large as the largest request",
        bug=True,
        evidence=(
            Evidence(take.call.line, f"taken: {take.call.text[:60]}"),
            Evidence(line, what),
        ),
    )
