"""Which dotted name an expression of a module stands for.

Decides by imports and definitions of the file alone: `t.Lock` is `threading.Lock` after
`import threading as t`. A name that a function assigns, or takes as a parameter, stands for nothing
here, whatever the module imports under it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Definition | ast.ClassDef


def module_name(path: str, packages: dict[str, bool]) -> str:
    """The dotted name of a file: its path, up to the first folder that is no package.

    ``packages`` remembers which folders are; it is filled here.
    """
    from os.path import exists

    file = PurePath(path)
    parts = [] if file.stem == "__init__" else [file.stem]
    for folder in file.parents:
        key = str(folder)
        known = packages.get(key)
        if known is None:
            known = packages[key] = exists(f"{key}/__init__.py")
        if not known or not folder.name:
            break
        parts.append(folder.name)
    return ".".join(reversed(parts)) or file.stem


def imports_of(tree: ast.Module, module: str, is_package: bool) -> dict[str, str]:
    """Local name to dotted name, for every import anywhere in the file; the first one counts."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found.setdefault(alias.asname, alias.name)
                else:
                    top = alias.name.partition(".")[0]
                    found.setdefault(top, top)
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, module, is_package)
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, f"{source}.{alias.name}")
    return found


def _source(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    up = node.level - 1 if is_package else node.level
    parts = module.split(".")
    start = ".".join(parts[: len(parts) - up]) if up else module
    return f"{start}.{node.module}" if node.module else start


def targets(node: ast.expr) -> Iterator[str]:
    """The plain names an assignment to this target binds."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Tuple | ast.List):
        for element in node.elts:
            yield from targets(element)
    elif isinstance(node, ast.Starred):
        yield from targets(node.value)


def inner(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without those of functions and classes defined inside."""
    stack = list(ast.iter_child_nodes(node))
    while stack:
        child = stack.pop()
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            stack.extend(ast.iter_child_nodes(child))


def parameters(node: Definition) -> list[ast.arg]:
    """All parameters, in the order of positions, then the keywords."""
    every = node.args
    rest = [arg for arg in (every.vararg, every.kwarg) if arg]
    return [*every.posonlyargs, *every.args, *every.kwonlyargs, *rest]


def bound(node: Definition) -> frozenset[str]:
    """The names that are the function's own: parameters and everything it assigns."""
    names = {arg.arg for arg in parameters(node)}
    elsewhere: set[str] = set()
    for child in inner(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            names.add(child.id)
        elif isinstance(child, ast.Global | ast.Nonlocal):
            elsewhere.update(child.names)
        elif isinstance(child, ast.ExceptHandler) and child.name:
            names.add(child.name)
    return frozenset(names - elsewhere)


def dotted(
    node: ast.expr, imports: dict[str, str], own: frozenset[str], top: frozenset[str], module: str
) -> str:
    """The dotted name, or "" if the expression is none that the file explains."""
    tail: list[str] = []
    while isinstance(node, ast.Attribute):
        tail.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id in own:
        return ""
    if node.id in imports:
        head = imports[node.id]
    elif node.id in top:
        head = f"{module}.{node.id}"
    else:
        head = node.id
    return ".".join([head, *reversed(tail)])
