"""Which dotted name an expression of a module stands for.

Decides by imports and definitions of the file alone: `t.Lock` is `threading.Lock` after
`import threading as t`. A name that a function assigns, or takes as a parameter, stands for nothing
here, whatever the module imports under it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
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
    for node in statements(tree.body, inside=True):
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


def statements(body: list[ast.stmt], inside: bool = False) -> Iterator[ast.stmt]:
    """All statements in order, with those in branches; with ``inside`` also those of definitions."""
    for node in body:
        yield node
        if isinstance(node, _PLAIN) or (isinstance(node, _DEFINES) and not inside):
            continue
        for part in ("body", "orelse", "handlers", "cases", "finalbody"):
            below = getattr(node, part, None)
            if not below:
                continue
            if part in ("handlers", "cases"):
                for each in below:
                    yield from statements(each.body, inside)
            else:
                yield from statements(below, inside)


_PLAIN = (
    ast.Assign,
    ast.Expr,
    ast.Return,
    ast.AugAssign,
    ast.AnnAssign,
    ast.Raise,
    ast.Import,
    ast.Pass,
)
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def parameters(node: Definition) -> list[ast.arg]:
    """All parameters, in the order of positions, then the keywords."""
    every = node.args
    rest = [arg for arg in (every.vararg, every.kwarg) if arg]
    return [*every.posonlyargs, *every.args, *every.kwonlyargs, *rest]


@dataclass(slots=True)
class Survey:
    """What a function body has in it, without what is defined inside."""

    own: frozenset[str] = frozenset()  # parameters and everything it assigns
    assigns: list[ast.Assign | ast.AnnAssign] = field(default_factory=list)
    returns: list[ast.Return] = field(default_factory=list)
    inner: list[Definition] = field(default_factory=list)


def _walruses(test: ast.expr) -> Iterator[str]:
    """The names that a condition binds, where people write them."""
    match test:
        case ast.NamedExpr(target=ast.Name(id=name)):
            yield name
        case ast.UnaryOp(operand=inside) | ast.Compare(left=inside):
            yield from _walruses(inside)
        case ast.BoolOp(values=several):
            for each in several:
                yield from _walruses(each)


def survey(node: Definition) -> Survey:
    """Look through the statements of a function once."""
    found = Survey()
    names = {arg.arg for arg in parameters(node)}
    elsewhere: set[str] = set()
    for child in statements(node.body):
        match child:
            case ast.Assign(targets=goals):
                found.assigns.append(child)
                names.update(name for goal in goals for name in targets(goal))
            case ast.AnnAssign(target=goal):
                found.assigns.append(child)
                names.update(targets(goal))
            case ast.AugAssign(target=goal) | ast.For(target=goal) | ast.AsyncFor(target=goal):
                names.update(targets(goal))
            case ast.With(items=items) | ast.AsyncWith(items=items):
                for item in items:
                    if item.optional_vars is not None:
                        names.update(targets(item.optional_vars))
            case ast.Return():
                found.returns.append(child)
            case ast.If(test=test) | ast.While(test=test):
                names.update(_walruses(test))
            case ast.Try(handlers=handlers):
                names.update(each.name for each in handlers if each.name)
            case ast.Global(names=others) | ast.Nonlocal(names=others):
                elsewhere.update(others)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.inner.append(child)
    found.own = frozenset(names - elsewhere)
    return found


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
