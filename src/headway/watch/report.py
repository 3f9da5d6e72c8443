"""Reports of several processes as one: merged, without what is known, as text, JSON or a page.

It does not judge. A baseline file lists the keys of findings that are accepted; a key names file and
function, not the line, so that it survives edits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from headway.errors import UsageError
from headway.watch import explain, finding, page
from headway.watch.finding import SEVERITIES

FORMS: Final = (".json", ".html", ".txt")


def gather(folder: Path) -> dict[str, Any]:
    """The report of all processes that wrote into a folder: how many `processes`, and `cut` short before their end."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue  # just being replaced
    merged = merge(found)
    merged["processes"] = len(found)
    merged["cut"] = sum(not report["ended"] for report in found)
    merged["model"] = next((report["model"] for report in found if report.get("model")), None)
    return merged


def merge(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Each finding once, as grave as it was anywhere; the first hang."""
    risks: dict[str, dict[str, Any]] = {}
    hang = None
    for report in reports:
        hang = hang or report["hang"]
        for risk in report["risks"]:
            known = risks.get(risk["key"])
            if known is None or rank(risk["severity"]) > rank(known["severity"]):
                risks[risk["key"]] = risk
    ordered = sorted(risks.values(), key=lambda r: (-rank(r["severity"]), r["kind"], r["key"]))
    return {"risks": ordered, "hang": hang}


def rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def without(report: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The report less what a baseline lists."""
    keys = set(known)
    return {**report, "risks": [risk for risk in report["risks"] if risk["key"] not in keys]}


def load_baseline(name: str) -> tuple[str, ...]:
    """The keys in a baseline file.

    Raises: UsageError if it is none.
    """
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
        return tuple(str(entry["key"]) for entry in found["known"])
    except FileNotFoundError:
        raise UsageError(
            f"baseline {name!r} does not exist: make it with --write-baseline"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"baseline {name!r} is not one ({error!r}): make it with --write-baseline"
        ) from error


def write_baseline(name: str, report: Mapping[str, Any]) -> None:
    """Accept all that was found."""
    known = [{"key": risk["key"], "severity": risk["severity"]} for risk in report["risks"]]
    Path(name).write_text(json.dumps({"known": known}, indent=2) + "\n", encoding="utf-8")


def fails(report: Mapping[str, Any], level: str) -> bool:
    """Whether something is as grave as `level`, or worse; a hang is."""
    return report["hang"] is not None or any(
        rank(risk["severity"]) >= rank(level) for risk in report["risks"]
    )


def text(report: Mapping[str, Any], *, early: bool = False) -> str:
    """The report for reading; the gravest first, the hang before all. `early`: not all came to their end."""
    parts = [] if report["hang"] is None else [explain.text(report["hang"])]
    parts += [finding.text(risk) for risk in report["risks"]]
    counts = [
        f"{sum(risk['severity'] == severity for risk in report['risks'])} {severity}"
        for severity in reversed(SEVERITIES)
    ]
    nothing = "nothing found until then" if early else "nothing found"
    parts.append(", ".join(counts) if report["risks"] or report["hang"] else nothing)
    return "\n".join(parts)


def check_form(name: str) -> None:
    """Whether a report can be written in the form that its name asks for.

    Raises: UsageError if there is no such form.
    """
    if Path(name).suffix not in FORMS:
        raise UsageError(f"--report is {name!r}; its name must end in {', '.join(FORMS)}")


def check_place(option: str, name: str) -> None:
    """Whether a file can be written there, before there is something to write. Writes nothing.

    Raises: UsageError, of the option and the name as given.
    """
    path = Path(name)
    why = ""
    if path.is_dir():
        why = "it is a directory"
    elif not path.parent.is_dir():
        why = f"there is no directory {str(path.parent)!r}"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        why = "not allowed"
    if why:
        raise UsageError(f"{option} {name!r} cannot be written: {why}")


def save(name: str, report: Mapping[str, Any]) -> None:
    """Write a report: a page for ``.html``, text for ``.txt``, else JSON; all of it, or nothing.

    Raises: OSError, of the name as given.
    """
    path = Path(name)
    if path.suffix == ".html":
        said = page.html(report)
    elif path.suffix == ".txt":
        said = text(report) + "\n"
    else:
        said = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(said, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, name) from error
