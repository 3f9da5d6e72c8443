"""Pools whose every look at what is shared is a place where others may come first.

`tests.core.mm.interleave` says who comes: its `World` is the runtime of these pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headway.core.mm.pools import BackedMempool, FixedMempool
from headway.core.mm.refused import Refused

if TYPE_CHECKING:
    from tests.core.mm.interleave import World


class Reserve(list[Any]):
    """A reserve whose every operation is a place where others may come first."""

    world: World

    def pop(self, index: Any = -1) -> Any:
        self.world.point(lambda: tuple(self[-1:]))
        return super().pop(index)

    def append(self, element: Any) -> None:
        self.world.point()
        super().append(element)

    def extend(self, elements: Any) -> None:
        self.world.point()
        super().extend(elements)

    def __len__(self) -> int:
        self.world.point(lambda: list.__len__(self))
        return super().__len__()


def _watched(name: str, base: type) -> property:
    slot = getattr(base, name)

    def get(self: Any) -> Any:
        world = self.runtime
        if name in UNDER_GUARD and world.now_actor and self._guard.holder is world.now_actor:
            return slot.__get__(self)  # nobody else can change it now
        world.point(lambda: _plain(slot.__get__(self)))
        return slot.__get__(self)

    def put(self: Any, value: Any) -> None:
        self.runtime.point()
        slot.__set__(self, value)

    return property(get, put)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | None) else "news"


SHARED = ("_gate", "_wanted", "_kicked", "news")
UNDER_GUARD = ("_gate", "_wanted")  # change only there


def stepped(kind: type) -> type:
    """A subclass of a kind of pool in which every look at shared state is a scheduling point."""
    slots = {name: _watched(name, kind) for name in SHARED}

    def shared(self: Any) -> Any:
        values = [getattr(kind, name).__get__(self) for name in SHARED[:3]]
        return (*values, self._above.due, tuple(list.__iter__(self._reserve)))

    return type(f"Stepped{kind.__name__}", (kind,), {"__slots__": (), "shared": shared, **slots})


Fixed: Any = stepped(FixedMempool)
Backed: Any = stepped(BackedMempool)


def dress(world: World, pool: Any) -> Any:
    """Put the pool into the world."""
    reserve = Reserve(list(pool._reserve))
    reserve.world = world
    pool._reserve = reserve
    world.pool = pool
    return pool


SteppedRefused: Any = type(
    "SteppedRefused", (Refused,), {"__slots__": ("runtime",), "due": _watched("due", Refused)}
)


def step_refusals(world: World, pool: Any) -> None:
    """Let others come first also where the pool looks whether a pool above it was refused."""
    pool._above = SteppedRefused.__new__(SteppedRefused)
    pool._above.runtime = world
    pool._above.__init__()
