"""A finding at a place of a C function: what all C rules fill in alike.

Decides where a finding is said to be (the function's file and extent, the line and text of the call),
and that a bug is an error and the rest a note, unless the rule says otherwise. Judges nothing.
"""

from __future__ import annotations

from headway.audit.csource.masks import Analysis
from headway.audit.csource.tree import Expr
from headway.audit.finding import Evidence, Finding, Rule, Severity

__all__ = ["finding_at"]


def finding_at(
    analysis: Analysis,
    call: Expr,
    rule: Rule,
    verdict: str,
    message: str,
    fix: str,
    *,
    bug: bool,
    evidence: tuple[Evidence, ...] = (),
    severity: Severity | None = None,
) -> Finding:
    """What ``rule`` says of this call; ``severity`` if it is neither error (bug) nor note."""
    function = analysis.function
    return Finding(
        path=function.path,
        line=call.line,
        function=function.name,
        rule=rule.id,
        verdict=verdict,
        bug=bug,
        message=message,
        fix=fix,
        evidence=evidence,
        severity=severity or ("error" if bug else "note"),
        site=call.text,
        span=(function.line, function.end),
    )
