"""Every line of the README's first screen is true: its commands exist, its example runs, its output is the demo's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import tree

README = (tree.ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN = 40  # lines


def block(after: str, language: str) -> str:
    """The first fenced block in `language` after the text `after`."""
    found = re.search(rf"```{language}\n(.*?)```", README[README.index(after) :], re.DOTALL)
    assert found is not None, f"no {language} block after {after!r}"
    return found[1]


def same_but_for_figures(line: str) -> str:
    """What must agree: all but measured figures and digests."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", line)
    return re.sub(r"\d[\d,]*(\.\d+)?", "N", line).strip()


@pytest.fixture(scope="module")
def demo() -> list[str]:
    pytest.importorskip("typer", reason="the demo runs the command, which needs headway[cli]")
    done = subprocess.run(
        [sys.executable, str(tree.ROOT / "examples" / "demo.py")],
        stdout=subprocess.PIPE, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()


def test_the_output_shown_is_the_demo_s(demo: list[str]) -> None:
    real = [same_but_for_figures(line) for line in demo]
    shown = [line for line in block("./dev demo", "text").splitlines() if line.strip()]
    at = 0
    for line in shown:
        wanted = same_but_for_figures(line)
        assert wanted in real[at:], f"the demo does not print, at or after its line {at}: {line}"
        at = real.index(wanted, at) + 1


def test_the_example_runs_and_is_ten_lines() -> None:
    code = (
        block("import headway", "python")
        if "```python\nimport" not in README
        else block("", "python")
    )
    assert len(code.splitlines()) <= 10
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_first_screen_is_forty_lines() -> None:
    end = README.splitlines().index("## Where to read on")
    assert end <= FIRST_SCREEN, f"the first screen has {end} lines"


def test_its_commands_are_there() -> None:
    script = Path(tree.ROOT / "dev").read_text(encoding="utf-8")
    for command in re.findall(r"\./dev (\w+)", README):
        assert f"    {command})" in script, f"./dev has no {command}"
