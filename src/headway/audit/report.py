"""A report as text or as JSON.

Decides the order (bugs first, then what should change, then what was found right), how much each
says (evidence and remedy where something is to be done, one line where not), and the JSON's fields.

Source: the table of the 2018 audit, which was useful because each row had its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headway.audit.finding import Finding
from headway.audit.fingerprint import fingerprints
from headway.audit.scan import Report

__all__ = ["as_json", "as_text", "fails"]

MOST = 20  # files not read that the text names
_LEVELS = ("never", "bug", "warning", "note")


def fails(report: Report, level: str) -> bool:
    """Whether findings are there at or above a level: bug, warning, note; never: no."""
    if level == "bug":
        return any(finding.bug for finding in report.findings)
    if level == "warning":
        return any(f.bug or f.severity != "note" for f in report.findings)
    return level == "note" and bool(report.findings)


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    names = fingerprints(report.findings)
    return {
        "findings": [_row(f, name) for f, name in zip(report.findings, names, strict=True)],
        "files": report.files,
        "skipped": [{"path": s.path, "reason": s.reason} for s in report.skipped],
        "suppressed": report.suppressed,
        "known": report.known,
        "elsewhere": report.elsewhere,
    }


def _row(finding: Finding, fingerprint: str) -> dict[str, Any]:
    return {
        "path": finding.path,
        "line": finding.line,
        "function": finding.function,
        "rule": finding.rule,
        "verdict": finding.verdict,
        "bug": finding.bug,
        "message": finding.message,
        "fix": finding.fix,
        "severity": finding.severity,
        "evidence": [
            {"path": e.path or finding.path, "line": e.line, "note": e.note}
            for e in finding.evidence
        ],
        "fingerprint": fingerprint,
    }


def as_text(report: Report) -> Iterator[str]:
    """The report as lines."""
    groups: dict[tuple[int, str, str], list[Finding]] = {}
    for finding in report.findings:
        rank = 0 if finding.bug else 1 if finding.severity != "note" else 2
        groups.setdefault((rank, finding.rule, finding.verdict), []).append(finding)
    for (rank, rule, verdict), found in sorted(groups.items()):
        sort = ("bug", "should change", "right")[rank]
        yield f"{verdict} ({rule}, {sort}): {len(found)}"
        for finding in found:
            yield from _lines(finding, rank < 2)
        yield ""
    yield from _skipped(report)
    bugs = sum(finding.bug for finding in report.findings)
    rest = [
        f"{count} {what}"
        for count, what in (
            (report.suppressed, "suppressed by a comment"),
            (report.known, "in the baseline"),
            (report.elsewhere, "outside of the change"),
            (len(report.skipped), "not read"),
        )
        if count
    ]
    counts = [_count(len(report.findings), "finding"), _count(bugs, "bug")]
    yield f"{', '.join(counts)}, in {_count(report.files, 'file')}" + (
        f" ({', '.join(rest)})" if rest else ""
    )


def _skipped(report: Report) -> Iterator[str]:
    if not report.skipped:
        return
    yield f"not read: {len(report.skipped)}"
    for each in report.skipped[:MOST]:
        yield f"  {each.path}: {each.reason}"
    if len(report.skipped) > MOST:
        yield f"  and {len(report.skipped) - MOST} more; --json has them all"
    yield ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _lines(finding: Finding, whole: bool) -> Iterator[str]:
    where = f"{finding.path}:{finding.line}"
    yield f"  {where}  {finding.function or '(file)'}: {finding.message}"
    if not whole:
        return
    for step in finding.evidence:
        yield f"      {step.path or finding.path}:{step.line}: {step.note}"
    if finding.fix:
        yield f"      fix: {finding.fix}"
