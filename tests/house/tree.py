"""What the house tests look at: the files of this checkout, without what tools have made in it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PACKAGE = SRC / "headway"
_MADE = {"__pycache__", "_build", "build", "dist", "node_modules"}


def files(*suffixes: str, under: Path = ROOT) -> Iterator[Path]:
    """Every file below `under` with one of the suffixes (all files if none is given), sorted."""
    for folder, folders, names in os.walk(under):
        folders[:] = sorted(f for f in folders if f not in _MADE and not _is_tools_own(f))
        for name in sorted(names):
            if not suffixes or name.endswith(suffixes):
                yield Path(folder, name)


def _is_tools_own(folder: str) -> bool:
    return folder.endswith(".egg-info") or (folder.startswith(".") and folder != ".ci")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the package."""
    found = {}
    for path in files(".py", under=PACKAGE):
        parts = list(path.relative_to(SRC).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found
