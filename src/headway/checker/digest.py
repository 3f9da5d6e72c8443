"""The key of a state as a few bytes that are the same in every process.

It decides nothing about what belongs into a key (`trial` does). A key names code and types, which no process can
compare with another's: here code is its bytes and constants, a type its name, a set its parts in order. Bound: 128
bits; of a billion states two share one with a chance below 10**-20.

Source: hash compaction in explicit-state search (Wolper and Leroy 1993), with a digest wide enough to forget about.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from hashlib import blake2b
from types import CodeType
from typing import Any


def digest(value: Any) -> bytes:
    """16 bytes that stand for a value made of plain values, code, types, tuples and sets."""
    return blake2b(_told(value), digest_size=16).digest()


def _told(value: Any) -> bytes:
    kind = type(value)
    if kind is int or kind is str or kind is bool or value is None:
        return b"%s" % repr(value).encode()
    if isinstance(value, tuple | list):
        return b"(%s)" % b",".join(map(_told, value))
    if isinstance(value, frozenset | set):
        return b"{%s}" % b"".join(sorted(digest(part) for part in value))
    if isinstance(value, Mapping):
        return b"<%s>" % b"".join(sorted(digest(pair) for pair in value.items()))
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}".encode()
    if dataclasses.is_dataclass(value) and not isinstance(value, enum.Enum):
        parts = tuple(getattr(value, part.name) for part in dataclasses.fields(value))
        return _told((kind, parts))
    return _told(kind) + repr(value).encode()


@functools.cache
def _code(code: CodeType) -> bytes:
    return digest(
        (code.co_qualname, code.co_firstlineno, code.co_code.hex(), code.co_names, code.co_consts)
    )
