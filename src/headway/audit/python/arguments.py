"""What the arguments of a call say about its wait: whether it may, and whether it has an end.

Decides by constants alone: a flag that is a variable may be False, so the call is taken not to wait; a
time-out that is a variable is a time-out.
"""

from __future__ import annotations

import ast

from headway.audit.python.facts import Pool
from headway.audit.python.shapes import FLAGS, TIMEOUTS

_NOT_WAITING = frozenset({"NOWAIT", "ATOMIC"})  # headway's masks
_WAITING = frozenset({"KERNEL", "NOFS", "NOIO", "RECLAIM", "DIRECT_RECLAIM"})


def may_wait(node: ast.Call, flag_at: int, pool: Pool | None = None) -> bool:
    """Whether the call is not told otherwise: `blocking=False`, a time-out of 0, a mask of NOWAIT.

    `pool` is what it is a call of: only headway's own take a mask by its place among the arguments.
    """
    if 0 <= flag_at < len(node.args) and _is(node.args[flag_at], False, 0):
        return False
    for keyword in node.keywords:
        if keyword.arg in FLAGS and not isinstance(keyword.value, ast.Constant):
            return False  # it depends
        if keyword.arg in FLAGS and _is(keyword.value, False, 0):
            return False
        if keyword.arg in TIMEOUTS and _is(keyword.value, 0):
            return False
    masks = [keyword.value for keyword in node.keywords if keyword.arg == "gfp"]
    if pool is not None and pool.shape.name.startswith("headway."):
        masks += node.args
    return not any(_waits_not(mask) for mask in masks)


def _waits_not(mask: ast.expr) -> bool:
    """Whether an argument is a mask that never waits."""
    if isinstance(mask, ast.IfExp):
        return _waits_not(mask.body) and _waits_not(mask.orelse)
    flags = _flags(mask)
    return not _NOT_WAITING.isdisjoint(flags) and _WAITING.isdisjoint(flags)


def _flags(mask: ast.expr) -> list[str]:
    """NOWAIT of `Gfp.NOWAIT`, and of one that was imported by itself; and all that are joined by "|"."""
    match mask:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _flags(left) + _flags(right)
    return []


def says_timeout(node: ast.Call, at: int) -> bool:
    """Whether a time-out other than None is passed."""
    if 0 <= at < len(node.args):
        return not _is(node.args[at], None, -1)
    return any(
        keyword.arg is None or (keyword.arg in TIMEOUTS and not _is(keyword.value, None, -1))
        for keyword in node.keywords
    )


def _is(node: ast.expr, *values: object) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -1 in values and isinstance(node.operand, ast.Constant) and node.operand.value == 1
    return isinstance(node, ast.Constant) and node.value in values


def text_of(node: ast.AST) -> str:
    """The source of a call, in one line, not too long."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else text[:77] + "..."


def name_of(func: ast.expr) -> str:
    """What is called, as the source has it."""
    parts: list[str] = []
    node = func
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return text_of(func)
    return ".".join([node.id, *reversed(parts)])


def tested(test: ast.expr, parameters: tuple[str, ...]) -> list[str]:
    """On which parameters, by position and name, and attributes a branch depends."""
    found: list[str] = []
    for child in ast.walk(test):
        if isinstance(child, ast.Name) and child.id in parameters:
            found += [child.id, str(parameters.index(child.id))]
        elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            if child.value.id == "self":
                found.append(f"self.{child.attr}")
    return found
