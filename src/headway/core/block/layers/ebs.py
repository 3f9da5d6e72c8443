"""Takes any bytes where whole blocks are wanted: reads a block, changes a part, writes it (emulated block size).

A request is cut into the part before the first whole block, the whole blocks, which are passed on as they
are, and the part after. A part that is read comes through a buffer of one block; one that is written is
read, changed and written by a worker, while nothing else may write to that block (`ranges`). A discard
shrinks to whole blocks. Of a part whose write was cut off by a power cut, the block is as the device
below leaves a block that it was writing.
Reserves: `reserve` buffers (2) of a block, of which 1 is enough, 2 bios to split with, 1 bio for parts; workers
with a rescuer.

Source: Linux ``drivers/md/dm-ebs-target.c`` (6.12), without its block cache.
"""

from __future__ import annotations

from functools import partial

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, Bio
from headway.core.block.layer import Layer, combined
from headway.core.block.line import Line, submit
from headway.core.block.ranges import Claim, Ranges
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan


class Ebs(Layer):
    """Blocks of `block` bytes on `below`."""

    keeps_zeros = True
    whole_blocks = False

    def __init__(self, below: Layer, block: int, site: Site, reserve: int) -> None:
        self.name = f"ebs on {below.name}"
        self.below = (below,)
        self.size, self.tells = below.size, below.extent
        self._block = block
        self.splits, self._bios = site.bios("splits"), site.bios("parts", 1)
        self._buffers = site.pool("blocks", site.buffers(block), reserve)
        self._workers = site.workers("parts")
        self._ranges = Ranges(site.runtime.guard())
        self.parts = 0

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is FLUSH or not bio.length:
            return self.below[0].submit_now(bio)
        if bio.offset % self._block or bio.length % self._block:
            return False
        if bio.op is READ or bio.op is DISCARD:
            return self.below[0].submit_now(bio)
        number = self._ranges.enter_now(Claim(bio.offset, bio.end, True))
        if number is None:
            return False
        try:
            return self.below[0].submit_now(bio)
        finally:  # also if a signal's exception comes while bytes are being moved
            self._leave(number)

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is FLUSH or not bio.length:
            line.send(bio, self.below[0])
            return None
        block = self._block
        rest, whole = bio.offset % block, bio.length // block * block
        if bio.op is DISCARD:
            end = bio.end // block * block
            bio.offset = -(-bio.offset // block) * block
            bio.length = max(0, end - bio.offset)
            if bio.length:
                line.send(bio, self.below[0])
            else:
                bio.complete()
            return None
        front = min(bio.length, block - rest) if rest else whole or bio.length
        if front < bio.length:
            return line.cut(bio, front, self)
        if not rest and whole:
            if bio.op is READ:
                line.send(bio, self.below[0])
                return None
            number = self._ranges.enter(Claim(bio.offset, bio.end, True), bio)
            if number is not None:
                bio.push(partial(self._ended, number))
                line.send(bio, self.below[0])
            return None
        if bio.op is READ:
            return self._read(bio, line)
        start = bio.offset - rest
        number = self._ranges.enter(Claim(start, start + block, False), bio)
        if number is not None:
            self._workers.queue(self._merge, number, bio)
        return None

    def _read(self, bio: Bio, line: Line) -> Plan[None]:
        [buffer] = yield from line.take(self._buffers)
        rest = bio.offset % self._block
        bio.push(partial(self._came, buffer, rest))
        bio.offset, bio.length, bio.view = bio.offset - rest, self._block, buffer[: self._block]
        self._buffers.hand_over(buffer)
        line.send(bio, self.below[0])

    def _came(self, buffer: memoryview, rest: int, bio: Bio) -> None:
        if bio.error is None and bio.view is not None:
            bio.view[:] = buffer[rest : rest + bio.length]
        self._buffers.free(buffer)

    def _merge(self, number: int, bio: Bio) -> Plan[None]:
        """Read the block, change the part, and write it."""
        [buffer] = yield from Line().take(self._buffers)
        error: Exception | None = None
        rest, part = bio.offset % self._block, buffer[: self._block]
        try:
            yield from self._bios.ask(self.below[0], READ, bio.offset - rest, part)
            part[rest : rest + bio.length] = bytes(bio.length) if bio.view is None else bio.view
            yield from self._bios.ask(self.below[0], WRITE, bio.offset - rest, part)
            if bio.fua:
                yield from self._bios.ask(self.below[0], FLUSH)
        except Exception as raised:
            error = raised
        self.parts += 1
        self._buffers.free(buffer)
        self._leave(number)
        bio.complete(error)

    def _leave(self, number: int) -> None:
        for given, bio in self._ranges.leave(number):
            whole = not bio.offset % self._block and not bio.length % self._block
            self._workers.queue(self._go_on if whole else self._merge, given, bio)

    def _ended(self, number: int, bio: Bio) -> None:
        self._leave(number)

    def _go_on(self, number: int, bio: Bio) -> Plan[None]:
        bio.push(partial(self._ended, number))
        return submit(self.below[0], bio)

    def stats(self) -> dict[str, int]:
        return {"block": self._block, "parts": self.parts, "waits": self._ranges.waits}


def make(below: Layer, options: Options, site: Site) -> Layer:
    grain = combined(below).alignment
    return Ebs(below, grain, site, options.number("reserve", 2, least=1))
