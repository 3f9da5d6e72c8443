"""`nofail`: `__GFP_NOFAIL` where it cannot be honoured, or where its failure is tested for.

Decides from the mask and the size: a request that never fails must be able to wait; without direct
reclaim the allocator warns and fails all the same. An order above 1 may loop for ever. A test of
the result is dead code, which is worth a note and no more.

Source: mm/page_alloc.c of Linux 6.12 (the warnings of the slow path and of rmqueue).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.failing import walk
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.finding import Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="nofail",
    title="__GFP_NOFAIL where it cannot be honoured, or is not believed",
    verdicts=("nofail-cannot-wait", "nofail-gives-up", "nofail-high-order", "nofail-tested"),
    severity="error",
)
WORDS = ("__GFP_NOFAIL",)


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every misuse of the flag."""
    for analysis in analyses:
        for site in analysis.sites:
            if "__GFP_NOFAIL" in site.mask.sure:
                said = _said(analysis, site)
                if said is not None:
                    verdict, bug, message, fix = said
                    message = f"{site.call.op}(): {message}"
                    yield finding_at(analysis, site.call, RULE, verdict, message, fix, bug=bug)


def _said(analysis: Analysis, site: Site) -> tuple[str, bool, str, str] | None:
    mask, call = site.mask, site.call
    if mask.holds("__GFP_DIRECT_RECLAIM") is False:
        return (
            "nofail-cannot-wait",
            True,
            "never to fail needs to wait, and this mask may not: it can fail all the same",
            "use GFP_KERNEL | __GFP_NOFAIL where it may sleep, else drop the flag and test",
        )
    if "__GFP_NORETRY" in mask.sure:
        return (
            "nofail-gives-up",
            True,
            "__GFP_NORETRY asks to give up early and __GFP_NOFAIL never to",
            "drop __GFP_NORETRY",
        )
    order = [a.text for n, a in enumerate(call.args) if n != site.argument and a.text.isdigit()]
    if call.op.startswith(("alloc_pages", "__get_free_pages")) and order and int(order[-1]) > 1:
        return (
            "nofail-high-order",
            True,
            f"an order of {order[-1]} may not be had for ever, and the request would not end",
            "use kvmalloc(), or order 0 or 1",
        )
    if site.target and walk(analysis, site).tested:
        return (
            "nofail-tested",
            False,
            "the result is tested, and the test can never be true",
            "remove the test and what it guards",
        )
    return None
