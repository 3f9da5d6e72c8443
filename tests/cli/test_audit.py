"""`headway audit` as a process: formats, exit status, baseline, rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BUG = """
static int start(struct device *d)
{
	d->table = kmalloc(d->size, GFP_KERNEL | __GFP_NORETRY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}
"""


def headway(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(directory / ".cache")}
    return subprocess.run(
        [sys.executable, "-m", "headway", "audit", *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_json_has_the_designed_fields(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    done = headway(tmp_path, "--json", ".")
    assert (done.returncode, done.stderr) == (1, "")
    said = json.loads(done.stdout)
    assert said["files"] == 1 and said["skipped"] == []
    (finding,) = said["findings"]
    assert (finding["path"], finding["line"], finding["function"]) == ("a.c", 4, "start")
    assert (finding["rule"], finding["verdict"]) == ("noretry", "bug-missing-fallback")
    assert finding["bug"] is True and finding["message"] and finding["fix"]


def test_text_groups_by_verdict_with_evidence_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    lines = headway(tmp_path, ".").stdout.splitlines()
    assert lines[0] == "bug-missing-fallback (noretry, bug): 1"
    assert lines[1].startswith("  a.c:4  start: kmalloc() may fail early")
    assert lines[2] == "      a.c:6: the failure is returned: -ENOMEM"
    assert lines[3].startswith("      fix: drop __GFP_NORETRY")
    assert lines[-1] == "1 finding, 1 bug, in 1 file"


def test_the_exit_status_follows_fail_on_and_the_baseline(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    assert headway(tmp_path, "--fail-on", "never", ".").returncode == 0
    assert headway(tmp_path, "--baseline", "known.json", ".").returncode == 2
    updated = headway(tmp_path, "--baseline", "known.json", "--update-baseline", ".")
    assert updated.returncode == 0
    again = headway(tmp_path, "--baseline", "known.json", ".")
    assert again.returncode == 0 and "1 in the baseline" in again.stdout
    (tmp_path / "b.c").write_text(BUG)
    assert headway(tmp_path, "--baseline", "known.json", ".").returncode == 1


def test_misuse_is_one_line_and_two(tmp_path: Path) -> None:
    for words in (["gone"], [], ["--format", "xml", "."], ["--update-baseline", "."]):
        done = headway(tmp_path, *words)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("headway: ")


def test_sarif_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(BUG)
    log = json.loads(headway(tmp_path, "--format", "sarif", ".").stdout)
    assert len(log["runs"][0]["results"]) == 1


def test_the_rules_are_listed_and_each_has_its_page(tmp_path: Path) -> None:
    said = json.loads(headway(tmp_path, "--list-rules", "--json").stdout)
    pages = Path(__file__).parents[2] / "docs" / "audit"
    for rule in said["rules"]:
        text = (pages / f"{rule['id']}.md").read_text(encoding="utf-8")
        assert all(f"`{verdict}`" in text for verdict in rule["verdicts"]), rule["id"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("open.py", b"def f(:\n", "not Python 3 in line 1: "),
        ("zero.py", b"import queue\n\0\n", "cannot contain null bytes"),
        ("latin.py", b"name = '\xe9'\n", "codec can't decode byte 0xe9"),
        ("deep.py", b"x = " + b"(" * 5000 + b")" * 5000, "too many nested parentheses"),
        ("elf.c", b"\x7fELF\0\0 GFP_KERNEL | __GFP_NORETRY", "holds NUL bytes: not text"),
        ("note.txt", b"hello", "no rules for this kind of file"),
        ("self.c", None, "a link that leads nowhere, or in a circle"),
    ],
)
def test_a_named_file_that_cannot_be_judged_is_one_line_and_two(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    if data is None:
        (tmp_path / name).symlink_to(name)
    else:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.c").write_text(BUG)
    done = headway(tmp_path, name, "good.c")
    assert done.returncode == 2
    assert "1 finding, 1 bug" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"headway: cannot audit {name}: ") and said in line


def test_the_same_file_met_on_the_way_is_listed_and_no_misuse(tmp_path: Path) -> None:
    (tmp_path / "open.py").write_text("import queue\nq = queue.Queue()\ndef f(:\n")
    done = headway(tmp_path, ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not read: 1\n  open.py: not Python 3 in line 3: " in done.stdout
