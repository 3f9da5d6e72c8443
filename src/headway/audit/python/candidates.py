"""Which files can matter: decided from their bytes, before any is parsed.

A file matters if it names a library that has pools, and one of its constructors. What it is about is
found by plain substring search first, so most files of a large tree cost one pass over their bytes.
Files that use a pool of another file are found in a second pass, by the names that file gives away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from headway.audit.python.facts import Instance, Module, Pool
from headway.audit.python.shapes import Kind, Shape

LARGEST = 4 << 20  # bytes; a larger source file is data
_ALONE = frozenset({Kind.EVENT, Kind.THREAD})  # these matter only in coroutines and finalisers
_WHERE = (b"async def", b"__del__")
_PRIVATE = _ALONE | {Kind.LOCK, Kind.REENTRANT}  # not worth reading another file for


class Words:
    """What a file must mention, for one table of shapes."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        shapes = tuple(shapes)
        self._anywhere = [
            b"." + shape.name[2:].encode() for shape in shapes if shape.name.startswith("*.")
        ]
        self._libraries: list[tuple[bytes, list[_Mention]]] = []
        by_library: dict[str, list[Shape]] = {}
        for shape in shapes:
            by_library.setdefault(shape.name.partition(".")[0], []).append(shape)
        for library, rows in sorted(by_library.items()):
            if library != "*":
                self._libraries.append((library.encode(), _mentions(rows)))

    def matter(self, source: bytes) -> bool:
        if any(word in source for word in self._anywhere):
            return True
        for library, mentions in self._libraries:
            if library in source and any(each.found(source) for each in mentions):
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Mention:
    """Names of one library, and the words without which they are of no interest."""

    names: re.Pattern[bytes]
    uses: tuple[bytes, ...]  # empty: any use matters

    def found(self, source: bytes) -> bool:
        if self.uses and not any(word in source for word in self.uses):
            return False
        return self.names.search(source) is not None


def _mentions(shapes: list[Shape]) -> list[_Mention]:
    """The names of a library's shapes, put together where the same words matter."""
    groups: dict[tuple[bytes, ...], set[str]] = {}
    made: set[str] = set()  # pools, where they are made
    for shape in shapes:
        uses: tuple[bytes, ...] = ()
        methods = shape.leases | shape.takes
        if shape.kind in _ALONE:
            uses = _WHERE
        elif shape.kind is Kind.POOL and not shape.itself and "()" not in methods:
            uses = tuple(f".{method}(".encode() for method in sorted(methods))
            made.add(shape.name.removesuffix(".of").rpartition(".")[2])
        for name in (shape.name, *shape.types):
            parts = [part for part in name.split(".") if part != "of"]
            groups.setdefault(uses, set()).add(parts[-1])
    found = [_Mention(_any_of(names), uses) for uses, names in groups.items()]
    return [*found, _Mention(_any_of(made, rb"\s*\("), ())] if made else found


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
            if isinstance(value, Instance) and value.ref in owners and place[0] in "gf":
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


class Mentions:
    """Finds a file that names one of these, and the module that has it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._pairs: dict[bytes, list[bytes]] = {}
        for name in sorted(names):
            parts = name.split(".")
            module = parts[-2] if len(parts) > 1 else parts[-1]
            self._pairs.setdefault(module.encode(), []).append(parts[-1].encode())

    def found(self, source: bytes) -> bool:
        return b"import" in source and any(
            module in source and any(name in source for name in names)
            for module, names in self._pairs.items()
        )


def _any_of(words: Iterable[str], after: bytes = b"") -> re.Pattern[bytes]:
    return re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, words)))})\b".encode() + after)


def imports_one(imports: Mapping[str, str], names: Set[str], modules: Set[str]) -> bool:
    """Whether a file's imports bring one of the names, or the module that has it."""
    return any(value in names or value in modules for value in imports.values())
