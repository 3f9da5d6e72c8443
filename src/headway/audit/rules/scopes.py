"""`scopes`: allocation scopes that are not closed, and flags that a scope makes needless.

`memalloc_nofs_save()` and its kin restrict every request of the task until restored. Decides two
things: a save from which some path leaves the function without the restore (a bug: the task stays
restricted), and GFP_NOFS or GFP_NOIO inside a matching scope (redundant). GFP_KERNEL inside a scope is
right and never named. Which flags outside of scopes are worth one is `worth_a_scope`.

Source: Documentation/core-api/gfp_mask-from-fs-io.rst and include/linux/sched/mm.h of Linux 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.csource.tree import Expr
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="scopes",
    title="an allocation scope is left open, or makes a flag needless",
    verdicts=("scope-left-open", "redundant-in-scope"),
    severity="error",
)
WORDS = ("memalloc_nofs_save", "memalloc_noio_save", "memalloc_noreclaim_save")
_SAVE = re.compile(r"^memalloc_(nofs|noio|noreclaim|pin)_save$")


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every scope that is left open, and every flag that it makes needless."""
    for analysis in analyses:
        graph = analysis.graph
        for number, step in enumerate(graph.steps):
            for call in step.calls():
                match = _SAVE.match(call.op)
                if match is None:
                    continue
                inside, leak = _extent(analysis, number, match.group(1))
                own = _restores_here(analysis, match.group(1)) and not _guarded(analysis, number)
                if leak is not None and own:
                    yield _left_open(analysis, call, match.group(1), leak)
                for site in analysis.sites:
                    if site.step in inside and _needless(site, match.group(1)):
                        yield _redundant(analysis, site, call.line, match.group(1))


def _restores_here(analysis: Analysis, kind: str) -> bool:
    """A function that only saves hands the scope to its caller: not ours to judge."""
    return f"memalloc_{kind}_restore" in analysis.function.text


def _guarded(analysis: Analysis, at: int) -> bool:
    """Whether the save hangs on a test that the function makes twice: then the restore does too."""
    graph = analysis.graph
    texts = [s.expr.text for s in graph.steps if s.kind == "test" and s.expr is not None]
    for number, step in enumerate(graph.steps):
        if step.kind == "test" and step.expr is not None and texts.count(step.expr.text) > 1:
            one = graph.reachable(step.then[0], without=number)
            two = graph.reachable(step.other, without=number)
            if (at in one) != (at in two):
                return True
    return False


def _extent(analysis: Analysis, start: int, kind: str) -> tuple[set[int], int | None]:
    """The steps inside the scope, and the line of a way out that does not restore."""
    graph = analysis.graph
    seen: set[int] = set()
    leak: int | None = None
    stack = list(graph.steps[start].then)
    while stack:
        number = stack.pop()
        if number in seen or number < 0:
            continue
        step = graph.steps[number]
        if any(call.op == f"memalloc_{kind}_restore" for call in step.calls()):
            continue
        if number == start:
            continue
        if step.kind == "return":
            leak = step.line if leak is None else leak
            continue
        seen.add(number)
        stack.extend(step.next())
    return seen, leak


def _needless(site: Site, kind: str) -> bool:
    text = site.call.args[site.argument].text
    if kind == "nofs":
        return "GFP_NOFS" in text
    return kind == "noio" and ("GFP_NOIO" in text or "GFP_NOFS" in text)


def _left_open(analysis: Analysis, save: Expr, kind: str, leak: int) -> Finding:
    return finding_at(
        analysis,
        save,
        RULE,
        "scope-left-open",
        f"the {kind} scope is not restored on a path that leaves the function, so the task "
        "stays restricted",
        f"call memalloc_{kind}_restore() before the return of line {leak}",
        bug=True,
        evidence=(Evidence(leak, "leaves the function with the scope open"),),
    )


def _redundant(analysis: Analysis, site: Site, line: int, kind: str) -> Finding:
    return finding_at(
        analysis,
        site.call,
        RULE,
        "redundant-in-scope",
        f"{site.call.op}(): the {kind} scope around it already forbids what this flag does",
        "say GFP_KERNEL: the scope masks it",
        bug=False,
        evidence=(Evidence(line, f"the {kind} scope begins"),),
    )
