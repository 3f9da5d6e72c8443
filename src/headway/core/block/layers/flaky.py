"""Works for `up` requests, then fails for `down`, and so on: a device with a loose contact.

It counts requests and not seconds, so a run can be repeated. In the down phase a request fails, or,
with `mode=drop`, writes are swallowed and reported as done, which is what a lying disk does.
Reserves: none.

Source: Linux ``drivers/md/dm-flakey.c`` (6.12), whose intervals are seconds.
"""

from __future__ import annotations

import errno

from headway.core.block.bio import READ, Bio, refused
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.core.block.spec import Options, Site


class Flaky(Layer):
    """`ops` is ``reads``, ``writes`` or ``all``; what is no read counts as a write."""

    keeps_zeros = True

    def __init__(
        self, below: Layer, up: int, down: int, ops: str = "all", mode: str = "fail"
    ) -> None:
        self.name = f"flaky on {below.name}"
        self.below = (below,)
        self.size, self.tells = below.size, below.extent
        self._up, self._period = up, up + down
        self._ops = ops
        self._drops = mode == "drop"
        self._seen = self.hits = 0

    def _down(self, bio: Bio) -> bool:
        """Whether this request meets the down phase; it is counted."""
        if self._ops != "all" and (self._ops == "reads") != (bio.op is READ):
            return False
        at, self._seen = self._seen % self._period, self._seen + 1
        if at < self._up or (self._drops and bio.op is READ):
            return False
        self.hits += 1
        return True

    def _end(self, bio: Bio) -> BaseException | None:
        return (
            None if self._drops else refused(bio, self.name, "it is in its down phase", errno.EIO)
        )

    def submit_now(self, bio: Bio) -> bool:
        """Only what works: whoever tries again where one may wait must meet the same failure."""
        before = self._seen, self.hits
        if not self._down(bio) and self.below[0].submit_now(bio):
            return True
        self._seen, self.hits = before  # it will come again by the other door
        return False

    def submit(self, bio: Bio, line: Line) -> None:
        if self._down(bio):
            bio.complete(self._end(bio))
        else:
            line.send(bio, self.below[0])

    def stats(self) -> dict[str, int]:
        return {"hits": self.hits}


def make(below: Layer, options: Options, site: Site) -> Layer:
    return Flaky(
        below,
        options.number("up", 9),
        options.number("down", 1, least=1),
        options.choice("ops", "all", ("reads", "writes", "all")),
        options.choice("mode", "fail", ("fail", "drop")),
    )
