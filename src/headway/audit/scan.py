"""One audit: files to front ends, findings sorted, suppressed ones taken out.

Decides what all languages share: which front end gets which file, which comment suppresses a
finding, and the order of the report. A comment suppresses with its reason, on the finding's line or
the one above: ``headway: ok(reason)``, or ``headway: ok[rule](reason)``; without a reason it does
not count.

Source: the suppression comments of clang-tidy and ruff, which need no reason and should.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from headway.audit import files as walked
from headway.audit.finding import Finding, FrontEnd, Options, Rule, Skipped
from headway.errors import UsageError

__all__ = ["FRONT_ENDS", "Report", "audit", "front_ends", "named_but_skipped", "rules"]

# Modules with an object FRONT_END and what their files' names end with, in the order of the report. A new
# language adds a line here.
FRONT_ENDS: Mapping[str, tuple[str, ...]] = {
    "headway.audit.c": (".c", ".h"),
    "headway.audit.python": (".py", ".pyw"),
}

_SUPPRESSED = re.compile(r"headway:\s*ok(?:\[([\w, -]+)\])?\(\s*([^()]*[^()\s])\s*\)")


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found; ``files`` is the number of files that were looked at."""

    findings: tuple[Finding, ...]
    files: int
    skipped: tuple[Skipped, ...]
    suppressed: int = 0  # by a comment
    known: int = 0  # in the baseline
    elsewhere: int = 0  # outside of what changed


def front_ends() -> list[FrontEnd]:
    """Every language, imported."""
    return [importlib.import_module(name).FRONT_END for name in FRONT_ENDS]


def rules() -> list[Rule]:
    """The rules of all languages."""
    return [rule for front in front_ends() for rule in front.rules]


def audit(paths: Sequence[str], options: Options) -> Report:
    """Judge all files below these paths.

    Raises: UsageError for a path that is not there or a rule that is not known; MissingExtra if a
    language needs what is not installed.
    """
    fronts = _asked(options)
    suffixes = tuple(suffix for ends in FRONT_ENDS.values() for suffix in ends)
    findings: list[Finding] = []
    with ExitStack() as under_way:
        begun = {name: front.begin(options) for name, front in fronts.items()}
        for work in begun.values():
            if work is not None:
                under_way.callback(work.close)
        mine: dict[str, list[str]] = {name: [] for name in fronts}

        def tell(paths: Sequence[str]) -> None:
            for name, files in mine.items():
                some = [path for path in paths if path.lower().endswith(FRONT_ENDS[name])]
                files += some
                if begun[name] is not None:
                    begun[name].add(some)

        met = walked.found(paths, suffixes, tell)
        skipped = met.skipped
        named = frozenset(walked.plain(path) for path in paths).intersection(met.stamps)
        options = dataclasses.replace(options, named=named, stamps=met.stamps)
        for name, front in fronts.items():
            if not mine[name] or not any(options.wants(rule) for rule in front.rules):
                continue
            for each in front.scan(sorted(mine[name]), options, begun[name]):
                if isinstance(each, Finding):
                    findings.append(each)
                else:
                    skipped.append(each)
    kept = _without_suppressed(findings)
    return Report(
        findings=tuple(sorted(set(kept), key=_order)),
        files=len(met.paths),
        skipped=tuple(sorted(set(skipped), key=lambda s: (s.path, s.reason))),
        suppressed=len(findings) - len(kept),
    )


def named_but_skipped(report: Report, paths: Sequence[str]) -> list[Skipped]:
    """Files that were asked for by their own name, and could not be judged as a whole or in part."""
    named = {walked.plain(path) for path in paths}
    return [each for each in report.skipped if each.path in named]


def _asked(options: Options) -> dict[str, FrontEnd]:
    """The languages that may have a wanted rule: no more are imported once all that was named is met."""
    named = options.only | options.ignore
    fronts: dict[str, FrontEnd] = {}
    known: dict[str, None] = {}
    for module in FRONT_ENDS:
        if options.only and named <= known.keys():
            break
        fronts[module] = importlib.import_module(module).FRONT_END
        known.update((rule.id, None) for rule in fronts[module].rules)
    for name in sorted(named - known.keys()):
        raise UsageError(f"rule {name!r} is not known; there are {', '.join(known)}")
    return fronts


def _order(finding: Finding) -> tuple[str, int, str, str]:
    return finding.path, finding.line, finding.rule, finding.site


def _without_suppressed(findings: Sequence[Finding]) -> list[Finding]:
    lines: dict[str, list[str]] = {}
    kept = []
    for finding in findings:
        if finding.path not in lines:
            lines[finding.path] = _lines(finding.path)
        text = lines[finding.path]
        near = text[max(finding.line - 2, 0) : finding.line]
        if not any(_suppresses(line, finding.rule) for line in near):
            kept.append(finding)
    return kept


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    return text.splitlines() if "headway:" in text else []


def _suppresses(line: str, rule: str) -> bool:
    for match in _SUPPRESSED.finditer(line):
        named = match.group(1)
        if named is None or rule in re.split(r"[, ]+", named):
            return True
    return False
