"""Who is who in a hang: owners that share a name get numbers, and what is said of several alike is said once.

It decides nothing. A number stays with its owner, so that later words mean the same one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from headway.watch.classes import Owner

_SHOWN: Final = 6  # of those alike; the rest is counted
_NUMBER: Final = " #"


def tell_apart(owners: Iterable[Owner]) -> None:
    """Give each of those that share a name one of his own: ``work job #1``."""
    alike: dict[str, list[Owner]] = {}
    for owner in dict.fromkeys(owners):
        alike.setdefault(owner.name, []).append(owner)
    for name, same in list(alike.items()):
        if len(same) > 1:
            free = (f"{name}{_NUMBER}{number}" for number in itertools.count(1))
            for owner in same:
                owner.name = next(new for new in free if new not in alike)


def folded(said: Iterable[Mapping[str, Any]], *alike: str) -> list[list[Mapping[str, Any]]]:
    """Those that agree in the keys `alike`, together, in the order of the first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in said:
        groups.setdefault(repr([one[key] for key in alike]), []).append(one)
    return list(groups.values())


def together(names: Iterable[str]) -> str:
    """Several names as one: ``work job #1, #2 and #3``."""
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    parts, before = [], None
    for name, times in sorted(counted.items(), key=_by_number(list(counted))):
        stem, found, number = name.rpartition(_NUMBER)
        part = f"#{number}" if found and stem == before else name
        parts.append(part + (f" ({times} times)" if times > 1 else ""))
        before = stem if found else None
    if len(parts) > _SHOWN:
        parts[_SHOWN - 1 :] = [f"{len(parts) - _SHOWN + 1} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _by_number(names: list[str]) -> Callable[[tuple[str, int]], tuple[int, int]]:
    """Those of one name side by side, where the first of them was, by their numbers."""
    stems = [name.rpartition(_NUMBER)[0] or name for name in names]

    def place(counted: tuple[str, int]) -> tuple[int, int]:
        stem, _, number = counted[0].rpartition(_NUMBER)
        return stems.index(stem or counted[0]), int(number) if stem and number.isdecimal() else 0

    return place


def lasted(seconds: Iterable[float]) -> str:
    """How long it has lasted for one, or from the shortest to the longest."""
    least, most = min(seconds := list(seconds)), max(seconds)
    return f"{least} s" if least == most else f"{least} to {most} s"
