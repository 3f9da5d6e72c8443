"""The picture of an incident: every event, every wait; and a page for each incident, with its picture and its fixes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from headway.errors import UsageError
from headway.incidents import INCIDENTS, find
from headway.incidents.picture import svg
from headway.incidents.stage import Incident
from tests.house import tree

PAGES = tree.ROOT / "docs" / "incidents"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(name: str, fix: str | None = None) -> tuple[list[str], int, int, int]:
    """Its words, and how many dots, waits that end, and waits that do not."""
    events, ended = find(name).run(fix)
    root = ElementTree.fromstring(svg("a < b & c", events, ended))
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert words[:2] == ["a < b & c", f"ends in: {ended}"]
    assert [word for word in words if word in [str(event) for event in events]] == [
        str(event) for event in events
    ]
    hollow = sum(circle.get("fill") == "#fff" for circle in root.iter(f"{SVG}circle"))
    bars = sum(path.get("stroke-width") == "4" for path in root.iter(f"{SVG}path"))
    return words, len(list(root.iter(f"{SVG}circle"))) - hollow, bars - hollow, hollow


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.id)
def test_every_event_has_a_dot_and_its_words(incident: Incident) -> None:
    for fix in (None, *(its.name for its in incident.fixes)):
        _, dots, _, for_ever = drawn(incident.id, fix)
        assert dots == len(incident.run(fix)[0])
        assert not for_ever or incident.documented(fix) != "done"


def test_a_wait_is_a_bar_hollow_at_its_foot_if_it_never_ends() -> None:
    assert drawn("E-002")[2:] == (0, 5), (
        "two items, the two workers that have them, and the flusher"
    )
    assert drawn("E-002b", "wait")[2:] == (2, 0)


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.id)
def test_every_incident_has_a_page_with_its_picture_and_each_fix(incident: Incident) -> None:
    text = (PAGES / f"{incident.id.lower()}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {incident.id}: {incident.title}\n")
    assert f"](pictures/{incident.id.lower()}.svg)" in text
    for its in incident.fixes:
        assert f"| `{its.name}` | {its.title} | {its.ends} |\n" in text
    assert f"\n{incident.id.lower()}\n" in (PAGES / "index.md").read_text(encoding="utf-8")


def test_the_command_draws_it(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    from headway.cli.replay import command

    assert command("E-002", "noio", tmp_path / "noio.svg") == 0
    root = ElementTree.parse(tmp_path / "noio.svg").getroot()
    title = root.find(f"{SVG}title")
    assert title is not None and (title.text or "").startswith("E-002, with noio: ")
    with pytest.raises(UsageError, match="needs an incident"):
        command(svg=tmp_path / "none.svg")
