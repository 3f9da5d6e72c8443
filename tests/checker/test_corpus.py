"""Small programs, half of them broken: each is named for the verdict it must get, and a right one is seen whole."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from headway.checker.target import check, replay

FILES = ("nesting", "orders", "batches", "limits", "flights", "asynchronous", "devices", "service")
VERDICTS = ("ok", "deadlock", "livelock", "starvation", "leak", "error")


def programs() -> dict[str, tuple[str, Callable[[], Any]]]:
    found = {}
    for file in FILES:
        module = importlib.import_module(f"tests.checker.corpus.{file}")
        for name, function in vars(module).items():
            verdict = name.partition("_")[0]
            if verdict in VERDICTS and callable(function):
                found[f"{file}.{name}"] = (verdict, function)
    return found


PROGRAMS = programs()


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_gets_the_verdict_in_its_name(name: str) -> None:
    verdict, function = PROGRAMS[name]
    report = check(function, max_schedules=3000, sizes=False)
    assert report.verdict == verdict, report.text()
    assert report.complete == (verdict == "ok"), report.text()
    if verdict == "ok":
        return
    assert report.replay is not None
    again = replay(function, report.replay)
    assert (again.verdict, again.trace) == (report.verdict, report.trace)


def test_there_are_sixty_and_more_and_half_are_broken() -> None:
    broken = sum(1 for verdict, _ in PROGRAMS.values() if verdict != "ok")
    assert len(PROGRAMS) >= 60
    assert 0.4 < broken / len(PROGRAMS) < 0.6
