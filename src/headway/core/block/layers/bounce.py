"""Moves data through buffers of its own, for devices that cannot use the caller's memory.

With ``reads=no`` it does so for writes alone, and is what a stack puts on top where a layer must see a write's
memory twice and the same, while those above may change it (`Stack`, ``steady_bytes``).

A request has one buffer at a time: what is longer than a buffer is split first, and a piece is in
flight before the next asks for its buffer (R3). So one buffer is enough to get on.
Reserves: `reserve` buffers (2) of `buffer` bytes (256KiB), and 2 bios to split with.

Source: Linux ``block/bounce.c`` (before 6.16), without its mistake: there one bio took up to 256 pages
from a pool of 64 while it held the others.
"""

from __future__ import annotations

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan


class Bounce(Layer):
    """`buffers` are `size` bytes each, a multiple of what the layer below calls a block."""

    keeps_zeros = True
    copies_writes = True

    def __init__(
        self, below: Layer, buffers: Mempool[memoryview], size: int, splits: BioSet, reads: bool
    ) -> None:
        self.name = f"bounce on {below.name}"
        self.below = (below,)
        self.size, self.tells = below.size, below.extent
        self.limits = Limits(max_length=size)
        self.splits = splits
        self._buffers = buffers
        self._longest = size
        self._reads = reads

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is not WRITE and (bio.op is not READ or not self._reads):
            return self.below[0].submit_now(bio)
        user, length = bio.view, bio.length
        if length > self._longest or user is None:
            return False
        buffer = self._buffers.take_now()
        if buffer is None:
            return False
        try:
            bio.view = part = buffer[:length]
            if bio.op is WRITE:
                part[:] = user
            done = self.below[0].submit_now(bio)
            if done and bio.op is READ and bio.error is None:
                user[:] = part
            return done
        finally:  # also if a signal's exception comes while bytes are being moved
            bio.view = user
            self._buffers.free(buffer)

    def submit(self, bio: Bio, line: Line) -> Plan[None]:
        if (bio.op is WRITE or (bio.op is READ and self._reads)) and bio.length:
            [buffer] = yield from line.take(self._buffers)
            part, user = buffer[: bio.length], bio.view
            assert user is not None
            bio.push(lambda bio: self._back(bio, buffer, part))
            if bio.op is WRITE:
                part[:] = user
            bio.view = part
            self._buffers.hand_over(buffer)
        line.send(bio, self.below[0])

    def _back(self, bio: Bio, buffer: memoryview, part: memoryview) -> None:
        if bio.op is READ and bio.error is None:
            assert bio.view is not None
            bio.view[:] = part
        self._buffers.free(buffer)


def make(below: Layer, options: Options, site: Site) -> Layer:
    size = options.size("buffer", 256 << 10)
    pool = site.pool("buffers", site.buffers(size), options.number("reserve", 2, least=1))
    return Bounce(below, pool, size, site.bios("splits"), options.flag("reads", True))
