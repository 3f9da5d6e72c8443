"""What becomes of a failure that is handed up: the callers are asked, LEVELS of them.

Decides how the answers of several callers make one: if one of them has nothing behind it, the site
is a bug; a function whose address is taken is excused by what it is given to; with no caller known,
nothing stands behind it. Each function is asked once for each way of failing.

Source: the 2018 audit, which read the callers by hand.
"""

from __future__ import annotations

import re

from headway.audit.csource import words
from headway.audit.csource.flagged import Place
from headway.audit.csource.functions import Function
from headway.audit.csource.judge import Judgement, judge
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.project import Project
from headway.audit.finding import Evidence

__all__ = ["Fates"]

LEVELS = 3  # of callers that are asked


class Fates:
    """What becomes of failures, over the callers; each function is asked once."""

    def __init__(self, project: Project, flag: str) -> None:
        self.project = project
        self.flag = flag
        self.missing: list[Function] = []
        self._known: dict[tuple[str, str, str, bool], Judgement] = {}
        self._judged: dict[tuple[Analysis, Site, str, bool], Judgement] = {}

    def forget(self) -> None:
        """Ask the callers anew; what a function says without its callers stays."""
        self.missing.clear()
        self._known.clear()

    def of(self, place: Place) -> Judgement:
        """The judgement of a site, its callers asked."""
        found = self._judge(place.analysis, place.site)
        parameter = self._atomic_callers(place)
        if parameter is not None:
            return parameter
        if found.verdict and not found.handed:
            return found
        sure = place.site.argument < 0 or place.site.mask.holds(self.flag) is True
        asked = self._asked(place.analysis.function, found.handed, sure, LEVELS)
        if found.verdict and (asked.verdict.startswith("bug") or not asked.evidence):
            return found
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
            one = self._judge(caller.analysis, caller.site, handed, sure)
            own = caller.analysis.function
            if not one.verdict:
                deeper = Judgement("bug-missing-fallback", "")
                if depth > 1:
                    deeper = self._asked(own, one.handed, sure, depth - 1)
                one = Judgement(deeper.verdict, deeper.reason, (*one.evidence, *deeper.evidence))
            one = Judgement(one.verdict, one.reason, _elsewhere(one, own, caller.site))
            if out is None or (one.verdict.startswith("bug") and not out.verdict.startswith("bug")):
                out = one
        purpose = words.purpose_of("", "", taken, own=self.project.purposes)
        if purpose is not None and (out is None or out.verdict.startswith("bug")):
            where = (Evidence(function.line, "called through a pointer: " + taken.strip()),)
            out = Judgement(purpose.verdict, purpose.reason, where)
        if out is None:
            out = _NOTHING_BEHIND
        self._known[key] = out
        return out

    def _judge(
        self, analysis: Analysis, site: Site, handed: str = "", sure: bool = True
    ) -> Judgement:
        key = (analysis, site, handed, sure)
        if key not in self._judged:
            self._judged[key] = judge(analysis, site, self.flag, handed, sure)
        return self._judged[key]

    def _atomic_callers(self, place: Place) -> Judgement | None:
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
