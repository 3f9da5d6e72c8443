"""Papers in order: decision records, machine paths, commands of `./dev`, changelog fragments."""

from __future__ import annotations

import re
import subprocess

from tests.house import tree

DECISIONS = tree.ROOT / "docs" / "decisions"
HEADINGS = ("## Context", "## Decision", "## What it costs")
# Folders that exist on one machine only; in pieces, so that this file does not contain them.
MACHINE = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:wo" + r"rk|fa" + r"rm|ro" + r"ot)/")
TEXT = (
    ".py",
    ".md",
    ".txt",
    ".toml",
    ".cfg",
    ".ini",
    ".json",
    ".csv",
    ".jinja",
    ".yml",
    "dev",
    "run",
)


def test_decision_records_are_there_short_and_in_one_shape() -> None:
    records = sorted(path for path in DECISIONS.glob("[0-9]*.md"))
    assert [path.name[:4] for path in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    assert len(records) >= 10
    for path in records:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        assert len(lines) <= 60, f"{tree.name(path)} has {len(lines)} lines: a record is one page"
        assert lines[0].startswith(f"# {path.name[:4]}: "), (
            f"{tree.name(path)}: title it with its number"
        )
        at = [text.find(f"\n{heading}\n") for heading in HEADINGS]
        assert -1 not in at and at == sorted(at), f"{tree.name(path)}: its sections are {HEADINGS}"


def test_no_path_of_one_machine_is_in_the_tree() -> None:
    assert MACHINE.search("see /wo" + "rk/x")  # it can find one
    said = []
    for path in tree.files(*TEXT):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE.search(line):
                said.append(
                    f"{tree.name(path)}:{number}: use a path relative to the checkout, or tmp_path"
                )
    assert not said, "\n".join(said)


def test_the_build_machine_runs_what_the_readme_says() -> None:
    run = (tree.ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    readme = (tree.ROOT / "README.md").read_text(encoding="utf-8")
    assert run[-2:] == ["./dev test", "./dev check"]
    assert "./dev demo" in readme and "./dev test" in readme


def test_dev_names_every_command_it_has() -> None:
    text = (tree.ROOT / "dev").read_text(encoding="utf-8")
    has = set(re.findall(r"^    ([a-z]+)\) need", text, re.MULTILINE))
    shown = subprocess.run(
        [tree.ROOT / "dev", "help"], capture_output=True, text=True, check=True
    ).stdout
    assert has == set(re.findall(r"^  ([a-z]+) {2}", shown, re.MULTILINE))
    assert has == {"demo", "test", "check", "fix", "fuzz", "bench", "docs", "build"}


def test_dev_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([tree.ROOT / "dev", "dance"], capture_output=True, text=True)
    assert done.returncode == 2 and "no such command: dance" in done.stderr and not done.stdout


def test_changelog_fragments_have_a_kind() -> None:
    for path in tree.files(under=tree.ROOT / "changelog.d"):
        if not path.name.startswith(("_", "README")):
            assert re.fullmatch(r"[\w+-]+\.(added|changed|fixed|removed)\.md", path.name), (
                f"{tree.name(path)}: name it <what>.<added|changed|fixed|removed>.md"
            )
