"""`noretry`: what stands behind each allocation that gives up early.

`__GFP_NORETRY` makes a request fail after one round of reclaim, at random and with memory left to
be had. That is right where something stands behind it, and a bug where the failure reaches a user.

Decides what is said of each site that carries the flag (`flagged` finds them, `judge` asks what
stands behind, `fates` asks the callers), and the remedy.

Source: the 2018 audit of about 65 users of the flag; mm/page_alloc.c of Linux 6.12 for what it does.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.csource import words
from headway.audit.csource.fates import Fates
from headway.audit.csource.flagged import Place, learn, places
from headway.audit.csource.judge import Judgement
from headway.audit.csource.masks import Site
from headway.audit.csource.project import Project, is_own
from headway.audit.csource.said import finding_at
from headway.audit.finding import Finding, Options, Rule

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
CROSSINGS = 2  # of them may lie in files that a further search has to find


def check(project: Project, options: Options) -> Iterator[Finding]:
    """Every site that carries ``options.flag``, judged."""
    flag = options.flag
    offsets = learn(project, flag)
    found = places(project, offsets, flag)
    fates = Fates(project, flag)
    verdicts = [fates.of(place) for place in found]
    # One search serves both: who uses what the headers name, and who calls what hands failure up.
    shared = [name for name, mask in project.shared.items() if mask.may_hold(flag)]
    users = project.look_up_callers(fates.missing, [*shared, *project.shared_allocating])
    for path, uses in users.items():
        if not is_own(path):
            offsets.setdefault(path, []).extend(offset for offset, _ in uses)
    found = places(project, offsets, flag)
    for again in range(CROSSINGS):
        fates.forget()
        verdicts = [fates.of(place) for place in found]
        if not fates.missing or again == CROSSINGS - 1:
            break
        project.look_up_callers(fates.missing)
    seen = set()
    for place, judged in zip(found, verdicts, strict=True):
        finding = _finding(place, judged, options.flag)
        key = (finding.path, finding.line, finding.site)
        if key not in seen:
            seen.add(key)
            yield finding


_FIXES = {
    "bug-keeps-flag": "drop {flag} on the last, smallest attempt",
    "conflicting-flags": "keep one of the two flags: __GFP_RETRY_MAYFAIL to try hard without the OOM "
    "killer, {flag} if something stands behind it",
    "useless-flag": "remove {flag}",
    "unsure": "say in a comment why failure is fine here, or what stands behind it",
}


def _finding(place: Place, found: Judgement, flag: str) -> Finding:
    function, call = place.analysis.function, place.site.call
    bug = found.verdict.startswith("bug")
    reason = found.reason or "nothing is tried behind it, and the failure reaches the caller"
    fix = _FIXES.get(found.verdict, "").format(flag=flag)
    if found.verdict == "bug-missing-fallback":
        fix = _fix_for(call.op, place.site, flag)
    if found.verdict == "fallback-vmalloc" and words.family(call.op) == "slab":
        fix = (
            ""
            if function.name.lstrip("_").startswith("kv")
            else "kvmalloc() does the same in one call"
        )
    return finding_at(
        place.analysis,
        call,
        RULE,
        found.verdict,
        f"{call.op}() may fail early ({flag}): {reason}",
        fix,
        bug=bug,
        evidence=found.evidence,
        severity="error" if bug else "warning" if found.verdict in _FIXES else "note",
    )


def _fix_for(callee: str, site: Site, flag: str) -> str:
    size = [a for n, a in enumerate(site.call.args) if n != site.argument]
    whole = f"drop {flag}; to keep only the OOM killer away use __GFP_RETRY_MAYFAIL"
    if words.family(callee) == "slab" and any(a.kind != "sizeof" for a in size):
        return f"{whole}; for a large buffer use kvmalloc(), which has vmalloc() behind it"
    return f"{whole}, or add a fallback"
