"""Results as text: the table on the terminal, and the one the documentation quotes.

``python -m bench.show FILE...`` writes the results files, side by side, into docs/benchmarks.md
between its two marks; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def table(rows: Sequence[Row], around: Mapping[str, Any]) -> str:
    """For a terminal: a line for each case and peer, then what the numbers do not show."""
    cells = [("subject", "case", "median", "min..max", "peer", "ratio", "goal", "met")]
    cells += [
        (
            row.subject,
            row.case,
            f"{number(row.value)} {row.unit}",
            _range(row),
            row.peer,
            "" if row.ratio is None else number(row.ratio),
            goal(row),
            "" if row.met is None else "yes" if row.met else "NO",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    lines.append("")
    lines.append(
        f"Python {around['python']}, {around['machine']}, {around['kernel']}, commit {around['commit']}, "
        f"load {around['load_average'][0]}"
    )
    lines.append("min..max is of the ratio where there is one. What the numbers do not show:")
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note and row.case not in notes.setdefault(row.note, []):
            notes[row.note].append(row.case)
    lines += [f"  {', '.join(cases)}: {note}" for note, cases in notes.items()]
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that matter."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def goal(row: Row) -> str:
    if row.goal is None:
        return ""
    return f"{'>=' if row.better == 'higher' else '<='} {number(row.goal)}"


def _range(row: Row) -> str:
    return "" if row.low is None or row.high is None else f"{number(row.low)}..{number(row.high)}"


def page_table(paths: Sequence[Path]) -> str:
    """For the documentation: a column for each Python; then how each file was taken.

    Files of one Python share its column (subjects that were run apart); what is in two is the later one's.
    """
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    pythons = list(dict.fromkeys(str(file["around"]["python"]) for file in files))
    found: dict[tuple[str, str, str], dict[int, Row]] = {}
    for file in files:
        place = pythons.index(str(file["around"]["python"]))
        for kept in file["rows"]:
            row = Row(**{name: value for name, value in kept.items() if name != "met"})
            key = (
                row.subject,
                row.case,
                row.peer.replace(" (best unfair)", "").replace(" (fair)", ""),
            )
            found.setdefault(key, {})[place] = row
    lines = [
        f"| case | beside | goal | {' | '.join(pythons)} |",
        f"|---|---|---|{'---|' * len(pythons)}",
    ]
    for (_, case, peer), rows in found.items():
        goals = [goal(row) for row in rows.values() if row.goal is not None]
        measured = [_cell(rows.get(place)) for place in range(len(pythons))]
        lines.append(f"| {case} | {peer} | {goals[0] if goals else ''} | {' | '.join(measured)} |")
    lines.append("")
    for path, file in zip(paths, files, strict=True):
        around = file["around"]
        lines.append(
            f"- `bench/results/{path.name}`: Python {around['python']}, {around['machine']}, "
            f"{around['processors']} processors, {around['kernel']}, commit {around['commit']}, "
            f"niceness {around['niceness']}, load average {around['load_average'][0]} before "
            f"and {around['load_average_after'][0]} after."
        )
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    text = f"{number(row.value)} {row.unit}" if row.ratio is None else f"{number(row.ratio)}"
    text += f" ({_range(row)})" if row.low != row.high else ""
    return f"**{text}: missed**" if row.met is False else text


def quoted(page: str) -> str:
    """What stands between the marks."""
    return page.split(BEGIN, 1)[1].split(END, 1)[0]


def main(paths: Sequence[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    PAGE.write_text(before + BEGIN + page_table([Path(path) for path in paths]) + END + after)


if __name__ == "__main__":
    main(sys.argv[1:])
