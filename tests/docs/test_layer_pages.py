"""One page for each layer, in one shape, with every key that the layer reads."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from headway.core.block.layers import LAYERS
from tests.house import tree

PAGES = tree.ROOT / "docs" / "layers"
SOURCES = tree.PACKAGE / "core" / "block" / "layers"
HEADINGS = ["When", "When not", "Parameters", "Example", "Limits", "See also"]
READS = {"texts", "text", "size", "number", "seconds", "choice", "flag"}


def test_every_layer_has_a_page_and_every_page_a_layer() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert pages == set(LAYERS) == {path.stem for path in SOURCES.glob("[a-z]*.py")}
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert all(f"\n{name}\n" in index for name in LAYERS)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_page_says_what_there_is_to_say(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert f"--layer {name}" in text
    limits = text.split("## Limits")[1]
    assert limits.lstrip().startswith("Reserves: ")
    said = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    assert said == keys(SOURCES / f"{name}.py")


def keys(source: Path) -> set[str]:
    """What a layer reads of its options, itself or in the file of its format."""
    module = tree.parse(source)
    blocks = tree.PACKAGE / "core" / "block"
    read: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "headway.core.block"
        ):
            for name in (*node.names, None):
                parts = (node.module or "").split(".")[3:] + ([name.name] if name else [])
                path = blocks.joinpath(*parts).with_suffix(".py")
                if path.is_file():
                    read |= asked(tree.parse(path))
    return read | asked(module)


def asked(module: ast.Module) -> set[str]:
    return {
        node.args[0].value
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in READS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "options"
        and isinstance(node.args[0], ast.Constant)
    }
