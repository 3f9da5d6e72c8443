"""Whether tasks can reach each other by anything but pools; if so, states must not be merged.

It decides from the code, before anything runs, and errs on the safe side: what it cannot see through
counts as shared. Merging two states assumes that a task's future depends on its own history and on
the pools alone. A list in a global name, an attribute that is stored, a variable of an enclosing
function that is written, an object passed to two tasks: each would make two merged states differ.

Walks the function, what it nests, and every function of the same program it names; each is seen once.

Source: the trap of folding by locals, found by experiment: equal looks are not equal futures.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from types import MemberDescriptorType as MemberType
from typing import Any, TypeAlias

_PLAIN = (int, float, complex, str, bytes, bool, type(None), enum.Enum, range, type(Ellipsis))
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"})
_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
# What a task can learn of a pool without an operation of its own.
_LOOKS = frozenset({
    "stats", "reserve_count", "outstanding", "waiters", "holders", "overdue", "alloc_preallocated",
    "room", "used",
})  # fmt: skip
_LIBRARY = frozenset({*sys.stdlib_module_names, "headway"})

Accept: TypeAlias = Callable[[Any, str, Any], bool]


def is_plain(value: Any) -> bool:
    """Whether a value can never change: numbers, text, enums; tuples and frozen dataclasses of such."""
    if isinstance(value, tuple | frozenset):
        return all(is_plain(part) for part in value)
    parameters = getattr(type(value), "__dataclass_params__", None)
    if parameters is not None and parameters.frozen:
        return all(is_plain(getattr(value, part.name)) for part in dataclasses.fields(value))
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


def shared_by(fn: Any, accept: Accept, *, is_first: bool = False) -> str | None:
    """What `fn` shares with others besides pools, in words; None if nothing.

    Of the function itself (`is_first`), which runs once and makes the pools, what it reads does not count: who
    else reads it is found when that one is looked at.
    `accept` is asked of each value that a function takes from outside, whether it is a pool or of one.
    """
    seen: set[Any] = set()
    todo: list[Any] = [fn]
    while todo:
        one = todo.pop()
        if isinstance(one, MethodType) and accept(one, one.__name__, one):
            continue
        if not isinstance(one, FunctionType):
            return f"{_name(one)} is not a plain function"
        if one.__code__ in seen:
            continue
        seen.add(one.__code__)
        if (act := _facts(one.__code__)[1]) is not None:
            return f"{one.__name__} {act}"
        for name, value in _reached(one):
            if accept(one, name, value) or is_plain(value):
                continue
            if isinstance(value, FunctionType) and not _is_library(value):
                todo.append(value)
            elif inspect.isclass(value) and not _is_library(value):
                todo += [part for part in vars(value).values() if isinstance(part, FunctionType)]
                if (bad := _mutable_part(value)) and not is_first:
                    return f"{one.__name__} uses {name}, which has a {bad}"
            elif not _is_harmless(value) and (not is_first or type(value).__module__ == "random"):
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
    """The globals that code reads, and the first thing it does that others can notice or can change."""
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
            return f"writes {step.argval} at line {_line(code, step)}"
        if step.opname in _LOADS and step.argval in _LOOKS:
            return f"looks at {step.argval} at line {_line(code, step)}"
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars:
            return f"writes {step.argval} of an enclosing function"
    return None


def _line(code: CodeType, wanted: dis.Instruction) -> int:
    for start, end, line in code.co_lines():
        if start <= wanted.offset < end and line is not None:
            return line
    return code.co_firstlineno


def _is_harmless(value: Any) -> bool:
    """Whether a value from outside can be no channel between tasks."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] in _LIBRARY
    return isinstance(value, BuiltinFunctionType) or _is_library(value)


def _mutable_part(kind: type) -> str | None:
    """What of a class may change without being stored to: a list, a dictionary, an object."""
    for name, part in vars(kind).items():
        if name.startswith("__") or is_plain(part) or isinstance(part, FunctionType | MemberType):
            continue
        return f"{type(part).__name__} named {name}"
    return None


def _is_library(value: Any) -> bool:
    """Whether a function or class comes with Python or with headway."""
    is_code = inspect.isclass(value) or isinstance(value, FunctionType)
    return is_code and str(value.__module__).partition(".")[0] in _LIBRARY


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__name__))
