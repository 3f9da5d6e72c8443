"""A report as SARIF 2.1.0, for pages that show findings beside the code.

Decides what goes there: only findings that call for something, so that a page is not flooded by what
was found right; each with its rule's page, its fingerprint, and its evidence as a code flow. What
could not be read becomes a notification.

Source: SARIF 2.1.0 (OASIS): sections 3.14 (run), 3.19 (component), 3.27 (result), 3.36 (code flow),
3.20 (invocation).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from headway.audit.finding import Finding, Rule
from headway.audit.fingerprint import fingerprints
from headway.audit.scan import Report

__all__ = ["as_sarif"]

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def as_sarif(report: Report, rules: list[Rule], version: str) -> dict[str, Any]:
    """The report as a SARIF log with one run."""
    names = fingerprints(report.findings)
    shown = [
        (f, name)
        for f, name in zip(report.findings, names, strict=True)
        if f.bug or f.severity != "note" or f.fix
    ]
    places = {rule.id: number for number, rule in enumerate(rules)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "headway audit",
                        "semanticVersion": version,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "toolExecutionNotifications": [
                            {
                                "level": "warning",
                                "message": {"text": f"not read: {skipped.reason}"},
                                "locations": [_place(skipped.path, 1)],
                            }
                            for skipped in report.skipped
                        ],
                    }
                ],
                "results": [_result(f, name, places) for f, name in shown],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.title}. Verdicts: {', '.join(rule.verdicts)}."},
        "help": {"text": f"docs/audit/{rule.id}.md of headway explains each verdict."},
        "defaultConfiguration": {"level": rule.severity, "enabled": rule.default},
        "properties": {"tags": ["memory", "reliability"]},
    }


def _place(path: str, line: int, text: str = "", function: str = "") -> dict[str, Any]:
    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(path, safe="/:@!$&'()*+,;=~-._")},
            "region": {"startLine": max(line, 1)},
        }
    }
    if text:
        place["message"] = {"text": text}
    if function:
        place["logicalLocations"] = [{"name": function, "kind": "function"}]
    return place


def _result(finding: Finding, fingerprint: str, places: dict[str, int]) -> dict[str, Any]:
    said = finding.message + (f". Fix: {finding.fix}" if finding.fix else "")
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": places[finding.rule],
        "level": "error" if finding.bug and finding.severity == "error" else finding.severity,
        "message": {"text": f"{finding.verdict}: {said}"},
        "locations": [_place(finding.path, finding.line, function=finding.function)],
        "partialFingerprints": {"headwayAudit/v1": fingerprint},
        "properties": {"verdict": finding.verdict, "bug": finding.bug},
    }
    if finding.evidence:
        steps = [(finding.path, finding.line, finding.message)]
        steps += [(e.path or finding.path, e.line, e.note) for e in finding.evidence]
        flow = [{"location": _place(path, line, text)} for path, line, text in steps]
        result["codeFlows"] = [{"threadFlows": [{"locations": flow}]}]
    return result
