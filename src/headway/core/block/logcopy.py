"""Blocks of a write cache's log copied to the slow device: in order of their place there, neighbours together.

It does not decide which (`ring`) or when (`writelog`).

Source: Linux ``drivers/md/dm-writecache.c`` (``__writecache_writeback_ssd``, 6.12).
"""

from __future__ import annotations

from typing import NamedTuple

from headway.core.block.bio import READ, WRITE, ZERO
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.logformat import Format
from headway.core.block.ring import Ring
from headway.core.plan import Plan


class Runs(NamedTuple):
    """What a copy needs: one bio of `bios` at a time, and one buffer of some blocks."""

    ring: Ring
    form: Format
    slow: Layer
    fast: Layer
    bios: BioSet
    buffer: memoryview

    def copy(self, needed: list[tuple[int, int]]) -> Plan[None]:
        """Blocks by number, with their positions in the log, sorted. Raises: what a device failed with."""
        size, at = self.form.block, 0
        while at < len(needed):
            number, position = needed[at]
            zeros = self.ring.is_zeros(position)
            run, most = 1, len(needed) if zeros else len(self.buffer) // size
            while (
                run < most
                and at + run < len(needed)
                and needed[at + run][0] == number + run
                and self.ring.is_zeros(needed[at + run][1]) == zeros
            ):
                run += 1
            if zeros:
                yield from self.bios.ask(self.slow, ZERO, number * size, None, run * size)
            else:
                part = self.buffer[: run * size]
                yield from self._gather([pair[1] for pair in needed[at : at + run]], part)
                yield from self.bios.ask(self.slow, WRITE, number * size, part)
            at += run

    def _gather(self, positions: list[int], into: memoryview) -> Plan[None]:
        size, at = self.form.block, 0
        while at < len(positions):
            run = 1
            while at + run < len(positions) and positions[at + run] == positions[at] + run:
                run += 1
            part = into[at * size : (at + run) * size]
            yield from self.bios.ask(self.fast, READ, self.form.address(positions[at]), part)
            at += run
