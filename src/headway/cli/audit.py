"""`headway audit PATH...`: triage allocation call sites in C, and pool use in Python."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.app import FLAG, Debug, Json
from headway.cli.completing import rules
from headway.cli.console import print_json, say
from headway.errors import UsageError

if TYPE_CHECKING:
    from headway.audit.scan import Report

_FORMATS = ("text", "json", "sarif")
_RARELY = (200_000, 50, 100)  # objects, and rounds of the younger ones, between two looks
_LEVELS = ("bug", "warning", "note", "never")


Flag = Annotated[str, typer.Option(metavar="FLAG", help="Which flag the rule noretry follows.")]
Format = Annotated[str, typer.Option("--format", metavar="FORMAT", help="text, json or sarif.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", autocompletion=rules, help="Only this rule; repeat for more."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", autocompletion=rules, help="Not this rule; repeat for more."),
]
ListRules = Annotated[
    bool, typer.Option("--list-rules", metavar=FLAG, help="Show the rules and end.")
]
Baseline = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Findings in there are known: hide them.")
]
Update = Annotated[
    bool,
    typer.Option(
        "--update-baseline", metavar=FLAG, help="Write what is found now to the baseline."
    ),
]
Diff = Annotated[
    str | None, typer.Option(metavar="REV", help="Only functions changed since this revision.")
]
FailOn = Annotated[
    str, typer.Option(metavar="LEVEL", help="Exit with 1 at: bug, warning, note, never.")
]
Jobs = Annotated[int, typer.Option(metavar="N", min=0, help="Processes (0: one per processor).")]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", metavar=FLAG, help="Neither use nor keep what earlier runs found."),
]


def command(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH", help="Files and directories.")
    ] = None,
    flag: Flag = "__GFP_NORETRY",
    output: Format = "text",
    only: Only = None,
    ignore: Ignore = None,
    list_rules: ListRules = False,
    baseline: Baseline = None,
    update_baseline: Update = False,
    diff: Diff = None,
    fail_on: FailOn = "bug",
    jobs: Jobs = 0,
    no_cache: NoCache = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Judge how C code takes memory, and how Python code takes from pools. Nothing is run.

    Exit status: 0 clean, 1 findings at or above --fail-on, 2 misuse, or a file named here cannot be read.
    """
    output = "json" if as_json else output
    _check(output, fail_on, update_baseline, baseline)
    if list_rules:
        _show_rules(output == "json")
        return 0
    if not paths:
        raise UsageError("no path given: headway audit PATH..., or --list-rules")
    from headway.audit import report as reports
    from headway.audit import scan
    from headway.audit.finding import Options
    from headway.audit.settings import settings_near

    # Much is made that lives to the end, and next to nothing that points to itself: look for that rarely.
    gc.set_threshold(*_RARELY)
    settings = settings_near(paths[0])
    with _progress() as progress:
        options = Options(
            only=frozenset(only or ()),
            ignore=frozenset(ignore or ()),
            flag=flag,
            jobs=jobs,
            cache=None if no_cache else _cache(),
            names=settings.names,
            purposes=settings.purposes,
            progress=progress,
        )
        report = scan.audit(paths, options)
    if diff is not None:
        report = _only_changed(report, diff, paths)
    if baseline is not None:
        report = _without_known(report, baseline, update_baseline)
    _print(report, output)
    unread = scan.named_but_skipped(report, paths)
    for each in unread:
        print(f"headway: cannot audit {each.path}: {each.reason}", file=sys.stderr)
    return 2 if unread else 1 if reports.fails(report, fail_on) else 0


def _check(output: str, fail_on: str, update: bool, baseline: Path | None) -> None:
    if output not in _FORMATS:
        raise UsageError(f"--format {output}: choose from {', '.join(_FORMATS)}")
    if fail_on not in _LEVELS:
        raise UsageError(f"--fail-on {fail_on}: choose from {', '.join(_LEVELS)}")
    if update and baseline is None:
        raise UsageError("--update-baseline needs --baseline FILE to write to")


def _show_rules(as_json: bool) -> None:
    from headway.audit import scan

    rules = scan.rules()
    if as_json:
        print_json({"rules": [dataclasses.asdict(rule) for rule in rules]})
        return
    for rule in rules:
        say(f"{rule.id:18} {rule.title}{'' if rule.default else ' (only if named)'}")


def _only_changed(report: Report, revision: str, paths: list[str]) -> Report:
    from headway.audit.changed import changed_lines, touches

    changed = changed_lines(revision, paths)
    kept = tuple(f for f in report.findings if touches(f, changed))
    count = len(report.findings) - len(kept)
    return dataclasses.replace(report, findings=kept, elsewhere=count)


def _without_known(report: Report, path: Path, update: bool) -> Report:
    from headway.audit.fingerprint import fingerprints, read_baseline, write_baseline

    if update:
        write_baseline(path, report.findings)
    known = read_baseline(path)
    names = fingerprints(report.findings)
    pairs = zip(report.findings, names, strict=True)
    kept = tuple(f for f, name in pairs if (name, f.verdict) not in known)
    count = len(report.findings) - len(kept)
    return dataclasses.replace(report, findings=kept, known=count)


def _print(report: Report, output: str) -> None:
    from headway.audit import report as reports

    if output == "text":
        say(*(line.encode("utf-8", "replace").decode() for line in reports.as_text(report)))
    elif output == "json":
        print_json(reports.as_json(report))
    else:
        from importlib.metadata import PackageNotFoundError, version

        from headway.audit import scan
        from headway.audit.sarif import as_sarif

        try:
            own = version("headway")
        except PackageNotFoundError:
            own = "0.0.0"
        say(json.dumps(as_sarif(report, scan.rules(), own), indent=1))


def _cache() -> Path | None:
    """Where earlier answers are kept: the user's cache directory."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        top = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return top / "headway"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """One line on standard error, if that is a terminal; gone when the work is done."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = 0

    def show(stage: str, done: int, count: int) -> None:
        nonlocal shown
        percent = 100 * done // max(count, 1)
        if percent != shown or done == count:
            shown = percent
            sys.stderr.write(f"\r\x1b[Kauditing: {stage} {percent} % of {count} files")
            sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
