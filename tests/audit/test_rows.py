"""The shared rows of the 2018 audit, in fixtures that keep their shape, judged as the expert did.

`python -m tests.audit.test_rows --tree PATH [--rows ROWS.csv]` scores a tree that you have, of 4.17 or 4.18, by the
shared rows, or by rows of your own: with the columns path, function (may be empty) and verdict.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest

from headway.audit.finding import Finding, Options
from headway.audit.scan import audit

HERE = Path(__file__).parent
OPTIONS = Options(only=frozenset(("noretry",)))


@dataclass
class Score:
    rows: int = 0
    bug_or_not: int = 0
    verdict: int = 0
    hits: int = 0
    alarms: int = 0
    missed: int = 0

    def add(self, wanted: str, found: str) -> None:
        bug, said = wanted.startswith("bug"), found.startswith("bug")
        self.rows += 1
        self.bug_or_not += bool(found) and bug == said
        self.verdict += wanted == found
        self.hits += bug and said
        self.alarms += said and not bug
        self.missed += bug and not said

    def __str__(self) -> str:
        precision = self.hits / max(self.hits + self.alarms, 1)
        recall = self.hits / max(self.hits + self.missed, 1)
        return (
            f"{self.rows} rows: bug or not {self.bug_or_not / self.rows:.3f}, "
            f"verdict {self.verdict / self.rows:.3f}, precision {precision:.2f}, recall {recall:.2f}"
        )


def verdict_of(findings: list[Finding]) -> str:
    """What is said of a row: of its first bug, else of its first site."""
    bugs = [finding for finding in findings if finding.bug]
    return (bugs or findings)[0].verdict if findings else ""


def judged(tree: Path, table: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Each row with what is found in its file (a path that ends in / is a directory)."""
    with chdir(tree):
        report = audit(["."], OPTIONS)
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path, function = row["path"], row.get("function", "")
            mine = [
                f
                for f in report.findings
                if (f.path == path or (path.endswith("/") and f.path.startswith(path)))
                and function in ("", f.function)
            ]
            yield row, verdict_of(mine)


@pytest.fixture(scope="module")
def rows() -> list[tuple[dict[str, str], str]]:
    return list(judged(HERE / "c_rows", HERE / "c_rows.csv"))


def test_every_row_has_the_experts_verdict(rows: list[tuple[dict[str, str], str]]) -> None:
    assert len(rows) == 39
    wrong = [(row["row"], row["verdict"], found) for row, found in rows if row["verdict"] != found]
    assert wrong == []


def test_the_score_counts_a_missed_bug_and_a_false_alarm() -> None:
    score = Score()
    score.add("bug-missing-fallback", "failure-tolerated")
    score.add("fallback-other", "bug-missing-fallback")
    score.add("bug-keeps-flag", "bug-missing-fallback")
    score.add("fallback-other", "")
    assert (score.bug_or_not, score.verdict) == (1, 0)
    assert (score.hits, score.alarms, score.missed) == (1, 1, 1)


def test_evidence_names_the_line_where_the_failure_leaves(tmp_path: Path) -> None:
    source = HERE / "c_rows" / "kernel" / "many.c"
    with chdir(HERE / "c_rows"):
        report = audit(["kernel"], OPTIONS)
    lines = source.read_text().splitlines()
    found = next(f for f in report.findings if f.function == "ring_read_page")
    assert "alloc_pages_node(" in lines[found.line - 1]
    assert lines[found.evidence[0].line - 1].strip() == "return ERR_PTR(-ENOMEM);"


def main(arguments: list[str]) -> None:
    """Score a tree, and name each row on which expert and rule differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit.test_rows")
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--rows", type=Path, default=HERE / "rows_2018.csv")
    given = parser.parse_args(arguments)
    score = Score()
    for row, found in judged(given.tree, given.rows.absolute()):
        if row["verdict"] == "missed":
            print(f"{row['path']}: not in the expert's list, found {found or 'nothing'}")
            continue
        score.add(row["verdict"], found)
        if row["verdict"] != found:
            print(f"{row['path']}: expert {row['verdict']}, found {found or 'nothing'}")
    print(score)


def test_a_tree_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tree", str(HERE / "c_rows"), "--rows", str(HERE / "c_rows.csv")])
    said = capsys.readouterr().out
    assert said == "39 rows: bug or not 1.000, verdict 1.000, precision 1.00, recall 1.00\n"


if __name__ == "__main__":
    main(sys.argv[1:])
