"""The same bytes on several legs (raid1): reads are balanced, a leg that fails is dropped and refilled.

A write goes to every leg and is done when all have ended; a leg whose write or read fails is dropped, and
only the last one's error is the mirror's. A read that failed is done again on another leg, from the
mirror's own work queue, since it is a completion that finds out. `resync` fills a dropped leg while
reads and writes go on.

There is no superblock: which leg was dropped is forgotten when the mirror is closed. Start it with equal
legs, or with ``sync=yes``, which fills all others from the first.
Reserves: one bio for each leg, and one composite element (two bios, a buffer of `window` bytes).

Source: Linux ``drivers/md/raid1.c`` (6.12).
"""

from __future__ import annotations

from functools import partial

from headway.core.block.bio import READ, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.legs import ACTIVE, DROPPED, Leg, Legs
from headway.core.block.line import Line, submit
from headway.core.block.resync import Barrier, Resync
from headway.core.block.spec import Options, Site
from headway.core.block.workqueue import Workqueue
from headway.core.mm.composite import Callables, Composite
from headway.core.plan import Plan, Ticket, park, spawn
from headway.errors import UsageError


class Mirror(Layer):
    """`bios` has at least one bio for each leg; `workers` has a rescuer."""

    keeps_zeros = True
    stable_writes = True  # each leg reads the memory for itself

    def __init__(
        self, below: tuple[Layer, ...], bios: BioSet, workers: Workqueue, site: Site, window: int
    ) -> None:
        if len(below) < 2:
            raise UsageError("layer mirror: 1 leg is no mirror: add leg=DEVICE")
        self.name = f"mirror of {len(below)} on {below[0].name}"
        self.below = below
        self.size = min(leg.size for leg in below)
        self.legs = Legs(below, site.runtime.guard())
        self.tells = self.legs.extent
        self.retries = 0
        self._bios, self._workers = bios, workers
        bio = Callables(lambda gfp: Bio(), lambda bio: None)
        pool = site.pool("resync", Composite(bio, bio, site.buffers(window)), 1)
        self._barrier = Barrier(site.runtime.guard())
        self.resync = Resync(self.legs, self._barrier, self.size, pool, self._release)
        self._syncing: list[Leg] = []
        self._ended = Ticket(self.name)

    def submit_now(self, bio: Bio) -> bool:
        """Reads only: a write is done inline on all legs, or on none."""
        if bio.op is not READ:
            return False
        while True:
            leg = self.legs.reader(bio)
            if not leg.layer.submit_now(bio):
                return False
            if bio.error is None or not self.legs.failed(leg, bio.error):
                return True
            bio.error = None

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is not READ:
            return self._write(bio, line)
        leg = self.legs.reader(bio)
        leg.pending += 1
        bio.push(partial(self._read_ended, leg))
        line.send(bio, leg.layer)
        return None

    def _read_ended(self, leg: Leg, bio: Bio) -> bool:
        leg.pending -= 1
        if bio.error is None or not self.legs.failed(leg, bio.error):
            return False
        bio.error = None
        self.retries += 1
        self._workers.queue(submit, self, bio)
        return True

    def _write(self, bio: Bio, line: Line) -> Plan[None]:
        number = self._barrier.enter(bio)
        if number is None:
            return
        try:
            children = yield from self._bios.alloc_many(len(self.legs.all), line)
        except BaseException:
            self._barrier.leave(number)
            raise
        bio.push(lambda bio: self._barrier.leave(number))
        for leg in self.legs.writable():
            child = bio.copy_to(children.pop())
            bio.chain(child)
            child.push(partial(self._write_ended, leg))
            line.send(child, leg.layer)
        for spare in children:
            self._bios.free(spare)
        bio.complete()

    def _write_ended(self, leg: Leg, child: Bio) -> None:
        if child.error is not None and self.legs.failed(leg, child.error):
            child.error = None

    def _release(self, held: list[Bio]) -> None:
        for bio in held:
            self._workers.queue(submit, self, bio)

    def start(self) -> Plan[None]:
        """Start filling the legs that are not active (``sync=yes``)."""
        self._syncing = [leg for leg in self.legs.all if leg.state is DROPPED]
        if self._syncing:
            yield from spawn(self._fill(), f"{self.name} resync")

    def _fill(self) -> Plan[None]:
        for leg in self._syncing:
            yield from self.resync.run(leg)
        self._syncing = []
        self._ended.wake()

    def close(self) -> Plan[None]:
        """Stop filling after the window it is at."""
        self.resync.stopping = True
        if self._syncing:
            yield from park(self._ended)

    def stats(self) -> dict[str, int]:
        active = sum(leg.state is ACTIVE for leg in self.legs.all)
        errors = sum(leg.errors for leg in self.legs.all)
        return {
            "active": active, "dropped": len(self.legs.all) - active, "errors": errors,
            "retries": self.retries, "synced_bytes": self.resync.synced_bytes,
        }  # fmt: skip


def make(below: Layer, options: Options, site: Site) -> Layer:
    site.deadline_s = options.seconds("deadline", 0.0) or None
    legs = (below, *(site.open(device) for device in options.texts("leg")))
    window = options.size("window", 256 << 10)
    bios = site.bios("writes", len(legs), extra=3 * len(legs))
    mirror = Mirror(legs, bios, site.workers("retries"), site, window)
    if options.flag("sync", False):
        for leg in mirror.legs.all[1:]:
            leg.state = DROPPED
    return mirror
