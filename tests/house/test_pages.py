"""Each command and each incident has its page, and the page names all that belongs to it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from headway.incidents import INCIDENTS
from headway.incidents.stage import Incident
from tests.house import tree

DOCS = tree.ROOT / "docs"
SECTIONS = ("## When not", "## Options", "## JSON", "## Exit status", "## Examples")


def commands() -> tuple[str, ...]:
    pytest.importorskip("typer", reason="the commands need headway[cli]")
    from headway.cli.app import _COMMANDS

    return _COMMANDS


def test_each_command_has_a_page_with_all_its_options() -> None:
    names = commands()
    pages = {path.stem for path in (DOCS / "commands").glob("*.md")} - {"index", "models"}
    assert pages == set(names)
    for name in names:
        page = (DOCS / "commands" / f"{name}.md").read_text("utf-8")
        shown = subprocess.run(
            [sys.executable, "-m", "headway", name, "--help"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        options = set(re.findall(r"(?<!\S)--[a-z-]+", shown)) - {"--help"}
        assert "--json" in options
        for option in options:
            assert f"`{option}" in page, f"docs/commands/{name}.md does not name {option}"
        for section in SECTIONS:
            assert f"\n{section}\n" in page, f"docs/commands/{name}.md has no {section!r}"


def test_the_index_lists_them() -> None:
    index = (DOCS / "commands" / "index.md").read_text("utf-8")
    for name in commands():
        assert f"\n{name}\n" in index


def page_of(incident: Incident) -> str:
    return (DOCS / "incidents" / f"{incident.id.lower()}.md").read_text("utf-8")


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.id)
def test_each_incident_has_a_page_with_its_endings(incident: Incident) -> None:
    lines = page_of(incident).splitlines()
    assert lines[0] == f"# {incident.id}: {incident.title}"
    assert f"| *broken* | {incident.title} | {incident.ends} |" in lines
    for fix in incident.fixes:
        assert f"| `{fix.name}` | {fix.title} | {fix.ends} |" in lines
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == len(incident.fixes), "the page lists a fix that is not there"


def test_there_is_no_page_of_an_incident_that_is_not_there() -> None:
    pages = {path.stem for path in (DOCS / "incidents").glob("*.md")} - {"index"}
    assert pages == {incident.id.lower() for incident in INCIDENTS}
