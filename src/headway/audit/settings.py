"""What a project says about its audit: the table `[tool.headway.audit]` of its `pyproject.toml`.

Decides which file counts (the nearest at or above the first path) and that its table is well formed. What
the names in it mean is the front ends' business.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from headway.errors import UsageError


def names_near(path: str) -> dict[str, list[str]]:
    """The project's own pools, by name; nothing if no settings are found.

    Raises: UsageError if the file is no TOML, or the table is not as the page on names says.
    """
    start = Path(path).resolve()
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            return _names(file)
    return {}


def _names(file: Path) -> dict[str, list[str]]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    table = _table(_table(_table(found, "tool"), "headway"), "audit")
    unknown = sorted(set(table) - {"names"})
    if unknown:
        raise UsageError(f"{file}: [tool.headway.audit] has {unknown[0]!r}; it may have names")
    names = table.get("names", {})
    if not isinstance(names, dict):
        raise UsageError(f"{file}: [tool.headway.audit] names must be a table, it is {names!r}")
    for name, words in names.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{file}: {name!r} must be a list of words, it is {words!r}")
    return names


def _table(above: dict[str, Any], key: str) -> dict[str, Any]:
    found = above.get(key, {})
    return found if isinstance(found, dict) else {}
