"""Spreads a device over several legs, `chunk` bytes on each in turn.

A bio never crosses a chunk, so each goes to one leg as it is. A chunk smaller than usual requests
multiplies system calls: 256 KiB or more is right.
Reserves: 2 bios to split with.

Source: Linux ``drivers/md/dm-stripe.c`` (6.12).
"""

from __future__ import annotations

from math import lcm

from headway.core.block.bio import FLUSH, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.device import Extent
from headway.core.block.layer import Layer, combined
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan
from headway.errors import UsageError


class Stripe(Layer):
    """`legs` are used up to the size of the smallest, in whole chunks."""

    keeps_zeros = True

    def __init__(self, legs: tuple[Layer, ...], chunk: int, splits: BioSet, bios: BioSet) -> None:
        block = lcm(*(combined(leg).alignment for leg in legs))
        if len(legs) < 2 or not chunk or chunk % block:
            raise UsageError(
                f"layer stripe: {len(legs)} legs in chunks of {chunk} bytes: 2 legs or more are needed, and "
                f"chunks of whole blocks of {block}"
            )
        self.name = f"stripe of {len(legs)} on {legs[0].name}"
        self.below = legs
        self.size = min(leg.size for leg in legs) // chunk * chunk * len(legs)
        self.limits = Limits(boundary=chunk)
        self.splits = splits
        self._doors = tuple(leg.submit_now for leg in legs)
        self._chunk, self._count, self._bios = chunk, len(legs), bios

    def submit_now(self, bio: Bio) -> bool:
        number, rest = divmod(bio.offset, self._chunk)
        if not bio.length or rest + bio.length > self._chunk:
            return False
        before = bio.offset
        bio.offset = number // self._count * self._chunk + rest
        done = self._doors[number % self._count](bio)
        bio.offset = before
        return done

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is FLUSH or not bio.length:
            return self._to_all(bio, line)
        number, rest = divmod(bio.offset, self._chunk)
        bio.offset = number // self._count * self._chunk + rest
        line.send(bio, self.below[number % self._count])
        return None

    def extent(self, offset: int) -> Plan[Extent]:
        number, rest = divmod(offset, self._chunk)
        start = number // self._count * self._chunk + rest
        found = yield from self.below[number % self._count].extent(start)
        return Extent(offset + min(found.end - start, self._chunk - rest), found.hole)

    def _to_all(self, bio: Bio, line: Line) -> Plan[None]:
        for leg, child in zip(
            self.below, (yield from self._bios.alloc_many(self._count, line)), strict=True
        ):
            bio.chain(bio.copy_to(child))
            line.send(child, leg)
        bio.complete()


def make(below: Layer, options: Options, site: Site) -> Layer:
    legs = (below, *(site.open(device) for device in options.texts("with")))
    chunk = options.size("chunk", 256 << 10)
    return Stripe(legs, chunk, site.bios("splits"), site.bios("flushes", max(len(legs), 1)))


def room(size: int, options: Options) -> int:
    chunk = options.size("chunk", 256 << 10)
    row = chunk * (1 + len(options.texts("with")))
    return -(-size // row) * chunk if row else size
