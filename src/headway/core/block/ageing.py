"""What a cache does in nobody's turn: read ahead, write back, grow old, and give way to others.

It holds nobody up. A *keeper* is one task of the cache's own, asleep until there is something to do:

* *prefetched* blocks are read, unless a reader took them over;
* *write-back* starts when there are more than three dirty buffers for each clean one;
* *ageing*: each `TICK_S`, clean buffers not used for `max_age_s` go, down to `retain` of them; the walk
  ends at the first young one, and does no I/O;
* *shrinking*: what a shrinker was asked for and could not give at once is dirty; it is written, and goes;
* a *limit* shared by several caches: above it the oldest clean buffers go, of whichever cache, in batches,
  until a sixteenth of it is free again, so that not every new buffer starts it anew.

The shrinker's count takes no lock, and its scan never waits for one: if somebody is in a step it says STOP.
It frees clean buffers itself. What is retained is taken off the count, not off each scan (a bug of old
kernels, which freed one buffer for each scan whatever was retained).

Bound: each run of the keeper looks at each buffer twice at most. It sleeps without a timer when nothing
can grow old.

Source: Linux ``drivers/md/dm-bufio.c`` (``work_fn``, ``do_global_cleanup``, ``dm_bufio_shrink_scan``, 6.12).
Departure: the scan frees what needs no I/O and tells the truth about it; the kernel's only queues work.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, final

from headway.core.block import transfer, writeback
from headway.core.block.blocks import Blocks
from headway.core.block.buffer import Buffer
from headway.core.block.lru import STOP, Verdict, last_used
from headway.core.plan import Plan, Ticket, park, spawn

TICK_S: Final = 30.0
MAX_AGE_S: Final = 300.0
RETAIN_BYTES: Final = 256 << 10
RATIO: Final = 3  # dirty buffers for each clean one
BATCH: Final = 64
CANNOT: Final = -1  # a scan's answer: no progress is possible now (`headway.core.mm.shrinker`)


@final
class BufferLimit:
    """How much memory several caches may have between them. Units: bytes. `total` may be a little late."""

    __slots__ = ("caches", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.caches: tuple[Blocks, ...] = ()  # replaced as a whole

    @property
    def total(self) -> int:
        return sum(cache.supply.frames * cache.block_size for cache in self.caches)

    @property
    def exceeded(self) -> bool:
        return self.total > self.max_bytes

    def shrink(self) -> None:
        """Let the oldest clean buffers go until a sixteenth is free, or nothing more can go."""
        enough = self.max_bytes - self.max_bytes // 16
        tired: list[Blocks] = []
        while self.total > enough:
            rest = [cache for cache in self.caches if cache not in tired and len(cache.clean_clock)]
            if not rest:
                return
            oldest = min(rest, key=_age)
            for _ in range(BATCH):
                if not drop(oldest):
                    tired.append(oldest)
                    break
                if self.total <= enough:
                    return


def _age(cache: Blocks) -> float:
    with cache.guard:
        first = next(iter(cache.clean_clock), None)
    return float("inf") if first is None else last_used(first)


def drop(cache: Blocks) -> bool:
    """Let one clean buffer go; False if none can."""
    with cache.guard:
        frame = cache.take_clean()
    if frame is None:
        return False
    cache.supply.put(frame)
    return True


@final
class Keeper:
    """One cache's. All fields but the limit change under the cache's guard."""

    __slots__ = (
        "_cache", "_closing", "_ended", "_prefetched", "_shrink_due", "_ticket", "_write_due", "limit",
        "max_age_s", "retain", "running",
    )  # fmt: skip

    def __init__(
        self,
        cache: Blocks,
        *,
        max_age_s: float = MAX_AGE_S,
        retain_bytes: int = RETAIN_BYTES,
        limit: BufferLimit | None = None,
    ) -> None:
        self._cache = cache
        self.max_age_s = max_age_s
        self.retain = retain_bytes // cache.block_size
        self.limit = limit
        if limit is not None:
            limit.caches = (*limit.caches, cache)
        self.running = False
        self._closing = False
        self._write_due = False
        self._shrink_due = 0  # buffers that were asked for and not given yet
        self._prefetched: deque[Buffer] = deque()
        self._ticket: Ticket | None = None  # where it sleeps
        self._ended: Ticket | None = None

    # -- what others say to it ------------------------------------------------------------------------

    def look(self, cache: Blocks) -> None:
        """After a buffer was added: whether there is something to do. Waits: never."""
        if len(cache.dirty_clock) > RATIO * len(cache.clean_clock):
            if self._write_due or not self.running:
                return
            self._write_due = True
        elif self.limit is None or not self.limit.exceeded:
            ticket = self._ticket
            if ticket is None or not ticket.need or len(cache.blocks) <= self.retain:
                return  # it is at work, or has a timer, or nothing can grow old
        self.wake()

    def enqueue(self, buffer: Buffer) -> None:
        """A block to be read. Under the guard; `wake` afterwards."""
        self._prefetched.append(buffer)

    def wake(self) -> None:
        with self._cache.guard:
            ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.wake()

    # -- as a shrinker ---------------------------------------------------------------------------------

    def count_objects(self, control: Any) -> int:
        """How many buffers could go. Waits: never; takes no lock."""
        return max(0, len(self._cache.blocks) - self.retain - self._shrink_due)

    def scan_objects(self, control: Any) -> int:
        """Free up to `control.scan_count` buffers: clean ones now, dirty ones soon; how many now.

        Waits: never, for no lock either.
        """
        cache, guard = self._cache, self._cache.guard
        if not guard.acquire(False):
            return CANNOT
        frames: list[Any] = []
        try:
            wanted = min(control.scan_count, len(cache.blocks) - self.retain)
            while len(frames) < wanted:
                frame = cache.take_clean()
                if frame is None:
                    break
                frames.append(frame)
            late = min(wanted - len(frames), len(cache.dirty_clock))
            if late > 0:
                self._shrink_due = max(self._shrink_due, late)
        finally:
            guard.release()
        cache.supply.put_all(frames)
        if late > 0:
            self.wake()
        return len(frames) or (CANNOT if late > 0 else 0)

    # -- its own task ----------------------------------------------------------------------------------

    def start(self) -> Plan[None]:
        self.running = True
        try:
            yield from spawn(self._keep(), f"keeper of {self._cache.name}")
        except BaseException:
            self.running = False
            raise

    def close(self) -> Plan[None]:
        """End it; returns when it has ended."""
        limit = self.limit
        if limit is not None:
            limit.caches = tuple(cache for cache in limit.caches if cache is not self._cache)
        with self._cache.guard:
            self._closing = True
            ticket = self._ended = Ticket(self._cache.name)
            running = self.running
        self.wake()
        if running:
            yield from park(ticket)

    def _keep(self) -> Plan[None]:
        cache = self._cache
        next_s = cache.runtime.now() + TICK_S
        try:
            while True:
                try:
                    yield from self._work()
                except Exception as error:
                    cache.runtime.report(
                        f"cache {cache.name!r}: {error!r} in its keeper", once=True
                    )
                now_s = cache.runtime.now()
                if now_s >= next_s:
                    self.tick(now_s)
                    next_s = now_s + TICK_S
                ticket = Ticket(f"keeper of {cache.name}", need=0)
                with cache.guard:
                    if self._closing:
                        return
                    if self._prefetched or self._write_due or self._shrink_due:
                        continue
                    timed = len(cache.blocks) > self.retain and len(cache.clean_clock) > 0
                    ticket.need = 0 if timed else 1  # 1: to be told when something can grow old
                    self._ticket = ticket
                yield from park(ticket, next_s - now_s if timed else None)
        finally:
            with cache.guard:
                self.running = False
                ended = self._ended
                self._ticket = None
                while self._prefetched:  # left to whoever reads them
                    self._prefetched.popleft()
            if ended is not None:
                ended.wake()

    def _work(self) -> Plan[None]:
        cache = self._cache
        while True:
            with cache.guard:
                buffer = self._prefetched.popleft() if self._prefetched else None
            if buffer is None:
                break
            yield from transfer.fill(cache, buffer)
        if self._write_due:
            self._write_due = False
            for written in (yield from writeback.start_all(cache)):
                cache.release(written)
        if self.limit is not None and self.limit.exceeded:
            self.limit.shrink()
        if self._shrink_due:
            yield from self._shrink()

    def _shrink(self) -> Plan[None]:
        """Let as many go as are owed, down to what is retained: clean ones (some were dirty when they were
        asked for), then dirty ones, which are written first. What all is held is forgotten."""
        cache, who = self._cache, self._cache.runtime.owner()
        while self._shrink_due > 0:
            claimed = None
            with cache.guard:
                frame = cache.take_clean() if len(cache.blocks) > self.retain else None
                if frame is None and len(cache.blocks) > self.retain:
                    claimed = cache.claim_dirty()
                self._shrink_due -= 1
                if frame is None and claimed is None:
                    self._shrink_due = 0
            if claimed is not None:
                frame = yield from writeback.clean(cache, claimed, who)
            if frame is not None:
                cache.supply.put(frame)

    def tick(self, now_s: float) -> None:
        """Look at the share of dirty buffers, and let old clean ones go. Waits: never."""
        cache = self._cache
        if len(cache.dirty_clock) > RATIO * len(cache.clean_clock):
            self._write_due = True

        def old(buffer: Buffer) -> Verdict:
            if now_s - buffer.aged < self.max_age_s:
                return STOP
            return cache.judge(buffer)

        cache.stamp = now_s
        while len(cache.blocks) > self.retain:
            with cache.guard:
                frame = cache.take_clean(old)
            if frame is None:
                return
            cache.supply.put(frame)
