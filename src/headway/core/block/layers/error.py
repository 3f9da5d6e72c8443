"""Fails every bio that touches a range, for the operations chosen: a bad spot on a disk.

Reserves: none.

Source: Linux ``drivers/md/dm-target.c`` (error) and ``dm-dust.c`` (6.12).
"""

from __future__ import annotations

import errno

from headway.core.block.bio import READ, Bio, refused
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site


class Error(Layer):
    """`ops` is ``reads``, ``writes`` or ``all``; what is no read counts as a write."""

    keeps_zeros = True

    def __init__(self, below: Layer, start: int, length: int, ops: str = "all") -> None:
        self.name = f"error on {below.name}"
        self.below = (below,)
        self.size = below.size
        self._start, self._end = start, start + length
        self._ops = ops
        self.hits = 0

    def _hit(self, bio: Bio) -> bool:
        if self._ops != "all" and (self._ops == "reads") != (bio.op is READ):
            return False
        return bio.length > 0 and bio.offset < self._end and bio.end > self._start

    def _error(self, bio: Bio) -> BaseException:
        self.hits += 1
        return refused(bio, self.name, "this range was made to fail", errno.EIO)

    def submit_now(self, bio: Bio) -> bool:
        if self._hit(bio):
            bio.error = self._error(bio)
            return True
        return self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        if self._hit(bio):
            bio.complete(self._error(bio))
        else:
            line.send(bio, self.below[0])

    def stats(self) -> dict[str, int]:
        return {"hits": self.hits}


def make(below: Layer, options: Options, site: Site) -> Layer:
    start = options.size("offset", 0)
    length = options.size("size", below.size - start)
    return Error(below, start, length, options.choice("ops", "all", ("reads", "writes", "all")))
