"""The learned profile: what each request took and gave back, in order, as a model for `headway size`.

It does not search. From the first element an owner takes until it holds none is one request; equal
requests are one actor, whose count is how many owners were alive at once that had made it. A request that
held one element at a time cannot be part of a deadlock, and is left out.

Bound: requests of at most 32 steps, and at most 64 different ones; the rest is not learned.
"""

from __future__ import annotations

import re
import weakref
from typing import Final, final

from headway.watch.alive import living
from headway.watch.classes import MAP, Owner, PoolClass

_STEPS: Final = 32
_SHAPES: Final = 64


@final
class Profile:
    """What has been learned in one process."""

    def __init__(self) -> None:
        self._under_way: weakref.WeakKeyDictionary[Owner, list[tuple[int, PoolClass]]] = (
            weakref.WeakKeyDictionary()
        )
        self._shapes: dict[tuple[tuple[int, PoolClass], ...], _Crowd] = {}

    def took(self, owner: Owner, cls: PoolClass) -> None:
        self._under_way.setdefault(owner, []).append((1, cls))

    def gave(self, owner: Owner, cls: PoolClass) -> None:
        steps = self._under_way.setdefault(owner, [])
        steps.append((-1, cls))
        if owner.held:
            return
        self._under_way.pop(owner, None)
        shape = tuple(step for step in steps if step[1].kind != MAP and step[1].size is not None)
        if _deepest(shape) > 1 and len(shape) <= _STEPS:
            if shape in self._shapes or len(self._shapes) < _SHAPES:
                self._shapes.setdefault(shape, _Crowd()).saw(owner.origin)

    def model(self) -> str | None:
        """A model file; None if no request held two elements at once."""
        shapes = {
            shape: crowd
            for shape, crowd in list(self._shapes.items())
            if all(cls.holds for _, cls in shape)
        }
        if not shapes:
            return None
        names = _names([cls for shape in shapes for _, cls in shape])
        lines = ["# learned by headway watch", "[pools]"]
        lines += [f'"{name}" = {cls.size}' for cls, name in names.items()]
        for number, (shape, crowd) in enumerate(shapes.items(), 1):
            steps = ", ".join(f'"{"+" if sign > 0 else "-"}{names[cls]}"' for sign, cls in shape)
            lines += [f"[actors.request{number}]", f"count = {crowd.most}", f"steps = [{steps}]"]
        return "\n".join(lines) + "\n"


@final
class _Crowd:
    """How many owners that made one kind of request were alive at once."""

    def __init__(self) -> None:
        self._owners: weakref.WeakSet[Owner] = weakref.WeakSet()
        self.most = 0

    def saw(self, owner: Owner) -> None:
        self._owners.add(owner)
        if len(self._owners) > self.most:
            self._owners.difference_update([o for o in living(self._owners) if not o.alive()])
            self.most = max(self.most, len(self._owners), 1)


def _deepest(shape: tuple[tuple[int, PoolClass], ...]) -> int:
    held = deepest = 0
    for sign, _ in shape:
        held += sign
        deepest = max(deepest, held)
    return deepest


def _names(classes: list[PoolClass]) -> dict[PoolClass, str]:
    """A name for each pool that a model file can carry."""
    names: dict[PoolClass, str] = {}
    for cls in classes:
        if cls not in names:
            word = re.sub(r"[^A-Za-z0-9]+", "_", cls.label).strip("_") or "pool"
            same = sum(1 for other in names.values() if other.partition(".")[0] == word)
            names[cls] = f"{word}.{same + 1}" if same else word
    return names
