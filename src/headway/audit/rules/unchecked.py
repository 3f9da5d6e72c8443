"""`unchecked`: the result of an allocation is followed although it may be NULL.

Decides from the walk of the failure: on some path from the call the NULL reaches a `->`, a `*`, an
index, or a function that fills memory, with no test between. In a test, or in a function that runs
only at boot (where nothing could be done about it), that is a note and no bug. A request that cannot fail
(`__GFP_NOFAIL`) and a blocking take from a mempool are left out. Not seen: a result handed to a
function that follows it.

Source: the contract of the page allocator, include/linux/gfp_types.h of Linux 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from headway.audit.csource.failing import Failure, walk
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.csource.values import NULL, follows
from headway.audit.csource.words import purpose_of
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="unchecked",
    title="the result of an allocation is followed without a test",
    verdicts=("unchecked-result",),
    severity="error",
)
WORDS = ("GFP_",)
_NULL_ON_FAILURE = re.compile(
    r"^(?:devm_)?k(?:v)?[mzc]alloc(?:_node|_array|_array_node)?$|^kcalloc(?:_node)?$|"
    r"^kmem_cache_z?alloc(?:_node)?$|^(?:devm_)?k(?:v)?mem?dup(?:_nul)?$|^(?:devm_)?kstrn?dup$|"
    r"^(?:devm_)?k(?:v)?calloc$|^alloc_pages?(?:_node)?$|^alloc_skb$|^kvz?alloc(?:_node)?$"
)


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every site whose NULL is followed."""
    for analysis in analyses:
        for site in analysis.sites:
            if _may_be_null(analysis, site) and not _tested_next(analysis, site):
                failure = walk(analysis, site, NULL)
                if (
                    failure.used
                    and not failure.cut
                    and not _seen_by_others(analysis, site, failure)
                ):
                    yield _finding(analysis, site, failure.used[0])


def _may_be_null(analysis: Analysis, site: Site) -> bool:
    if not _NULL_ON_FAILURE.match(site.call.op) or not site.target or site.target == "return":
        return False
    mask = site.mask
    return not mask.may_hold("__GFP_NOFAIL")


def _seen_by_others(analysis: Analysis, site: Site, failure: Failure) -> bool:
    """Whether, in the lines between, a test or a function whose answer is used looked at it."""
    last = failure.used[0][0]
    for number in sorted(analysis.graph.reachable(site.step)):
        step = analysis.graph.steps[number]
        if number == site.step or step.expr is None or not site.call.line <= step.line <= last:
            continue
        if follows(step.expr, site.target):
            continue
        chooses = any(f"{site.target}?" in one.text for one in step.sets())
        if chooses or (step.kind == "test" and site.target in step.expr.text):
            return True
        given = any(arg.text == site.target for call in step.calls() for arg in call.args)
        if given and (step.kind == "test" or step.sets()):
            return True
    return False


def _tested_next(analysis: Analysis, site: Site) -> bool:
    """Whether the very next step tests the result: true of nearly all, and cheap to see."""
    steps = analysis.graph.steps
    number = site.step
    if steps[number].kind == "test":
        return True
    for _ in range(4):
        step = steps[number]
        if not step.then:
            return False
        number = step.then[0]
        after = steps[number]
        if after.kind == "test" and after.expr is not None:
            return site.target in after.expr.text
        if after.kind != "join":
            return False
    return False


def _finding(analysis: Analysis, site: Site, used: tuple[int, str]) -> Finding:
    function, call = analysis.function, site.call
    line, text = used
    purpose = purpose_of(function.path, function.name)
    bug = not function.boot and (purpose is None or "test" not in purpose.reason)
    return finding_at(
        analysis,
        call,
        RULE,
        "unchecked-result",
        f"{call.op}() may return NULL, and {site.target} is followed without a test",
        f"test {site.target} before line {line}, and undo what was done so far",
        bug=bug,
        evidence=(Evidence(line, f"followed here: {text[:60]}"),),
    )
