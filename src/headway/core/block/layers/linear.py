"""A window of the device below: `size` bytes from `offset`.

It does not check bounds: the top of a stack does, and every layer maps into what lies below it.
Reserves: none.

Source: Linux ``drivers/md/dm-linear.c`` (6.12).
"""

from __future__ import annotations

from headway.core.block.bio import Bio
from headway.core.block.device import Extent
from headway.core.block.layer import Layer, combined
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan
from headway.errors import UsageError


class Linear(Layer):
    """Shifts each bio by `start` bytes on its way down."""

    keeps_zeros = True

    def __init__(self, below: Layer, start: int, size: int) -> None:
        if start % combined(below).alignment or start + size > below.size:
            raise UsageError(
                f"layer linear: {size} bytes from offset {start} of {below.name}, which has {below.size} "
                f"in blocks of {combined(below).alignment}: choose a window inside, on whole blocks"
            )
        self.name = f"linear on {below.name}"
        self.below = (below,)
        self.size = size
        self._start = start
        self._below_now = below.submit_now

    def submit_now(self, bio: Bio) -> bool:
        bio.offset += self._start
        done = self._below_now(bio)
        bio.offset -= self._start
        return done

    def submit(self, bio: Bio, line: Line) -> None:
        bio.offset += self._start
        line.send(bio, self.below[0])

    def extent(self, offset: int) -> Plan[Extent]:
        found = yield from self.below[0].extent(offset + self._start)
        return Extent(min(found.end - self._start, self.size), found.hole)


def make(below: Layer, options: Options, site: Site) -> Layer:
    start = options.size("offset", 0)
    return Linear(below, start, options.size("size", below.size - start))


def room(size: int, options: Options) -> int:
    return size + options.size("offset", 0)
