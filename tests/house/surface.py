"""Prints the public surface: ``python -m tests.house.surface > tests/house/public_surface.txt``."""

from __future__ import annotations

import importlib

from tests.house import tree


def surface() -> list[str]:
    """``module: name`` for each name in the ``__all__`` of each module that has one, sorted."""
    rows = []
    for name, path in tree.modules().items():
        if "__all__" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(name)
            rows += [f"{name}: {public}" for public in module.__all__]
    return sorted(rows)


if __name__ == "__main__":
    print("\n".join(surface()))
