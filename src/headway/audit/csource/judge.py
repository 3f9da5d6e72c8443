"""What stands behind an allocation that gives up early: the verdict of one site, with its reason.

Decides from the walk of `failing`: a second path (and of which sort), a second path that gives up as
early as the first, a failure nobody minds, or a failure that reaches the caller. Does not look at
callers: a failure handed up is said to be one, and the rule asks the callers with the same function.

Order of the questions, first answer wins: masks that contradict themselves, a huge page, a way out
that does not carry the flag, another source, a feature switched off, a caller that opted in, nobody
told, a purpose that excuses it, only tries that carry the flag, handed up.

Source: the closed verdict set and the reasons of the 2018 audit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headway.audit.csource import words
from headway.audit.csource.failing import Attempt, Ending, Failure, walk
from headway.audit.csource.gfp import evaluate
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.tree import Expr, identifiers
from headway.audit.finding import Evidence

__all__ = ["Judgement", "judge"]

_HUGE_ORDER = re.compile(r"HPAGE|HUGE|PMD_ORDER|PUD_ORDER")
_SIZE_WORDS = re.compile(r"order|size|len|npages|nr_|count|shift|\bsz\b")
_RESERVE = re.compile(r"->|\.|reserve|spare|emergency|free_list|pool")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason; or ``handed``: how the failure reaches the callers."""

    verdict: str  # empty: the callers decide
    reason: str
    evidence: tuple[Evidence, ...] = ()
    handed: str = ""  # null, error pointer, negative; with a verdict: a caller may still mend it


def judge(
    analysis: Analysis, site: Site, flag: str, value: str = "", sure: bool = True
) -> Judgement:
    """Judge one site.

    ``value``: how the callee fails, if it is not an allocator but handed a failure up. ``sure``: in
    that case, whether the callee's allocation always carries the flag.
    """
    carries = site.mask.holds(flag) is True if site.argument >= 0 else sure
    early = _by_mask(analysis, site, flag)
    if early is not None:
        return early
    failure = walk(analysis, site, value)
    for question in (_ways_out, _other_source, _switched_off):
        found = question(analysis, site, failure, flag, carries)
        if found is not None:
            return found
    if site.argument >= 0 and _opted_in(analysis, site, flag):
        return Judgement(
            "failure-tolerated",
            "the caller chose, by a parameter, the attempt that may fail; its other branch waits",
        )
    return _endings(analysis, site, failure, flag, carries)


def _by_mask(analysis: Analysis, site: Site, flag: str) -> Judgement | None:
    mask = site.mask
    line = site.call.line
    size = [a.text for n, a in enumerate(site.call.args) if n != site.argument]
    if "HUGE" in mask.maybe or any(_HUGE_ORDER.search(text) for text in size):
        return Judgement(
            "failure-tolerated",
            "a huge page is only attempted; small ones are the normal case",
            (Evidence(line, "the size or the mask asks for a huge page"),),
        )
    if flag in mask.sure and flag.endswith("NORETRY") and mask.may_hold("__GFP_RETRY_MAYFAIL"):
        return _conflict(line, flag)
    if "__GFP_HIGH" in mask.sure and mask.holds("__GFP_DIRECT_RECLAIM") is False:
        failure = walk(analysis, site)
        if any(ending.off for ending in failure.endings):
            return None
        return Judgement(
            "useless-flag",
            f"an atomic request never reclaims, so {flag} changes nothing",
            (Evidence(line, "the mask holds no __GFP_DIRECT_RECLAIM"),),
        )
    return None


def _conflict(line: int, flag: str) -> Judgement:
    return Judgement(
        "conflicting-flags",
        f"{flag} and __GFP_RETRY_MAYFAIL are set together; the allocator tests {flag} first",
        (Evidence(line, "both flags are in the mask"),),
    )


def _clear(attempt: Attempt, flag: str, carries: bool) -> bool:
    """Whether this attempt may go without the flag."""
    if attempt.mask is None:
        return not (attempt.same and carries)
    return attempt.mask.holds(flag) is not True


