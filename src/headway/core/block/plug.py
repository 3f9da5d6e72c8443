"""Bios gathered by one task, to be submitted together; and the kick that pushes them out before it sleeps.

It does not submit anything itself but in `finish`: what is kicked is submitted by a work queue, since
whoever kicks is about to wait, and must not wait for that as well. The reason for the kick (R5): a
task that waits for memory may be waiting for a bio in its own plug. Every `BioSet.alloc` under a
line with this plug kicks before it parks; a pool made with ``unplug=plug.kick`` does too.

Out it goes when the outermost `finish` comes, with more than `MAX_COUNT` bios, with one of `FLUSH_SIZE`
bytes or more, and when the task goes to sleep. A plug started inside a plug is the outer one.

Source: Linux ``block/blk-core.c``, ``blk-mq.c`` (``blk_start_plug``, ``blk_add_rq_to_plug``, 6.12).
"""

from __future__ import annotations

from typing import Final, final

from headway.core.block.bio import Bio
from headway.core.block.line import Line, Target
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Plan

MAX_COUNT: Final = 32
FLUSH_SIZE: Final = 128 << 10


@final
class Plug:
    """Of one task, without a guard. `kicks` counts how often a sleep pushed it out."""

    __slots__ = ("_bios", "_depth", "_workers", "kicks")

    def __init__(self, workers: Workqueue) -> None:
        self._workers = workers
        self._bios: list[tuple[Target, Bio]] = []
        self._depth = 0
        self.kicks = 0

    def __len__(self) -> int:
        return len(self._bios)

    def start(self) -> None:
        self._depth += 1

    def finish(self) -> Plan[None]:
        """Submit what was gathered, if this is the outermost. Waits: for the reserves of layers."""
        assert self._depth > 0, "a plug is finished that was not started"
        self._depth -= 1
        if not self._depth:
            yield from self._flush()

    def add(self, bio: Bio, layer: Target) -> Plan[None]:
        """Gather `bio`, or submit it at once if no plug is started.

        Waits: for the reserves of layers, when it flushes.
        """
        self._bios.append((layer, bio))
        full = len(self._bios) > MAX_COUNT or bio.length >= FLUSH_SIZE
        if full or not self._depth:
            yield from self._flush()

    def kick(self) -> None:
        """Give what was gathered to the work queue, in order. Waits: never."""
        bios, self._bios = self._bios, []
        if bios:
            self.kicks += 1
            self._workers.queue(_submit_all, bios)

    def _flush(self) -> Plan[None]:
        bios, self._bios = self._bios, []
        if bios:
            yield from _submit_all(bios, self)

    def __repr__(self) -> str:
        return f"<Plug {len(self._bios)} bios, depth {self._depth}, kicked {self.kicks} times>"


def _submit_all(bios: list[tuple[Target, Bio]], plug: Plug | None = None) -> Plan[None]:
    line = Line(plug)
    for layer, bio in bios:
        line.send(bio, layer)
    yield from line.run()
