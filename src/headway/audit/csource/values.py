"""What is known of values on one path, and which tests follow from it.

Decides what NULL, an error pointer, a negative number and zero do in a condition, and whether an
expression surely follows a pointer. Whatever is not known stays unknown: both branches are taken.

Source: include/linux/err.h of Linux 6.12 for error pointers.
"""

from __future__ import annotations

from headway.audit.csource.tree import Expr, stripped

__all__ = ["ERROR", "FAILS", "GOOD", "NEGATIVE", "NULL", "ZERO", "follows", "holds", "value_of"]

NULL, ERROR, NEGATIVE, ZERO, GOOD = "null", "error pointer", "negative", "zero", "good"
FAILS = frozenset((NULL, ERROR, NEGATIVE))
_FALSY = (NULL, ZERO)
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def value_of(expr: Expr | None, known: dict[str, str]) -> str | None:
    """What an expression is worth on this path: null, good, ...; None if that is not known."""
    if expr is None:
        return None
    if expr.text in known:
        return known[expr.text]
    if expr.kind == "call":
        return _called(expr, known)
    if expr.kind == "set":
        return value_of(expr.args[1], known)
    if expr.kind == "un" and expr.op == "-":
        return NEGATIVE
    if expr.kind == "un" and expr.op == "&":
        return GOOD
    if expr.kind == "cond":
        chosen = holds(expr.args[0], known)
        return None if chosen is None else value_of(expr.args[2 - chosen], known)
    if expr.text in ("NULL", "false"):
        return NULL
    if expr.kind == "num":
        return ZERO if expr.text.strip("uUlL") in ("0", "0x0") else GOOD
    return GOOD if expr.text == "true" else None


def _called(call: Expr, known: dict[str, str]) -> str | None:
    inner = value_of(call.args[0], known) if call.args else None
    if call.op == "ERR_PTR":
        return ERROR if inner in (NEGATIVE, ERROR, None) else inner
    if call.op in ("PTR_ERR", "PTR_ERR_OR_ZERO"):
        return NEGATIVE if inner == ERROR else None
    if call.op in ("ERR_CAST", "page_address") or call.op.isupper():
        return inner
    return None


def holds(expr: Expr, known: dict[str, str]) -> bool | None:
    """Whether a test holds; None if that is not known."""
    if expr.kind == "call" and expr.args:
        inner = value_of(expr.args[0], known)
        if expr.op == "IS_ERR" and inner is not None:
            return inner == ERROR
        if expr.op == "IS_ERR_OR_NULL" and inner is not None:
            return inner in (ERROR, NULL)
        if expr.op.startswith("WARN"):
            return holds(expr.args[0], known)
    if expr.kind == "comma" and expr.args:
        return holds(expr.args[-1], known)
    if expr.kind == "bin" and expr.op in ("==", "!=", "<", ">", "<=", ">="):
        return _compared(expr, known)
    if expr.kind == "un" and expr.op == "!":
        inside = holds(expr.args[0], known)
        return None if inside is None else not inside
    value = value_of(stripped(expr), known)
    return None if value is None else value not in _FALSY


def _compared(expr: Expr, known: dict[str, str]) -> bool | None:
    first, right = stripped(expr.args[0]), stripped(expr.args[1])
    op = expr.op
    if first.text in ("NULL", "0"):
        first, right, op = right, first, _TURNED.get(op, op)
    left = value_of(first, known)
    if left is None:
        return None
    if right.text in ("NULL", "0", "false"):
        table = {
            "==": left in _FALSY,
            "!=": left not in _FALSY,
            "<": left == NEGATIVE,
            "<=": left in (NEGATIVE, ZERO, NULL),
            ">=": left != NEGATIVE,
            ">": left == GOOD,
        }
        return table[op]
    return None


_FILLS = ("memset", "memcpy", "strcpy", "strncpy", "strscpy", "strlcpy", "copy_from_user")


def follows(expr: Expr, name: str) -> bool:
    """Whether evaluating the expression surely follows the pointer of that name."""
    if (expr.kind == "un" and expr.op == "&") or expr.kind in ("sizeof", "cond"):
        return False
    if expr.kind == "bin" and expr.op in ("&&", "||"):
        return follows(expr.args[0], name)
    if expr.kind == "field" and expr.text.startswith(name + "->"):
        return True
    if expr.kind in ("index", "un") and expr.args and expr.args[0].text == name:
        return expr.kind == "index" or expr.op == "*"
    if expr.kind == "call":
        if expr.op in _FILLS and expr.args and expr.args[0].text == name:
            return True
        if not expr.op.islower() or expr.op.startswith("__builtin"):
            return False  # a macro may take the size of a field, or its address
    return any(follows(arg, name) for arg in expr.args)
