"""The page of a report: whole, self-contained, a lane for each task, and nothing of a name gets into the markup."""

from __future__ import annotations

import importlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from examples.rounds import both_give_way
from headway.checker import check
from headway.checker.page import html
from headway.checker.report import Report
from tests.checker import gallery


class Reader(HTMLParser):
    """Collects what a reader would see, and checks that tags are closed in order."""

    VOID = ("meta", "!doctype")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[tuple[str, str]]] = []
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag in self.VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((dict(attrs).get("class", ""), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if (self.rows and "td" in self.open) or "th" in self.open:
            look, before = self.rows[-1][-1]
            self.rows[-1][-1] = (look, before + data)


def read(report: Report) -> Reader:
    reader = Reader()
    reader.feed(html(report))
    assert reader.open == ["html"]
    assert reader.sources == []
    return reader


def test_a_deadlock_has_a_lane_for_each_task_and_shows_who_holds_and_who_waits() -> None:
    reader = read(check(gallery.loop_of_2009))
    head, *rows = reader.rows
    assert [text for _, text in head] == ["", "free: bio", "takes_two-1", "takes_two-2"]
    assert [[text for _, text in row] for row in rows] == [
        ["1", "1", "takes 1 of bio", ""],
        ["2", "0", "", "takes 1 of bio"],
        ["3", "0", "asks for 1 of bio, and waits", ""],
        ["4", "0", "", "asks for 1 of bio, and waits"],
    ]
    assert rows[0][2][0] == "lane holds" and rows[0][3][0] == "lane"
    assert rows[3][2][0] == rows[3][3][0] == "lane holds waits stuck"


def test_a_round_is_set_off() -> None:
    assert '<tr class="round">' in html(check(both_give_way))


def test_ok_has_no_lanes() -> None:
    reader = read(check(gallery.no_leak))
    assert reader.rows == []
    assert any("no schedule leads to" in text for text in reader.text)


def test_names_are_text_and_nothing_else() -> None:
    def main() -> None:
        pool = hw.Mempool.of(range(1), name="<script>alert(1)</script>&")
        hw.spawn(gallery.takes_two, pool)

    reader = read(check(main))
    assert any("<script>alert(1)</script>&" in text for text in reader.text)


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer", reason="the command needs headway[cli]")
    run = importlib.import_module("headway.cli.app").run
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.toml").write_text(
        '[pools]\nbio = 2\n[actors.m]\ncount = 2\nsteps = ["+bio", "+bio", "-bio 2"]\n'
    )
    assert run(["check", "m.toml", "--html", "page.html", "--json"]) == 1
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
