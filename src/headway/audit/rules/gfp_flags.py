"""`gfp-flags`: masks whose flags contradict each other, or have no effect.

Decides from the mask alone, at every call that takes one: pairs of which the allocator can only
follow one, and flags that change nothing in their company. Only what is surely set counts; a mask
that came in as a parameter is never judged.

Source: include/linux/gfp_types.h and mm/page_alloc.c of Linux 6.12 for which flag is tested first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.gfp import Mask
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.csource.tree import Expr, identifiers
from headway.audit.finding import Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="gfp-flags",
    title="flags of one mask contradict each other, or have no effect",
    verdicts=("conflicting-flags", "useless-flag"),
    severity="warning",
)
WORDS = (
    "__GFP_RETRY_MAYFAIL",
    "GFP_ATOMIC |",
    "GFP_ATOMIC|",
    "| GFP_ATOMIC",
    "|GFP_ATOMIC",
    "| GFP_NO",
    "|GFP_NO",
    "GFP_NOWAIT |",
    "GFP_NOWAIT|",
    "GFP_DMA32",
    "__GFP_REPEAT",
)
_CONTEXTS = ("GFP_KERNEL", "GFP_NOFS", "GFP_NOIO", "GFP_NOWAIT", "GFP_ATOMIC", "GFP_USER")
_WAITS = "__GFP_DIRECT_RECLAIM"
_Said = tuple[str, bool, str, str]  # verdict, whether it is a bug, message, fix


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every mask that contradicts itself."""
    for analysis in analyses:
        for site in analysis.sites:
            said = _said(site.call.args[site.argument], site.mask)
            if said is not None:
                yield _finding(analysis, site, said)


def _said(expr: Expr, mask: Mask) -> _Said | None:
    both = _two_contexts(expr)
    if both is not None:
        weaker, stronger = both
        return (
            "conflicting-flags",
            True,
            f"{weaker} is or-ed into {stronger}, which already allows more: the whole is "
            f"{stronger}, and the restriction is lost",
            f"use {weaker} alone if this may not wait or recurse, else {stronger} alone",
        )
    if {"__GFP_NORETRY", "__GFP_RETRY_MAYFAIL"} <= mask.sure:
        return (
            "conflicting-flags",
            False,
            "__GFP_NORETRY and __GFP_RETRY_MAYFAIL are set together; the first is tested first",
            "keep one of the two",
        )
    if {"__GFP_NOFAIL", "__GFP_RETRY_MAYFAIL"} <= mask.sure:
        return (
            "conflicting-flags",
            False,
            "__GFP_RETRY_MAYFAIL asks to be allowed to fail, __GFP_NOFAIL never to",
            "keep one of the two",
        )
    if "__GFP_RETRY_MAYFAIL" in mask.sure and mask.holds(_WAITS) is False:
        return (
            "useless-flag",
            False,
            "a request that never reclaims does not retry: __GFP_RETRY_MAYFAIL changes nothing",
            "remove __GFP_RETRY_MAYFAIL",
        )
    if {"__GFP_DMA", "__GFP_DMA32"} <= mask.sure:
        return (
            "conflicting-flags",
            True,
            "__GFP_DMA and __GFP_DMA32 name two zones; no zone is both",
            "keep the stricter of the two",
        )
    return None


def _two_contexts(expr: Expr) -> tuple[str, str] | None:
    """Two words for a context or-ed together: the weaker adds nothing to the stronger."""
    if expr.kind == "cond" or expr.op not in ("|",):
        return None
    named = [word for word in _CONTEXTS if word in _ored(expr)]
    waiting = [word for word in named if word not in ("GFP_ATOMIC", "GFP_NOWAIT")]
    if len(named) < 2 or not waiting or "GFP_USER" in named:
        return None
    return named[-1], named[0]


def _ored(expr: Expr) -> set[str]:
    if expr.kind == "bin" and expr.op == "|":
        return _ored(expr.args[0]) | _ored(expr.args[1])
    return identifiers(expr) if expr.kind == "id" else set()


def _finding(analysis: Analysis, site: Site, said: _Said) -> Finding:
    verdict, bug, message, fix = said
    return finding_at(
        analysis,
        site.call,
        RULE,
        verdict,
        f"{site.call.op}(): {message}",
        fix,
        bug=bug,
        severity="error" if bug else "warning",
    )
