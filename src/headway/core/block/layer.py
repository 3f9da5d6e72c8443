"""What a layer is: two doors for a bio, a size, and limits.

It decides nothing about bytes. The doors:

* `submit_now(bio) -> bool` carries the bio out here and now. True: it is done, `bio.error` says how.
  False: *nothing was done and the bio is as it was*; take the other door. No hook is called, nothing is
  completed: the caller has the answer in its hands. A layer that can never do it inherits False.
* `submit(bio, line)` takes the bio over. It never waits for I/O: what must be passed on is queued with
  `line.send`, and the bio is completed by whoever carries it out. It may wait for the layer's own
  reserves, and is a plan then; a layer that waits for nothing returns None. If it raises, it has not
  passed the bio on, and the line completes it with the error.

An error of the device is an answer, kept in the bio, and no exception.

Source: device-mapper targets (``map`` and ``end_io``), in the shape of headway's plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headway.core.block.bio import Bio
from headway.core.block.device import Extent
from headway.core.block.limits import NO_LIMITS, Limits
from headway.core.block.line import Line, Source
from headway.core.plan import Plan


class Layer:
    """Subclass it: `submit` is required, `submit_now` is worth it where nothing has to be waited for.

    `size` is in bytes. `limits` is what bios must satisfy on entering; longer ones are split by the
    line with bios of `splits`, which the layer then must have: a set of its own, for nothing else.
    """

    name: str = "layer"
    size: int = 0
    limits: Limits = NO_LIMITS
    splits: Source | None = None
    below: tuple[Layer, ...] = ()
    whole_blocks: bool = True  # what is aligned to below must be so here; False: it takes any bytes
    read_only: bool = False  # every write fails with EROFS
    tells: Callable[[int], Plan[Extent]] | None = None  # of holes; None: data throughout
    keeps_zeros: bool = False  # what reads as zeros below reads as zeros here
    discard_granularity: int = 1  # bytes: a discard of fewer gives nothing back
    stable_writes: bool = (
        False  # a write's memory is looked at twice, and must be the same (BLK_FEAT_STABLE_WRITES)
    )
    copies_writes: bool = False  # it passes on memory of its own, never the caller's

    def submit_now(self, bio: Bio) -> bool:
        """Carry the bio out at once: True if done, False if nothing was done and the bio is as before."""
        return False

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        """Take the bio over; see the module. Waits: for the layer's own reserves only."""
        raise NotImplementedError

    def extent(self, offset: int) -> Plan[Extent]:
        """Data or hole at `offset`, and how far: for those who need not read zeros.

        Waits: for the layer's own reserves, and for those below.
        """
        if self.tells is None:
            return Extent(self.size, False)
        found = yield from self.tells(offset)
        return Extent(min(found.end, self.size), found.hole)

    def start(self) -> Plan[None] | None:
        """Start what the layer needs of its own (workers); before the first bio, bottom first."""
        return None

    def close(self) -> Plan[None] | None:
        """End what `start` started, top first, when no bio is in flight. Asserts that all came home."""
        return None

    def stats(self) -> Mapping[str, Any]:
        """Counters by name, for people and tools."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.size} bytes>"


def combined(layer: Layer) -> Limits:
    """What a request must satisfy to pass through this layer and all below without being refused or cut."""
    limits = layer.limits
    if not layer.whole_blocks:
        return limits
    for below in layer.below:
        limits = limits.over(combined(below))
    return limits


def needs_stable(layer: Layer) -> bool:
    """Whether memory must not change while it is written here, for this layer's sake or one's below: those
    above may, if somebody between them copies it."""
    if layer.stable_writes or layer.copies_writes:
        return layer.stable_writes
    return any(needs_stable(below) for below in layer.below)


def granularity(layer: Layer) -> int:
    """Bytes of which a discard should be a multiple, for this layer and all below: the largest."""
    return max([layer.discard_granularity, *(granularity(below) for below in layer.below)])


def each(layer: Layer) -> Iterator[Layer]:
    """The layers below and this one, the lowest first."""
    for below in layer.below:
        yield from each(below)
    yield layer
