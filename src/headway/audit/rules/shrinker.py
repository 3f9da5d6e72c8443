"""`shrinker`: a function that gives memory back, and asks for memory in a way that calls it again.

A shrinker runs inside reclaim. If it allocates with `__GFP_FS` (GFP_KERNEL) it may be entered again,
or wait for a lock that its own caller holds.

Decides which functions are shrinkers from what they are called with (a `struct shrink_control`), and
looks at their own requests and those of functions of that file one call deep.

Source: mm/shrinker.c and mm/vmscan.c of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="shrinker",
    title="a shrinker allocates in a way that may enter reclaim again",
    verdicts=("shrinker-allocates",),
    severity="error",
)
WORDS = ("scan_objects", "count_objects", "shrink_control", "shrink_scan", "shrink_count")


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every request of a shrinker that may call file systems."""
    by_name = {analysis.function.name: analysis for analysis in analyses}
    for analysis in analyses:
        if not any("shrink_control" in words for words in analysis.function.types.values()):
            continue
        for site in analysis.sites:
            if _reenters(site):
                yield _finding(analysis, analysis, site)
        for step in analysis.graph.steps:
            for call in step.calls():
                inner = by_name.get(call.op)
                if inner is not None and inner is not analysis:
                    for site in inner.sites:
                        if _reenters(site):
                            yield _finding(analysis, inner, site)


def _reenters(site: Site) -> bool:
    return "alloc" in site.call.op and "__GFP_FS" in site.mask.sure


def _finding(shrinker: Analysis, analysis: Analysis, site: Site) -> Finding:
    return finding_at(
        analysis,
        site.call,
        RULE,
        "shrinker-allocates",
        f"{site.call.op}() runs inside reclaim and may start reclaim of file systems again",
        "allocate before, or use GFP_NOWAIT and do without on failure",
        bug=True,
        evidence=(Evidence(shrinker.function.line, f"{shrinker.function.name}() is a shrinker"),),
    )
