"""The shell is offered names where an option takes one of a few."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headway.core.block.layers import LAYERS


def offered(line: str) -> list[str]:
    words = line.split(" ")
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_HEADWAY_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [sys.executable, "-m", "headway"], env=os.environ | asked, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("headway copy --source-layer q", ["qcow2"]),
        ("headway serve --layer w", ["writecache"]),
        ("headway audit --only nor", ["noretry"]),
        ("headway replay E-002", ["E-002", "E-002b"]),
        ("headway replay E-002 --fix fs", ["fs-scope", "fs-cache"]),
    ],
)
def test_names_are_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_every_layer_is_offered() -> None:
    assert offered("headway copy --layer ") == list(LAYERS)
