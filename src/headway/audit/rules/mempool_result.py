"""`mempool-result`: a mempool's element tested where it cannot be NULL, or not tested where it can.

Decides from the mask of `mempool_alloc()`: with direct reclaim it waits and never fails, so a test
is dead code (a note: nothing breaks); without, it fails whenever the reserve is empty, and then the
result must be tested.

Source: mm/mempool.c of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.failing import walk
from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.csource.values import NULL
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["RULE", "WORDS", "check"]

RULE = Rule(
    id="mempool-result",
    title="a mempool's result is tested in vain, or not tested although it may fail",
    verdicts=("mempool-unchecked", "mempool-dead-test"),
    severity="error",
)
WORDS = ("mempool_alloc(",)


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every take from a mempool whose test is wrong."""
    for analysis in analyses:
        for site in analysis.sites:
            if site.call.op == "mempool_alloc" and site.target not in ("", "return"):
                waits = site.mask.holds("__GFP_DIRECT_RECLAIM")
                failure = walk(analysis, site, NULL)
                if waits is False and failure.used:
                    yield _unchecked(analysis, site, failure.used[0])
                elif waits is True and failure.tested:
                    yield _dead(analysis, site)


def _unchecked(analysis: Analysis, site: Site, used: tuple[int, str]) -> Finding:
    line, text = used
    return finding_at(
        analysis,
        site.call,
        RULE,
        "mempool-unchecked",
        "mempool_alloc() that may not wait fails when the reserve is empty, and "
        f"{site.target} is followed without a test",
        f"test {site.target}, or use a mask that may wait",
        bug=True,
        evidence=(Evidence(line, f"followed here: {text[:60]}"),),
    )


def _dead(analysis: Analysis, site: Site) -> Finding:
    return finding_at(
        analysis,
        site.call,
        RULE,
        "mempool-dead-test",
        "mempool_alloc() that may wait never fails, so the test of its result is dead code",
        "remove the test and what it guards",
        bug=False,
    )
