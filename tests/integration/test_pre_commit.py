"""The hook of `.pre-commit-hooks.yaml`, run by pre-commit itself on commits of a scratch repository.

The environment that pre-commit would make from the network is left out: the hook runs with this interpreter,
everything else is as the manifest says.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pre_commit") is None,
    reason="pre-commit is not installed (./dev test does it)",
)
MANIFEST = Path(__file__).parents[2] / ".pre-commit-hooks.yaml"
BUG = """static int start(struct device *d)
{
	d->table = kmalloc(d->size, GFP_KERNEL | __GFP_NORETRY);
	if (!d->table)
		return -ENOMEM;
	return 0;
}
"""
FINE = BUG.replace(" | __GFP_NORETRY", "")


class Scratch:
    """A git repository with the hook installed."""

    def __init__(self, place: Path) -> None:
        self.top = place / "repo"
        self.top.mkdir()
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        identity = {
            f"GIT_{who}_{what}": "t@t"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        homes = {"PRE_COMMIT_HOME": str(place / "home"), "XDG_CACHE_HOME": str(place / "cache")}
        self.environment = {**own, **identity, **homes}
        self.run("git", "init", "-q")
        lines = MANIFEST.read_text(encoding="utf-8").replace(
            "entry: ", f"entry: {sys.executable} -m "
        )
        lines = lines.replace("language: python", "language: system")
        kept = [line for line in lines.splitlines() if "additional_dependencies" not in line]
        hooks = "\n".join(f"      {line}" for line in kept)
        config = f"repos:\n  - repo: local\n    hooks:\n{hooks}\n"
        (self.top / ".pre-commit-config.yaml").write_text(config)
        self.run(sys.executable, "-m", "pre_commit", "install")

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.top, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, name: str, text: str) -> None:
        (self.top / name).parent.mkdir(exist_ok=True)
        (self.top / name).write_text(text)

    def commit(self) -> tuple[int, str]:
        """Add everything and commit: the exit status, and what was said."""
        self.run("git", "add", "-A")
        words = ["git", "commit", "-qm", "change"]
        done = subprocess.run(
            words, cwd=self.top, env=self.environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr


def test_the_manifest_is_one_that_pre_commit_takes() -> None:
    words = [sys.executable, "-m", "pre_commit", "validate-manifest", str(MANIFEST)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_commit_is_held_back_for_what_it_brings_and_nothing_else(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.write("sub/a.c", BUG)
    status, said = scratch.commit()  # the very first commit: there is no revision yet
    assert status == 1 and "sub/a.c:3  start: kmalloc() may fail early" in said
    scratch.write("sub/a.c", FINE)
    assert scratch.commit()[0] == 0
    scratch.write("sub/a.c", FINE + BUG.replace("start", "again"))
    status, said = scratch.commit()
    assert status == 1 and "sub/a.c:10  again: " in said
    scratch.run("git", "commit", "-qn", "-m", "known")
    scratch.write("sub/a.c", FINE.replace("return 0", "return 1") + BUG.replace("start", "again"))
    assert scratch.commit()[0] == 0  # again() was not touched


def test_a_file_that_is_no_python_holds_the_commit_back(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.write("a.py", "def f(:\n")
    status, said = scratch.commit()
    assert status == 1 and "headway: cannot audit a.py: not Python 3 in line 1: " in said
    scratch.write("a.py", "def f(): ...\n")
    scratch.write("notes.txt", "not for this hook")
    assert scratch.commit()[0] == 0
