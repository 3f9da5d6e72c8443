"""`worth-a-scope`: GFP_NOFS or GFP_NOIO said again and again where one scope would say it once.

A restriction belongs to the context (a lock is held, a transaction is open), not to the allocation:
`memalloc_nofs_save()` says it once, for everything that is called from there too. Since 2017 the kernel's
documentation asks for that.

Decides that a function is worth it if MANY of its own requests spell the same restriction and no scope is
saved in it. That is an opinion about style, so the rule runs only if it is named. It does not decide
whether a caller has a scope already; then the flags are needless, and the scope is too.

Source: Documentation/core-api/gfp_mask-from-fs-io.rst of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.said import finding_at
from headway.audit.finding import Evidence, Finding, Rule

__all__ = ["MANY", "RULE", "WORDS", "check"]

RULE = Rule(
    id="worth-a-scope",
    title="GFP_NOFS or GFP_NOIO spelled out where one scope would do",
    verdicts=("convert-to-scope",),
    severity="note",
    default=False,
)
WORDS = ("GFP_NOFS", "GFP_NOIO")
MANY = 2  # requests of one function with the same restriction


def check(analyses: Sequence[Analysis]) -> Iterator[Finding]:
    """Every function whose requests repeat one restriction."""
    for analysis in analyses:
        if "memalloc_" in analysis.function.text:
            continue
        for word in WORDS:
            sites = [site for site in analysis.sites if _spells(site, word)]
            if len({site.call.line for site in sites}) >= MANY:
                yield _finding(analysis, sites, word)


def _spells(site: Site, word: str) -> bool:
    return "alloc" in site.call.op and word in site.call.args[site.argument].text


def _finding(analysis: Analysis, sites: list[Site], word: str) -> Finding:
    kind = word.removeprefix("GFP_").lower()
    return finding_at(
        analysis,
        sites[0].call,
        RULE,
        "convert-to-scope",
        f"{len(sites)} requests of this function say {word}; what they call is not restricted by it",
        f"save a {kind} scope where the restriction begins (memalloc_{kind}_save()), restore it where it "
        "ends, and say GFP_KERNEL between",
        bug=False,
        evidence=tuple(Evidence(site.call.line, f"{site.call.op}() says {word}") for site in sites),
    )
