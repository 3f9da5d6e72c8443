"""Where a running task is, in words that come again when it comes round: so that loops can be folded.

It does not decide what follows from two places that look alike (`automata` does, and looks again). A place
is, for every frame of the user's code, the instruction and all its local values. Three things are *not* in
a frame's locals and would make two places look alike that are not: the iterator of a ``for`` loop, a
suspended generator, an object that changes. Where any is in play there is no place, and no folding.

Source: the trap of folding by locals, found by experiment: a ``for`` loop's position is on the value stack.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeAlias

from headway.checker.shared import is_plain

Place: TypeAlias = tuple[Any, ...]

_MOST_PARTS = 64
_OPAQUE = object()


def place(below: Callable[..., Any], name: Callable[[Any], Any]) -> Place | None:
    """Where the code that calls this is, up to the frame whose function is `below`; None if that cannot be told.

    `name` gives words for a pool or an element, or None for what is neither.
    """
    found: list[Any] = []
    frame: FrameType | None = sys._getframe(1)
    stop = below.__code__
    while frame is not None and frame.f_code is not stop:
        if not str(frame.f_globals.get("__name__", "")).startswith("headway."):
            if _in_for_loop(frame.f_code, frame.f_lasti):
                return None
            values = []
            for key, value in frame.f_locals.items():
                said = _said(value, name)
                if said is _OPAQUE:
                    return None
                values.append((key, said))
            found.append((frame.f_code, frame.f_lasti, tuple(values)))
        frame = frame.f_back
    return tuple(found)


def _said(value: Any, name: Callable[[Any], Any]) -> Any:
    words = name(value)
    if words is not None:
        return words
    if is_plain(value):
        return ("value", type(value), value)
    if isinstance(value, list | tuple) and len(value) <= _MOST_PARTS:
        parts = tuple(_said(part, name) for part in value)
        return _OPAQUE if _OPAQUE in parts else (type(value), *parts)
    code = getattr(value, "__code__", None)
    if code is not None and getattr(value, "__closure__", None) is None:
        return ("code", code)
    return _OPAQUE


@functools.cache
def _for_loops(code: CodeType) -> tuple[tuple[int, int], ...]:
    """From where to where each ``for`` loop of code goes; an iterator is on the stack in there."""
    return tuple(
        (step.offset, step.argval)
        for step in dis.get_instructions(code)
        if step.opname == "FOR_ITER"
    )


def _in_for_loop(code: CodeType, at: int) -> bool:
    return any(start <= at < end for start, end in _for_loops(code))
