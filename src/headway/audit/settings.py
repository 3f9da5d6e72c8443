"""What a project says about its audit: the table `[tool.headway.audit]` of its `pyproject.toml`.

Decides which file counts (the nearest at or above the first path) and that its table is well formed. What
the names in it mean is the front ends' business.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.errors import UsageError

_Lists = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a project says of itself."""

    names: _Lists = field(default_factory=dict)  # its own pools, by name
    purposes: _Lists = field(default_factory=dict)  # words for which failure is fine, by verdict


def settings_near(path: str) -> Settings:
    """The project's settings; empty if none are found.

    Raises: UsageError if the file is no TOML, or the table is not as the page on names says.
    """
    start = Path(os.path.abspath(path))  # not resolved: a link may lead in a circle
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return _settings(file)
    return Settings()


def _settings(file: Path) -> Settings:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    table = _table(_table(_table(found, "tool"), "headway"), "audit")
    unknown = sorted(set(table) - {"names", "purposes"})
    if unknown:
        raise UsageError(
            f"{file}: [tool.headway.audit] has {unknown[0]!r}; it may have names and purposes"
        )
    return Settings(_lists(file, table, "names"), _lists(file, table, "purposes"))


def _lists(file: Path, table: dict[str, Any], key: str) -> _Lists:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(f"{file}: [tool.headway.audit] {key} must be a table, it is {found!r}")
    for name, words in found.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{file}: {name!r} must be a list of words, it is {words!r}")
    return found


def _table(above: dict[str, Any], key: str) -> dict[str, Any]:
    found = above.get(key, {})
    return found if isinstance(found, dict) else {}