def _ways_out(
    analysis: Analysis, site: Site, failure: Failure, flag: str, carries: bool
) -> Judgement | None:
    best: tuple[int, Attempt] | None = None
    for ending in failure.endings:
        for place, attempt in enumerate(ending.attempts):
            both = attempt.mask is not None and {flag, "__GFP_RETRY_MAYFAIL"} <= attempt.mask.sure
            if both and flag.endswith("NORETRY"):
                return _conflict(attempt.line, flag)
            if not _clear(attempt, flag, carries) or (attempt.same and not attempt.smaller):
                continue
            if best is None or (place, attempt.smaller) >= (best[0], best[1].smaller):
                best = (place, attempt)
    if best is None:
        return None
    return _way_out(best[1])


def _way_out(attempt: Attempt) -> Judgement:
    return Judgement(
        _sort_of(attempt),
        _said_of(attempt),
        (Evidence(attempt.line, f"second attempt: {_short(attempt.text)}"),),
    )


def _sort_of(attempt: Attempt) -> str:
    kind = words.family(attempt.callee)
    if kind == "vmalloc":
        return "fallback-vmalloc"
    if kind == "mempool":
        return "fallback-mempool"
    if attempt.smaller:
        return "fallback-smaller-size"
    return "fallback-other"


def _said_of(attempt: Attempt) -> str:
    kind = words.family(attempt.callee)
    if kind in ("vmalloc", "mempool"):
        return f"on failure {attempt.callee}() is asked instead"
    if attempt.smaller:
        return "on failure a smaller size is tried, in the end without the flag"
    return f"on failure {attempt.callee}() is asked without the flag"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _other_source(
    analysis: Analysis, site: Site, failure: Failure, flag: str, carries: bool
) -> Judgement | None:
    sources = list(dict.fromkeys(s for ending in failure.endings for s in ending.sources))
    if sources:
        for line, source, shrinks in sources:
            where = (Evidence(line, f"the result is taken from {_short(source)}"),)
            if shrinks:
                return Judgement("fallback-smaller-size", "a smaller buffer is used instead", where)
            local = analysis.function.types.get(source, "")
            if "[]" in local or source in analysis.function.parameters or source in local:
                return Judgement("fallback-other", "a buffer that is already there is used", where)
            if _RESERVE.search(source):
                return Judgement("fallback-reserve", "something kept for this case is used", where)
            if _purpose(analysis, site, flag) is None:
                return Judgement("fallback-other", "what is already there is used", where)
    return None


def _purpose(analysis: Analysis, site: Site, flag: str) -> words.Purpose | None:
    function = analysis.function
    tests = _tests_of(analysis, site, flag)
    return words.purpose_of(
        function.path, function.name, site.call.op, site.call.text, *tests, own=analysis.purposes
    )


def _switched_off(
    analysis: Analysis, site: Site, failure: Failure, flag: str, carries: bool
) -> Judgement | None:
    for ending in failure.endings:
        for line, name in ending.off:
            return Judgement(
                "disables-feature",
                "without the memory the feature switches itself off",
                (Evidence(line, f"{name}() is called on failure"),),
            )
    return None


def _opted_in(analysis: Analysis, site: Site, flag: str) -> bool:
    """A test of a bare parameter chooses between this site and one that does not carry the flag."""
    graph, parameters = analysis.graph, analysis.function.parameters
    for step in graph.steps:
        if step.kind != "test" or step.expr is None or step.other < 0:
            continue
        if step.expr.text not in parameters or "*" in analysis.function.types[step.expr.text]:
            continue
        one, two = graph.reachable(step.then[0]), graph.reachable(step.other)
        mine, rest = (one, two) if site.step in one else (two, one)
        if site.step in mine - rest:
            for other in analysis.sites:
                if other.step in rest - mine and other.mask.holds(flag) is not True:
                    return other.target == site.target
    return False


