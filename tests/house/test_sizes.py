"""A file reads in one sitting: ceilings as a ratchet. The list of what is over only shrinks."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house import tree

FILE_LINES, FUNCTION_LINES, LEAF_LINES, DOCSTRING_LINES = 400, 60, 150, 25
LIST = Path(__file__).with_name("oversized.txt")
LEAVES = ("src/headway/core/block/layers/", "src/headway/audit/rules/")


def oversized(path: str, text: str) -> dict[str, int]:
    """What is over its ceiling: the file, or ``file::function``, and how many lines it has."""
    found = {}
    ceiling = LEAF_LINES if path.startswith(LEAVES) else FILE_LINES
    if (lines := len(text.splitlines())) > ceiling:
        found[path] = lines
    _walk(ast.parse(text), path + "::", found)
    return found


def _walk(node: ast.AST, prefix: str, found: dict[str, int]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = prefix + child.name
            if not isinstance(child, ast.ClassDef):
                first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                if (lines := (child.end_lineno or first) - first + 1) > FUNCTION_LINES:
                    found[name] = lines
            _walk(child, name + ".", found)
        else:
            _walk(child, prefix, found)


def allowed() -> dict[str, int]:
    rows = (line.split() for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return {row[0]: int(row[1]) for row in rows if row}


def complaints(found: dict[str, int], listed: dict[str, int]) -> list[str]:
    """What to mend; empty if the list says exactly what is there."""
    said = []
    for what, lines in found.items():
        if what not in listed:
            how = "split it by step" if "::" in what else "split it by subject, one idea a file"
            said.append(
                f"{what} has {lines} lines, over its ceiling: {how}; the list takes nothing new"
            )
        elif lines > listed[what]:
            said.append(
                f"{what} grew from {listed[what]} to {lines} lines: split it, it may only shrink"
            )
        elif lines < listed[what]:
            said.append(f"{what} shrank to {lines} lines: write {lines} in {tree.name(LIST)}")
    for what in listed.keys() - found.keys():
        said.append(f"{what} is no longer over its ceiling: take it off {tree.name(LIST)}")
    return sorted(said)


def test_every_file_and_function_is_under_its_ceiling() -> None:
    found: dict[str, int] = {}
    for path in tree.files(".py"):
        found |= oversized(tree.name(path), path.read_text(encoding="utf-8"))
    assert not (said := complaints(found, allowed())), "\n".join(said)


def test_the_ratchet_catches_what_is_new_what_grew_and_what_shrank() -> None:
    long = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert oversized("a.py", f"class C:\n    @property\n{_indent(long)}") == {"a.py::C.f": 62}
    assert oversized("a.py", "x = 1\n" * 401) == {"a.py": 401}
    assert oversized("src/headway/audit/rules/a.py", "x = 1\n" * 151)
    assert oversized("a.py", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)) == {}
    assert "takes nothing new" in complaints({"a.py": 500}, {})[0]
    assert "grew from 450" in complaints({"a.py": 500}, {"a.py": 450})[0]
    assert "write 450" in complaints({"a.py": 450}, {"a.py": 500})[0]
    assert "take it off" in complaints({}, {"a.py": 500})[0]
    assert complaints({"a.py": 450}, {"a.py": 450}) == []


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_every_module_says_what_it_decides_in_few_lines() -> None:
    said = []
    for path in tree.modules().values():
        module = tree.parse(path)
        text = ast.get_docstring(module)
        if module.body and not text:
            said.append(
                f"{tree.name(path)} has no docstring: say what it decides, and what it does not"
            )
        elif text and len(text.splitlines()) > DOCSTRING_LINES:
            said.append(
                f"{tree.name(path)}: docstring over {DOCSTRING_LINES} lines: move the rest to docs/"
            )
    assert not said, "\n".join(said)
