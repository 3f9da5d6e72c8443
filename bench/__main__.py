"""``python -m bench [SUBJECT...] [--json FILE] [--quick]``: run subjects, print a table, keep the results.

A subject is a module of this package with ``run(quick) -> list`` of rows (`bench.measure.Row`, or
mappings of its fields). `--quick` is for finding out whether they run at all; its numbers mean nothing,
and are kept only where `--json` says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench
from bench import show
from bench.measure import Row

HERE = Path(__file__).resolve().parent
METHOD = (
    "one process a subject; the cases of a comparison in turn in each round; medians over the rounds; a ratio is the "
    "median of the ratios within the rounds; loop cost removed; garbage collector off while timing"
)


def subjects() -> list[str]:
    """The modules that measure something."""
    names = [module.name for module in pkgutil.iter_modules(bench.__path__)]
    return [
        name
        for name in names
        if name != "__main__" and "\ndef run(" in (HERE / f"{name}.py").read_text(encoding="utf-8")
    ]


def rows_of(subject: str, quick: bool) -> list[Row]:
    """In a process of its own: what one subject leaves behind must not weigh on the next."""
    command = [sys.executable, "-m", "bench", subject, "--rows", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Row.of(row, subject) for row in json.loads(done.stdout)]


def _print_rows(subject: str, quick: bool) -> int:
    found = importlib.import_module(f"bench.{subject}").run(quick)
    print(json.dumps([asdict(Row.of(row, subject)) for row in found]))
    return 0


def surroundings() -> dict[str, Any]:
    """What a reader needs to know to judge the numbers."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": _processor(),
        "processors": os.cpu_count(),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "method": METHOD,
    }


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown" if words[0] == "rev-parse" else ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


def _place(around: dict[str, Any]) -> Path:
    major, minor, _ = around["python"].split(".", 2)
    return HERE / "results" / f"{around['date']}-{around['commit']}-py{major}.{minor}.json"


def main(words: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="headway beside its peers")
    parser.add_argument("subject", nargs="*", help=f"of {', '.join(subjects())}; all if none")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--quick", action="store_true", help="does it run? (numbers mean nothing)")
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(None if words is None else list(words))
    chosen = options.subject or subjects()
    if unknown := [name for name in chosen if name not in subjects()]:
        parser.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(subjects())}")
    if options.rows:
        return _print_rows(chosen[0], options.quick)

    around, rows = surroundings(), []
    for name in chosen:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        rows += rows_of(name, options.quick)
    around["load_average_after"] = [round(load, 2) for load in os.getloadavg()]
    print(show.table(rows, around))

    place = options.json or (None if options.quick else _place(around))
    if place is not None:
        kept = [asdict(row) | {"met": row.met} for row in rows]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"around": around, "rows": kept}, indent=1) + "\n")
        print(f"bench: written to {place}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
