"""The core decides and does nothing else: what import contracts cannot see is found in its syntax.

Builtins that touch the world or the interpreter are refused, and so is walking a set: its order
changes from run to run, and a decision that depends on it cannot be replayed.
"""

from __future__ import annotations

import ast

import pytest

from tests.house import tree

REMEDY = {
    "open": "ask for it with Call or Offload (core/plan.py)",
    "input": "take it as an argument",
    "print": "report a finding through the runtime",
    "exec": "say it in plain code",
    "eval": "say it in plain code",
    "globals": "take it as an argument",
    "id": "give it a number or a name of its own: addresses differ between runs",
    "hash": "use an explicit key: string hashes differ between runs",
}
_SET = {"set", "frozenset"}
_ORDER_FREE = {"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset"}
_ORDERED = {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "dict"}


def findings(module: ast.Module) -> list[tuple[int, str]]:
    """Line and remedy of each impurity."""
    sets = _named_sets(module)
    free = {
        id(arg)
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and _called(node) in _ORDER_FREE
        for arg in node.args
    }
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in REMEDY:
            found.append((node.lineno, f"{node.id}: {REMEDY[node.id]}"))
        for walked in _walked(node, free):
            if _is_set(walked, sets):
                what = ast.unparse(walked)
                found.append((walked.lineno, f"order of the set {what}: sort it, or keep a dict"))
    return sorted(found)


def _walked(node: ast.AST, order_free: set[int]) -> list[ast.expr]:
    """The expressions whose order this node makes use of."""
    if isinstance(node, ast.For):
        return [node.iter]
    if (
        isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp)
        and id(node) not in order_free
    ):
        return [generator.iter for generator in node.generators]
    if isinstance(node, ast.Call) and _called(node) in _ORDERED and id(node) not in order_free:
        return list(node.args)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [node.func.value] if node.func.attr == "pop" and not node.args else []
    if isinstance(node, ast.Starred) or (isinstance(node, ast.YieldFrom)):
        return [node.value]
    return []


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _named_sets(module: ast.Module) -> set[str]:
    """Names and attributes that this module binds to a set, or declares as one."""
    named = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and _is_set(node.value, set()):
            named |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            head = ast.unparse(node.annotation).split("[")[0].lower()
            if head in _SET:
                named.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
    return named


def _is_set(node: ast.expr, named: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return _called(node) in _SET
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in named


def test_the_core_is_pure() -> None:
    said = []
    for name, path in tree.modules().items():
        if name.startswith("headway.core") or name == "headway.errors":
            said += [
                f"{tree.name(path)}:{line}: {what}" for line, what in findings(tree.parse(path))
            ]
    assert not said, "\n".join(said)


@pytest.mark.parametrize(
    "code",
    [
        "open('x')",
        "key = id(x)",
        "f = print",
        "for x in {1, 2}: pass",
        "s = set()\nfor x in s: pass",
        "def f(s: frozenset[int]): return [x for x in s]",
        "class C:\n  def __init__(s): s.own: set[int] = set()\n  def f(s): return s.own.pop()",
        "s = {1}\nfirst = next(iter(s))",
        "s = {1}\nf(*s)",
    ],
)
def test_it_finds(code: str) -> None:
    assert findings(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "def id_of(x): return x.id",
        "x.open()",
        "s = {1}\nfor x in sorted(s): pass",
        "s = {1}\nassert all(x > 0 for x in s)",
        "l = [1]\nl.pop()\nfor x in l: pass",
        "s = set()\ns.add(1)\n1 in s",
    ],
)
def test_it_lets_pass(code: str) -> None:
    assert findings(ast.parse(code)) == []
