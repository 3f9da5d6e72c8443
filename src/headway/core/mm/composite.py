"""One element made of several parts, each from its own allocator: all of them, or none.

It does not wait or keep a reserve: it is a backend, and a mempool over it does both. Parts are taken
in the order given and freed in reverse; if one cannot be had, those already taken go back at once, so
that no half-built element holds what others wait for.

Source: the resync buffers of ``drivers/md/raid1.c`` (descriptor, bios, pages).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.refused import register, unregister


class Backend(Protocol):
    """What a mempool stands on.

    ``alloc(gfp)`` gives an element or None, and may wait only if the mask has DIRECT_RECLAIM. A
    backend may also have ``light(gfp)``, which never waits and never raises, for the first try; without
    it that try is skipped. ``free`` takes back what does not fit into the reserve.

    A backend that others take from too has ``on_room(call)`` and ``off_room(call)``: whoever it has
    refused is called, without any lock, when something comes back. A mempool registers its `kick`;
    without it, only what comes back to the pool itself ends a wait (or its owner calls `kick`).
    """

    def alloc(self, gfp: Gfp, /) -> Any: ...
    def free(self, element: Any, /) -> object: ...


@final
class Callables:
    """A backend of plain functions."""

    __slots__ = ("alloc", "free", "light")

    def __init__(
        self,
        alloc: Callable[[Gfp], Any],
        free: Callable[[Any], object],
        light: Callable[[Gfp], Any] | None = None,
    ) -> None:
        self.alloc = alloc
        self.free = free
        self.light = light


@final
class Composite:
    """A backend whose elements are tuples, one item from each of `parts`."""

    __slots__ = ("parts",)

    def __init__(self, *parts: Backend) -> None:
        self.parts = parts

    def alloc(self, gfp: Gfp) -> tuple[Any, ...] | None:
        return self._build(gfp, "alloc")

    def light(self, gfp: Gfp) -> tuple[Any, ...] | None:
        """None if any part has no light try of its own, or nothing to give."""
        if not all(getattr(part, "light", None) for part in self.parts):
            return None
        return self._build(gfp, "light")

    def free(self, element: tuple[Any, ...]) -> None:
        _free(list(zip(self.parts, element, strict=True)))

    def on_room(self, call: Callable[[], object]) -> None:
        """Any part may be what was lacking."""
        for part in self.parts:
            register(part, call)

    def off_room(self, call: Callable[[], object]) -> None:
        """Undo `on_room`."""
        for part in self.parts:
            unregister(part, call)

    def _build(self, gfp: Gfp, door: str) -> tuple[Any, ...] | None:
        taken: list[Any] = []
        whole = False
        try:
            for part in self.parts:
                item = getattr(part, door)(gfp)
                if item is None:
                    return None
                taken.append(item)
            whole = True
            return tuple(taken)
        finally:  # also when a part raised: what was taken goes back first
            if not whole:
                _free(list(zip(self.parts, taken, strict=False)))


def _free(pairs: list[tuple[Backend, Any]]) -> None:
    """In reverse order, and each of them, even if one raises."""
    while pairs:
        part, item = pairs.pop()
        try:
            part.free(item)
        except BaseException:
            _free(pairs)
            raise
