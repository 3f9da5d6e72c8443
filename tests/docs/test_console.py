"""Every command shown in the documentation runs, and prints what is shown, figures aside."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import tree

DOCS = tree.ROOT / "docs"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PAGES = sorted(path for path in DOCS.rglob("*.md") if BLOCK.search(path.read_text("utf-8")))
FIGURES = (
    (r"--replay \S+", "--replay SCHEDULE"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\d[\d,]*(\.\d+)?( [KMG]iB|\.?\d* ?m?s\b)?", "N"),
)


def shown(page: Path) -> list[list[tuple[str, list[str]]]]:
    """The blocks of a page: each a list of commands with the lines that follow them."""
    blocks = []
    for text in BLOCK.findall(page.read_text("utf-8")):
        commands: list[tuple[str, list[str]]] = []
        for line in text.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
        blocks.append(commands)
    return blocks


def without_figures(lines: list[str]) -> list[str]:
    for pattern, word in FIGURES:
        lines = [re.sub(pattern, word, line) for line in lines]
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_its_commands_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="the commands need headway[cli]")
    (tmp_path / "examples").symlink_to(tree.ROOT / "examples")
    for block in shown(page):
        status = 0
        for command, lines in block:
            if command == "echo $?":
                assert lines == [str(status)], f"{page.name}: the exit status is {status}"
                status = 0
                continue
            assert status == 0, f"{page.name}: before {command!r}, show the failure with echo $?"
            words = shlex.split(command)
            assert words[0] == "headway", f"{page.name}: {command!r} is no command of headway"
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=tmp_path, text=True, timeout=120,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            status = done.returncode
            assert without_figures(done.stdout.splitlines()) == without_figures(lines), command
        assert status == 0, f"{page.name}: show the failure of the last command with echo $?"
