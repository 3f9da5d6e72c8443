"""E-001c (2019): a cache on a loop device; its shrinker waits for I/O, and the I/O waits for the shrinker.

P is in reclaim. The cache's scan takes L, writes a dirty buffer, and waits for that under L. The device is a loop
device: its thread allocates to carry the write out, reclaims, asks the same shrinker, and wants L. Each waits for the
other. *Trylock* breaks it where it closes; *queued* takes the I/O out of reclaim, which is what headway's cache does;
*noio* forbids the loop's thread to reclaim what needs I/O. The cache and its write-back are the real ones.

Source: Linux commits bd293d071ffe (5.3) and 70704c33db84 (5.7) on ``drivers/md/dm-bufio.c``.
"""

from __future__ import annotations

from typing import Any

from headway.core.block import writeback
from headway.core.block.bio import READ, Bio
from headway.core.block.bufio import BufferCache
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DEADLOCK, DONE, Fix, Incident, Stage

BLOCK = 4096
DIRTY = 2


class _Frames:
    """As many as the cache needs; what is freed is what reclaim is for."""

    freed = 0

    def light(self, gfp: Gfp) -> memoryview:
        return memoryview(bytearray(BLOCK))

    alloc = light

    def free(self, element: memoryview) -> None:
        self.freed += 1


class _Control:
    scan_count = scanned = 1


class _Loop(Layer):
    """A device whose thread needs memory for every write."""

    name = "loop"
    size = 64 * BLOCK

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.reclaim: Any = None

    def submit(self, bio: Bio, line: Line) -> None:
        if bio.op is READ:
            bio.complete()
        else:
            self._stage.enter("loop", self._serve(bio))

    def _serve(self, bio: Bio) -> Plan[None]:
        yield from self._stage.turn()
        yield from self.reclaim("loop")
        self._stage.say("loop", f"writes block {bio.offset // BLOCK}")
        bio.complete()


class _Play:
    def __init__(self, stage: Stage, fix: str | None) -> None:
        self.stage = stage
        self.fix = fix
        self.loop = _Loop(stage)
        self.loop.reclaim = self.reclaim
        self.frames = _Frames()
        self.cache = BufferCache(
            self.loop, self.frames, BLOCK, runtime=stage.simulator, name="cache",
            keeping={"retain_bytes": 0},
        )  # fmt: skip
        self.lock: FixedMempool[str] = FixedMempool(["L"], runtime=stage.simulator, name="L")

    def life(self) -> Plan[None]:
        cache = self.cache
        if self.fix == "queued":
            yield from cache.start()
        for block in range(DIRTY):
            buffer = yield from cache.read_plan(10 * block, fresh=True)
            buffer.mark_dirty()
            buffer.release()
        self.stage.say("P", f"the cache has {DIRTY} dirty buffers")
        yield from self.reclaim("P")
        self.stage.say("P", "has reclaimed")
        if self.fix == "queued":
            yield from cache.keeper.close()

    def reclaim(self, who: str) -> Plan[None]:
        """An allocation that finds nothing free: it asks the cache's shrinker."""
        stage, cache = self.stage, self.cache
        if self.fix == "noio" and who == "loop":
            stage.say(who, "allocates under NOIO", "the shrinker, which does I/O, is not asked")
            return
        if self.fix == "queued":
            freed = cache.keeper.scan_objects(_Control())
            stage.say(who, "scans", f"{max(freed, 0)} freed, the rest is queued for the keeper")
            return
        if not self.lock.reserve_count:
            if self.fix == "trylock":
                stage.say(who, "scans", "L is taken: STOP")
                return
            stage.say(who, "scans and wants L", "it waits")
        yield from self.lock.alloc_plan(Gfp.KERNEL, 0, who, 1, None)
        stage.say(who, "scans: locks L")
        with cache.guard:
            claimed = cache.claim_dirty()
        if claimed is not None:
            stage.say(who, f"writes block {claimed.block} and waits for it, under L")
            frame = yield from writeback.clean(cache, claimed, who)
            if frame is not None:
                cache.supply.put(frame)
        self.lock.free("L")
        stage.say(who, "unlocks L")


def play(stage: Stage, fix: str | None) -> str:
    story = _Play(stage, fix)
    stage.enter("P", story.life())
    return stage.play()


INCIDENT = Incident(
    "E-001c",
    "a shrinker waits for I/O of a device that waits for the shrinker",
    DEADLOCK,
    (
        Fix("trylock", "the scan only tries the lock, and says STOP", DONE),
        Fix("queued", "the scan frees what needs no I/O, the rest is work for another", DONE),
        Fix("noio", "the loop's thread allocates under NOIO", DONE),
    ),
    play,
)
