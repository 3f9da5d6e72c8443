"""Holds each request back for a time: a slow disk, a long line.

What waits is kept in the order of its time by one task of the layer's own, which passes it on; nobody
sleeps in `submit`. The task may wait for the reserves of layers below, so a delay can be longer.
Reserves: none. The bios that wait are those of the layers above.

Source: Linux ``drivers/md/dm-delay.c`` (6.12).
"""

from __future__ import annotations

import heapq

from headway.core.block.bio import FLUSH, READ, Bio
from headway.core.block.layer import Layer
from headway.core.block.line import Line, submit
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan, Runtime, Ticket, park, spawn


class Delay(Layer):
    """Seconds, for reads, writes and flushes. The heap and what follows change under the guard."""

    keeps_zeros = True

    def __init__(
        self, below: Layer, runtime: Runtime, read_s: float, write_s: float, flush_s: float
    ) -> None:
        self.name = f"delay on {below.name}"
        self.below = (below,)
        self.size, self.tells = below.size, below.extent
        self._runtime = runtime
        self._guard = runtime.guard()
        self._read_s, self._write_s, self._flush_s = read_s, write_s, flush_s
        self._heap: list[tuple[float, int, Bio]] = []
        self._number = 0
        self._sleeping: tuple[Ticket, float | None] | None = None
        self._closing = False

    def _delay_s(self, bio: Bio) -> float:
        if bio.op is READ:
            return self._read_s
        return self._flush_s if bio.op is FLUSH else self._write_s

    def submit_now(self, bio: Bio) -> bool:
        return not self._delay_s(bio) and self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        delay_s = self._delay_s(bio)
        if not delay_s:
            line.send(bio, self.below[0])
            return
        due_s = self._runtime.now() + delay_s
        with self._guard:
            self._number += 1
            heapq.heappush(self._heap, (due_s, self._number, bio))
            ticket = self._waker(due_s)
        if ticket is not None:
            ticket.wake()

    def _waker(self, due_s: float) -> Ticket | None:
        """Under the guard: the keeper's ticket, if it would sleep past `due_s`."""
        if self._sleeping is None or (self._sleeping[1] is not None and self._sleeping[1] <= due_s):
            return None
        ticket, self._sleeping = self._sleeping[0], None
        return ticket

    def start(self) -> Plan[None]:
        yield from spawn(self._keep(), self.name)

    def close(self) -> None:
        assert not self._heap, f"{self.name} is closed with {len(self._heap)} requests waiting"
        with self._guard:
            self._closing = True
            ticket = self._waker(-1.0)
        if ticket is not None:
            ticket.wake()

    def _keep(self) -> Plan[None]:
        """Pass on what is due; sleep until the next is, or an earlier one comes."""
        while True:
            now_s = self._runtime.now()
            ticket = Ticket(self.name)
            with self._guard:
                if self._closing:
                    return
                bio = None
                next_s = self._heap[0][0] if self._heap else None
                if next_s is not None and next_s <= now_s:
                    bio = heapq.heappop(self._heap)[2]
                else:
                    self._sleeping = ticket, next_s
            if bio is not None:
                yield from submit(self.below[0], bio)
            else:
                yield from park(ticket, None if next_s is None else next_s - now_s)


def make(below: Layer, options: Options, site: Site) -> Layer:
    both_s = options.seconds("seconds", 0.01)
    read_s = options.seconds("read", both_s)
    write_s = options.seconds("write", both_s)
    return Delay(below, site.runtime, read_s, write_s, options.seconds("flush", write_s))
