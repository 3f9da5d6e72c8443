"""Whether tasks can reach each other by anything but pools; if so, states must not be merged.

It decides from the code, before anything runs, and errs on the safe side: what it cannot see through
counts as shared. Merging two states assumes that a task's future depends on its own history and on
the pools alone. A list in a global name, an attribute that is stored, a variable of an enclosing
function that is written, an object passed to two tasks: each would make two merged states differ.

Walks the function, what it nests, and every function of the same program it names; each is seen once.

Source: the trap of folding by locals, found by experiment: equal looks are not equal futures.
"""

from __future__ import annotations

import dis
import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None), enum.Enum, range, type(Ellipsis))
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"})


def is_plain(value: Any) -> bool:
    """Whether a value can never change: numbers, text, enums, and tuples of such."""
    if isinstance(value, tuple | frozenset):
        return all(is_plain(part) for part in value)
    return isinstance(value, _PLAIN)


def closed_over(fn: Any) -> list[Any]:
    """What a function holds of the functions around it, as far as that is bound."""
    found = []
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found


def shared_by(fn: Callable[..., Any], is_pool: Callable[[Any], bool]) -> str | None:
    """What `fn` shares with others besides pools, in words; None if nothing."""
    seen: set[CodeType] = set()
    todo: list[Any] = [fn]
    while todo:
        one = todo.pop()
        if not isinstance(one, FunctionType):
            return f"{_name(one)} is not a plain function"
        if one.__code__ in seen:
            continue
        seen.add(one.__code__)
        if stored := _facts(one.__code__)[1]:
            return f"{one.__name__} writes {stored}"
        for name, value in _reached(one):
            if isinstance(value, FunctionType):
                if not _is_library(value):
                    todo.append(value)
            elif not _is_harmless(value, is_pool):
                return f"{one.__name__} uses {name}, a {type(value).__name__}"
    return None


def _reached(fn: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values behind the names that a function and what it nests take from outside."""
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # not bound yet: nothing there to share
    for value in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
        yield "a default", value
    for name in _facts(fn.__code__)[0]:
        if name in fn.__globals__:
            yield name, fn.__globals__[name]


@functools.cache
def _facts(code: CodeType) -> tuple[tuple[str, ...], str | None]:
    """The globals that code reads, and the first thing it writes that others may see."""
    names: dict[str, None] = {}
    stored = None
    for part in _nested(code):
        stored = stored or _stores(part)
        for step in dis.get_instructions(part):
            if step.opname == "LOAD_GLOBAL":
                names[step.argval] = None
    return tuple(names), stored


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _stores(code: CodeType) -> str | None:
    for step in dis.get_instructions(code):
        if step.opname in _STORES:
            return f"{step.argval} at line {_line(code, step)}"
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars:
            return f"{step.argval} of an enclosing function"
    return None


def _line(code: CodeType, wanted: dis.Instruction) -> int:
    for start, end, line in code.co_lines():
        if start <= wanted.offset < end and line is not None:
            return line
    return code.co_firstlineno


def _is_harmless(value: Any, is_pool: Callable[[Any], bool]) -> bool:
    return (
        is_pool(value)
        or is_plain(value)
        or isinstance(value, ModuleType | BuiltinFunctionType)
        or (inspect.isclass(value) and (value.__module__ == "builtins" or _is_library(value)))
    )


def _is_library(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).split(".")[0] in ("headway", "builtins")


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__name__))
