"""Which files can matter: decided from their bytes, before any is parsed.

A file matters if it names a library that has pools, and one of its constructors. What it is about is
found by plain substring search first, so most files of a large tree cost one pass over their bytes.
Files that use a pool of another file are found in a second pass, by the names that file gives away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

from headway.audit.python.facts import Instance, Module, Pool
from headway.audit.python.shapes import Kind, Shape

LARGEST = 4 << 20  # bytes; a larger source file is data
_ALONE = frozenset({Kind.EVENT, Kind.THREAD})  # these matter only in coroutines and finalisers
_WHERE = (b"async def", b"__del__")
_PRIVATE = _ALONE | {Kind.LOCK, Kind.REENTRANT}  # not worth reading another file for


class Words:
    """What a file must mention, for one table of shapes."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        libraries: set[bytes] = set()
        last: set[str] = set()
        alone: set[str] = set()
        for shape in shapes:
            for name in (shape.name, *shape.types):
                first, _, rest = name.partition(".")
                if first != "*":
                    libraries.add(first.encode())
                words = alone if shape.kind in _ALONE else last
                words.add(rest.rpartition(".")[2] or first)
        self._anywhere = [
            b"." + shape.name[2:].encode() for shape in shapes if shape.name.startswith("*.")
        ]
        self._libraries = sorted(libraries)
        last.discard("of")
        self._constructors = _any_of(last)
        self._alone = _any_of(alone)

    def matter(self, source: bytes) -> bool:
        if any(word in source for word in self._anywhere):
            return True
        if not any(word in source for word in self._libraries):
            return False
        if self._constructors.search(source) is not None:
            return True
        return any(word in source for word in _WHERE) and self._alone.search(source) is not None


def given_away(modules: Iterable[Module]) -> dict[str, Pool | Instance]:
    """Pools of these files that other files may import, and objects that have such pools."""
    found: dict[str, Pool | Instance] = {}
    owners: set[str] = set()
    for module in modules:
        for place, value in module.exports.items():
            if isinstance(value, Pool) and value.kind not in _PRIVATE:
                found[place] = value
                if place[0] == "i":
                    owners.add(place[2:].rpartition(".")[0])
    for module in modules:
        for place, value in module.exports.items():
            if isinstance(value, Instance) and value.ref in owners and place[0] == "g":
                found[place] = value
    return found


def importable(known: Mapping[str, Pool | Instance]) -> dict[str, set[str]]:
    """By top package, the dotted names under which `known` can be imported."""
    found: dict[str, set[str]] = {}
    for place in known:
        name = place[2:]
        if place[0] == "i":
            name = name.rpartition(".")[0]
        found.setdefault(name.partition(".")[0], set()).add(name)
    return found


def mentions(names: Iterable[str]) -> re.Pattern[bytes]:
    """Finds a file that names one of these by its last part."""
    return _any_of({name.rpartition(".")[2] for name in names})


def _any_of(words: Iterable[str]) -> re.Pattern[bytes]:
    return re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, words)))})\b".encode())


def imports_one(imports: Mapping[str, str], names: Set[str], modules: Set[str]) -> bool:
    """Whether a file's imports bring one of the names, or the module that has it."""
    return any(value in names or value in modules for value in imports.values())
