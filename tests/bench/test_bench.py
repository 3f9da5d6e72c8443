"""The benchmarks run, and keep what a reader needs; never how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import show
from bench.__main__ import subjects
from bench.measure import Row, compared

ROOT = Path(__file__).resolve().parents[2]
AROUND = {
    "python", "kernel", "machine", "processors", "commit", "date", "method", "load_average",
}  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    """What a quick run prints, and what it keeps."""
    place = tmp_path_factory.mktemp("bench") / "found.json"
    command = [sys.executable, "-m", "bench", "mempool", "--quick", "--json", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(place.read_text(encoding="utf-8"))


def test_a_quick_run_keeps_machine_commit_and_method(quick: tuple[str, dict[str, dict]]) -> None:
    _, kept = quick
    assert AROUND <= kept["around"].keys()
    assert all(kept["around"][what] for what in AROUND)


def test_every_row_has_its_peer_and_its_verdict(quick: tuple[str, dict]) -> None:
    _, kept = quick
    cases = {(row["case"], row["peer"]) for row in kept["rows"]}
    assert ("pair, fixed elements", "queue.LifoQueue") in cases
    assert ("with lease()", "with Semaphore") in cases
    for row in kept["rows"]:
        assert row["subject"] == "mempool" and row["note"]
        assert row["value"] > 0 and row["low"] <= row["ratio"] <= row["high"]
        assert (row["met"] is None) == (row["goal"] is None)


def test_the_table_shows_each_row_and_the_note(quick: tuple[str, dict]) -> None:
    text, kept = quick
    for row in kept["rows"]:
        assert row["case"] in text and row["note"] in text


def test_all_subjects_are_found() -> None:
    assert {"mempool", "aio", "threads", "arena", "copy"} <= set(subjects())
    assert not {"measure", "show", "__main__"} & set(subjects())


def test_an_unknown_subject_is_named() -> None:
    command = [sys.executable, "-m", "bench", "no_such"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no such subject: no_such" in done.stderr


def test_a_goal_bounds_the_ratio_if_there_is_one_else_the_value() -> None:
    assert Row("case", 7.0, "ns", ratio=0.1, goal=0.13).met is True
    assert Row("case", 7.0, "ns", ratio=0.2, goal=0.13).met is False
    assert Row("case", 1.2, "most/fewest", goal=1.1).met is False
    assert Row("case", 7.0, "ns", ratio=0.9, goal=0.9, better="higher").met is True
    assert Row("case", 7.0, "ns").met is None


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    row = compared("case", [1.0, 10.0, 3.0], "ns", "peer", [2.0, 5.0, 3.0])
    assert (row.ratio, row.low, row.high) == (1.0, 0.5, 2.0)


def test_a_mapping_is_as_good_as_a_row() -> None:
    fields = {"case": "c", "value": 2.0, "unit": "ns", "peer": "p", "ratio": 0.5}
    assert Row.of(fields, "arena") == Row("c", 2.0, "ns", "p", 0.5, subject="arena")


def test_the_page_quotes_the_results_it_names() -> None:
    quoted = show.quoted((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    named = [word for word in quoted.split("`") if word.endswith(".json")]
    assert named, "python -m bench.show bench/results/FILE... fills the page"
    assert quoted == show.page_table([ROOT / name for name in named])


def test_files_of_one_python_share_a_column_and_the_later_counts(tmp_path: Path) -> None:
    paths = []
    for python, case, value in (("3.11.2", "a", 1.0), ("3.13.0", "a", 2.0), ("3.11.2", "b", 3.0)):
        paths.append(tmp_path / f"{len(paths)}.json")
        row = asdict(Row(case, value, "ns"))
        around = {
            "python": python, "machine": "m", "processors": 2, "kernel": "k", "commit": "c",
            "niceness": 0, "load_average": [0], "load_average_after": [0],
        }  # fmt: skip
        paths[-1].write_text(json.dumps({"around": around, "rows": [row]}))
    lines = show.page_table([*paths, paths[0]]).splitlines()
    assert lines[0] == "| case | beside | goal | 3.11.2 | 3.13.0 |"
    assert lines[2:4] == ["| a |  |  | 1 ns | 2 ns |", "| b |  |  | 3 ns |  |"]
