"""`noretry`: what stands behind each allocation that gives up early.

`__GFP_NORETRY` makes a request fail after one round of reclaim, at random and with memory left to
be had. That is right where something stands behind it, and a bug where the failure reaches a user.

Decides which sites carry the flag (through variables, macros, and functions that return masks), asks
`judge` for each, and follows a failure that is handed up to the callers, LEVELS of them. If one
caller has nothing behind it, the site is a bug. Not decided: whether a mask that comes in as a
parameter carries the flag; that is its caller's site.

Source: the 2018 audit of about 65 users of the flag; mm/page_alloc.c of Linux 6.12 for what it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from headway.audit.c import words
from headway.audit.c.functions import Function
from headway.audit.c.gfp import Mask
from headway.audit.c.judge import Judgement, judge
from headway.audit.c.masks import Analysis, Site, target_of
from headway.audit.c.project import Project
from headway.audit.c.tree import calls
from headway.audit.finding import Evidence, Finding, Options, Rule

__all__ = ["RULE", "check"]

RULE = Rule(
    id="noretry",
    title="an allocation gives up early, and what stands behind it",
    verdicts=(
        "bug-missing-fallback",
        "bug-keeps-flag",
        "conflicting-flags",
        "useless-flag",
        "unsure",
        "failure-tolerated",
        "readahead-only",
        "disables-feature",
        "fallback-smaller-size",
        "fallback-mempool",
        "fallback-reserve",
        "fallback-vmalloc",
        "fallback-other",
    ),
    severity="error",
)
LEVELS = 3  # of callers that are asked
CROSSINGS = 2  # of them may lie in files that a further search has to find
_OWN = re.compile(r"(^|/)(include/linux/gfp(_types)?\.h|tools/|Documentation/)")


@dataclass(frozen=True, slots=True)
class _Place:
    analysis: Analysis
    site: Site


def check(project: Project, options: Options) -> Iterator[Finding]:
    """Every site that carries ``options.flag``, judged."""
    flag = options.flag
    offsets = _learn(project, flag)
    places = _places(project, offsets, flag)
    fates = _Fates(project, flag)
    verdicts = [fates.of(place) for place in places]
    # One search serves both: who uses what the headers name, and who calls what hands failure up.
    shared = [name for name, mask in project.shared.items() if mask.may_hold(flag)]
    users = project.look_up_callers(fates.missing, [*shared, *project.shared_allocating])
    for path, uses in users.items():
        if not _OWN.search(path):
            offsets.setdefault(path, []).extend(offset for offset, _ in uses)
    places = _places(project, offsets, flag)
    for again in range(CROSSINGS):
        fates.forget()
        verdicts = [fates.of(place) for place in places]
        if not fates.missing or again == CROSSINGS - 1:
            break
        project.look_up_callers(fates.missing)
    seen = set()
    for place, found in zip(places, verdicts, strict=True):
        finding = _finding(place, found, options.flag)
        key = (finding.path, finding.line, finding.site)
        if key not in seen:
            seen.add(key)
            yield finding


def _learn(project: Project, flag: str) -> dict[str, list[int]]:
    """Where the flag, or a name of its own file that carries it, is written."""
    hits = project.find([flag], flag)
    hits = {path: places for path, places in sorted(hits.items()) if not _OWN.search(path)}
    for path, places in hits.items():
        project.learn(path, flag, places)
    project.forget()
    offsets = {path: [offset for offset, _ in places] for path, places in hits.items()}
    for path in offsets:
        file = project.file(path)
        if file is None:
            continue
        local = [name for name, mask in file.masks.items() if mask.may_hold(flag)]
        for name in [*local, *file.allocating]:
            pattern = rb"\b%s\b" % name.encode()
            offsets[path] += [match.start() for match in re.finditer(pattern, file.data)]
    return offsets


def _places(project: Project, offsets: dict[str, list[int]], flag: str) -> list[_Place]:
    """All sites, in order of path and line."""
    out = []
    for path in sorted(offsets):
        file = project.file(path)
        if file is None:
            continue
        macros = {**project.shared_allocating, **file.allocating}
        for analysis in project.functions_at(path, sorted(set(offsets[path]))):
            if analysis.function.returns != "gfp":
                out += [_Place(analysis, s) for s in _sites(analysis, flag, set(macros))]
    return sorted(out, key=lambda p: (p.analysis.function.path, p.site.call.line))


def _sites(analysis: Analysis, flag: str, macros: set[str]) -> Iterator[Site]:
    found = [s for s in analysis.sites if s.mask.may_hold(flag) and not _passes_on(s)]
    named = [site for site in found if words.is_allocator(site.call.op)]
    yield from named or found  # what only looks at a mask matters if nothing allocates
    for number, step in enumerate(analysis.graph.steps):
        for call in calls(step.expr):
            if call.op in macros:
                target = target_of(step.expr, call) or _introduced(analysis, call.op, number)
                yield Site(number, call, Mask(frozenset((flag,)), frozenset((flag,))), -1, target)


def _introduced(analysis: Analysis, macro: str, number: int) -> str:
    """What an allocating macro declares: the argument that is not declared anywhere else."""
    expr = analysis.graph.steps[number].expr
    for call in calls(expr):
        if call.op == macro:
            for arg in call.args:
                if arg.kind == "id" and arg.text not in analysis.function.types:
                    return arg.text
    return ""


def _passes_on(site: Site) -> bool:
    """Whether the call only tests or converts a mask."""
    name = site.call.op
    if words.is_allocator(name):
        return False
    return name.endswith(("_gfp_mask", "_gfp_flags")) or (name.isupper() and not site.target)


class _Fates:
    """What becomes of failures, over the callers; each function is asked once."""

    def __init__(self, project: Project, flag: str) -> None:
        self.project = project
        self.flag = flag
        self.missing: list[Function] = []
        self._known: dict[tuple[str, str, str, bool], Judgement] = {}

    def forget(self) -> None:
        self.missing.clear()
        self._known.clear()

    def of(self, place: _Place) -> Judgement:
        """The judgement of a site, its callers asked."""
        found = judge(place.analysis, place.site, self.flag)
        parameter = self._atomic_callers(place)
        if parameter is not None:
            return parameter
        if found.verdict:
            return found
        sure = place.site.argument < 0 or place.site.mask.holds(self.flag) is True
        asked = self._asked(place.analysis.function, found.handed, sure, LEVELS)
        if asked.verdict == "bug-missing-fallback" and not asked.evidence:
            return Judgement(asked.verdict, found.reason + asked.reason, found.evidence)
        return Judgement(asked.verdict, asked.reason, (*found.evidence, *asked.evidence))

    def _asked(self, function: Function, handed: str, sure: bool, depth: int) -> Judgement:
        key = (function.path, function.name, handed, sure)
        if key in self._known:
            return self._known[key]
        self._known[key] = _NOTHING_BEHIND  # a function that calls itself
        if not self.project.looked_up(function):
            self.missing.append(function)
        callers, taken = self.project.callers(function)
        out: Judgement | None = None
        for caller in callers:
            one = judge(caller.analysis, caller.site, self.flag, handed, sure)
            own = caller.analysis.function
            if not one.verdict:
                deeper = Judgement("bug-missing-fallback", "")
                if depth > 1:
                    deeper = self._asked(own, one.handed, sure, depth - 1)
                one = Judgement(deeper.verdict, deeper.reason, (*one.evidence, *deeper.evidence))
            one = Judgement(one.verdict, one.reason, _elsewhere(one, own, caller.site))
            if out is None or (one.verdict.startswith("bug") and not out.verdict.startswith("bug")):
                out = one
        purpose = words.purpose_of("", "", taken)
        if purpose is not None and (out is None or out.verdict.startswith("bug")):
            where = (Evidence(function.line, "called through a pointer: " + taken.strip()),)
            out = Judgement(purpose.verdict, purpose.reason, where)
        if out is None:
            out = _NOTHING_BEHIND
        self._known[key] = out
        return out

    def _atomic_callers(self, place: _Place) -> Judgement | None:
        """A mask parameter that, on this path, only atomic callers give."""
        analysis, site = place.analysis, place.site
        function = analysis.function
        if site.argument < 0 or site.mask.whole or not function.static:
            return None
        named = [p for p in function.parameters if "gfp_t" in function.types.get(p, "")]
        text = site.call.args[site.argument].text
        named = [name for name in named if re.search(rf"\b{name}\b", text)]
        if len(named) != 1:
            return None
        refused = _refused(analysis, site, named[0])
        position = function.parameters.index(named[0])
        masks = set()
        for caller in self.project.callers(function)[0]:
            args = caller.site.call.args
            if position < len(args) and args[position].text not in refused:
                masks.add(args[position].text)
        if masks and masks <= {"GFP_ATOMIC", "GFP_NOWAIT"}:
            return Judgement(
                "useless-flag",
                f"only {' and '.join(sorted(masks))} comes here, and that never reclaims, so "
                f"{self.flag} changes nothing",
                (Evidence(function.line, f"{named[0]} is given by the callers"),),
            )
        return None


_NOTHING_BEHIND = Judgement("bug-missing-fallback", "")


def _refused(analysis: Analysis, site: Site, name: str) -> set[str]:
    """Mask words that a test on the way here excludes: ``if (gfp != GFP_KERNEL)``."""
    graph = analysis.graph
    out = set()
    for step in graph.steps:
        expr = step.expr
        if step.kind != "test" or expr is None or expr.kind != "bin" or expr.op not in ("!=", "=="):
            continue
        if expr.args[0].text == name and words.family(expr.args[1].text) == expr.args[1].text:
            allowed = step.then[0] if expr.op == "!=" else step.other
            refusing = step.other if expr.op == "!=" else step.then[0]
            if site.step in graph.reachable(allowed) - graph.reachable(refusing):
                out.add(expr.args[1].text)
    return out


def _elsewhere(found: Judgement, function: Function, site: Site) -> tuple[Evidence, ...]:
    """The evidence with its file named, after the call through which the failure came."""
    here = Evidence(site.call.line, f"{function.name}() gets the failure", function.path)
    rest = (Evidence(e.line, e.note, e.path or function.path) for e in found.evidence)
    return (here, *rest)


_FIXES = {
    "bug-keeps-flag": "drop {flag} on the last, smallest attempt",
    "conflicting-flags": "keep one of the two flags: __GFP_RETRY_MAYFAIL to try hard without the OOM "
    "killer, {flag} if something stands behind it",
    "useless-flag": "remove {flag}",
    "unsure": "say in a comment why failure is fine here, or what stands behind it",
}


def _finding(place: _Place, found: Judgement, flag: str) -> Finding:
    function, call = place.analysis.function, place.site.call
    bug = found.verdict.startswith("bug")
    reason = found.reason or "nothing is tried behind it, and the failure reaches the caller"
    fix = _FIXES.get(found.verdict, "").format(flag=flag)
    if found.verdict == "bug-missing-fallback":
        fix = _fix_for(call.op, place.site, flag)
    if found.verdict == "fallback-vmalloc" and words.family(call.op) == "slab":
        fix = "" if function.name.startswith("kv") else "kvmalloc() does the same in one call"
    return Finding(
        path=function.path,
        line=call.line,
        function=function.name,
        rule=RULE.id,
        verdict=found.verdict,
        bug=bug,
        message=f"{call.op}() may fail early ({flag}): {reason}",
        fix=fix,
        evidence=found.evidence,
        severity="error" if bug else "warning" if fix else "note",
        site=call.text,
        span=(function.line, function.end),
    )


def _fix_for(callee: str, site: Site, flag: str) -> str:
    size = [a for n, a in enumerate(site.call.args) if n != site.argument]
    whole = f"drop {flag}; to keep only the OOM killer away use __GFP_RETRY_MAYFAIL"
    if words.family(callee) == "slab" and any(a.kind != "sizeof" for a in size):
        return f"{whole}; for a large buffer use kvmalloc(), which has vmalloc() behind it"
    return f"{whole}, or add a fallback"
