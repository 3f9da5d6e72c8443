"""The copies of a mirror: which are good, which one reads next, and who is dropped.

It does not read or write. A leg is *active* (all it holds is right), *syncing* (it gets every write, and
is being filled), or *dropped* (it has failed; nothing goes there). The last active leg is never dropped:
its errors are the mirror's.

Reads go to the leg whose last read ended where this one begins, so that a disk keeps reading on; else
to the one with the fewest under way, the first of equals.

Source: Linux ``drivers/md/raid1.c`` (``read_balance``, 6.12), without seek distances.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import Final, final

from headway.core.block.bio import Bio
from headway.core.block.device import Extent
from headway.core.block.layer import Layer
from headway.core.plan import Guard, Plan
from headway.errors import BlockError


class State(Enum):
    ACTIVE = "active"
    SYNCING = "syncing"
    DROPPED = "dropped"


ACTIVE: Final = State.ACTIVE
SYNCING: Final = State.SYNCING
DROPPED: Final = State.DROPPED
_OURS: Final = (errno.EINVAL, errno.ECANCELED)  # errors that say nothing about the device


@final
class Leg:
    """One copy. The counters are hints for balancing, and statistics."""

    __slots__ = ("errors", "head", "layer", "pending", "state")

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.state = ACTIVE
        self.pending = 0  # reads under way
        self.head = -1  # where the last read ended
        self.errors = 0

    def __repr__(self) -> str:
        return f"<Leg {self.layer.name} {self.state.value}, {self.errors} errors>"


@final
class Legs:
    """The legs of one mirror; states change under the guard."""

    __slots__ = ("_guard", "all")

    def __init__(self, layers: tuple[Layer, ...], guard: Guard) -> None:
        self.all = tuple(Leg(layer) for layer in layers)
        self._guard = guard

    def extent(self, offset: int) -> Plan[Extent]:
        """As the first tells that is active: they are equal. Data, if none can."""
        with self._guard:
            active = [leg for leg in self.all if leg.state is ACTIVE]
        for leg in active:
            try:
                found = yield from leg.layer.extent(offset)
            except BlockError:
                continue  # whether it is to be dropped, a read will show
            if leg.state is ACTIVE:  # else a write may have failed there, and its hole is none
                return found
        return Extent(min(leg.layer.size for leg in self.all), False)

    def reader(self, bio: Bio) -> Leg:
        """Which leg reads this."""
        best = None
        for leg in self.all:
            if leg.state is ACTIVE:
                if leg.head == bio.offset:
                    best = leg
                    break
                if best is None or leg.pending < best.pending:
                    best = leg
        if best is None:  # one was dropped behind our back, another became active before it
            with self._guard:
                best = next(leg for leg in self.all if leg.state is ACTIVE)
        best.head = bio.end
        return best

    def writable(self) -> list[Leg]:
        """Which legs take writes."""
        return [leg for leg in self.all if leg.state is not DROPPED]

    def failed(self, leg: Leg, error: BaseException) -> bool:
        """Drop a leg for an error; False if it stays: it is the last, or the error is not its own."""
        if getattr(error, "errno", None) in _OURS:
            return False
        with self._guard:
            leg.errors += 1
            if leg.state is ACTIVE and not any(
                other.state is ACTIVE for other in self.all if other is not leg
            ):
                return False
            leg.state = DROPPED
        return True

    def become(self, leg: Leg, before: State, after: State) -> bool:
        """Change a leg's state if it is `before`; whether it was."""
        with self._guard:
            if leg.state is not before:
                return False
            leg.state = after
        return True