def _endings(
    analysis: Analysis, site: Site, failure: Failure, flag: str, carries: bool
) -> Judgement:
    function = analysis.function
    purpose = _purpose(analysis, site, flag)
    if site.argument >= 0 and not carries:
        return _only_sometimes(analysis, site, failure, flag, purpose)
    failing = [e for e in failure.endings if e.kind == "fails"]
    silent = [e for e in failure.endings if e.kind != "fails"]
    if purpose is not None:
        return Judgement(purpose.verdict, purpose.reason, _first(failing or silent))
    if not failing:
        return _nobody_told(function.name, function.returns, silent, failure)
    last = failing[0]
    kept = [a for e in failing for a in e.attempts]
    if any(a.smaller or a.same for a in kept):
        attempt = max(kept, key=lambda a: (a.smaller, a.same))
        return Judgement(
            "bug-keeps-flag" if attempt.smaller else "bug-missing-fallback",
            "it is tried again"
            + (" with less" if attempt.smaller else "")
            + ", but every attempt carries the flag, the last one too",
            (
                Evidence(attempt.line, f"tried again, flag kept: {_short(attempt.text)}"),
                *_first(failing),
            ),
            last.value,
        )
    if kept:
        return Judgement(
            "bug-missing-fallback",
            f"{kept[-1].callee}() behind it carries the flag as well, and then it fails",
            (Evidence(kept[-1].line, f"flag kept: {_short(kept[-1].text)}"), *_first(failing)),
        )
    return Judgement("", "nothing is tried behind it", _first(failing), last.value or "null")


def _first(endings: list[Ending]) -> tuple[Evidence, ...]:
    if not endings:
        return ()
    ending = endings[0]
    told = {"fails": "the failure is returned", "void": "the function ends and tells nobody"}
    note = told.get(ending.kind, "the work goes on")
    return (Evidence(ending.line, f"{note}{': ' + _short(ending.text) if ending.text else ''}"),)


def _nobody_told(name: str, returns: str, silent: list[Ending], failure: Failure) -> Judgement:
    if failure.ignored:
        return Judgement("failure-tolerated", "nobody looks at the result", _first(silent))
    if returns == "void" and words.is_setup(name):
        return Judgement(
            "bug-missing-fallback",
            "a set-up function gives up and tells nobody",
            _first(silent),
        )
    if failure.cut:
        return Judgement("unsure", "too many paths to follow", _first(silent))
    return Judgement("failure-tolerated", "the work goes on without the memory", _first(silent))


def _only_sometimes(
    analysis: Analysis,
    site: Site,
    failure: Failure,
    flag: str,
    purpose: words.Purpose | None,
) -> Judgement:
    """The flag is set on some paths only: who set it there knew why."""
    tests = _tests_of(analysis, site, flag)
    where = (Evidence(site.call.line, f"{flag} is set on some paths only"),)
    if purpose is not None:
        return Judgement(purpose.verdict, purpose.reason, where)
    if any(_SIZE_WORDS.search(text) for text in tests):
        return Judgement(
            "fallback-smaller-size",
            "only the larger sizes carry the flag, the smallest does not",
            where,
        )
    for ending in failure.endings:
        for attempt in ending.attempts:
            if attempt.same:
                return _way_out(attempt)
    return Judgement("failure-tolerated", "the flag is set only where failure is allowed", where)


def _tests_of(analysis: Analysis, site: Site, flag: str) -> list[str]:
    """The tests on which it depends that the mask carries the flag."""
    out: list[str] = []
    if site.argument >= 0:
        argument = site.call.args[site.argument]
        out += [*_choices(argument), *_origins(analysis, argument)]
    graph = analysis.graph
    for number, step in enumerate(graph.steps):
        if step.expr is None:
            continue
        sets = [
            one
            for one in step.sets()
            if one.args[0].text in analysis.variables and flag in _deep(analysis, one, number)
        ]
        for one in sets:
            out += [*_choices(one), *_origins(analysis, one.args[1]), one.args[1].text]
            out += [
                test.expr.text
                for test in graph.steps
                if test.kind == "test" and test.expr is not None and number in test.next()
            ]
    return out


def _choices(expr: Expr) -> list[str]:
    out = [text for arg in expr.args for text in _choices(arg)]
    return [*out, expr.args[0].text] if expr.kind == "cond" else out


def _origins(analysis: Analysis, expr: Expr) -> list[str]:
    """The bodies of the mask macros and the names of the mask functions used."""
    known = analysis.known
    return [t for n in sorted(identifiers(expr)) if n in known for t in (n, known[n].origin)]


def _deep(analysis: Analysis, one: Expr, number: int) -> frozenset[str]:
    return evaluate(one.args[1], analysis.at(number), analysis.known).maybe
