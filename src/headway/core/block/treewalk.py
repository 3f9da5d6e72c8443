"""Digests of a hash tree, found from the root down, each block checked before it is believed.

It reads no data; the layer `verity` does. One buffer is enough to go down: the digests that are wanted
are copied out before the next block is read. What was checked is `kept` if memory is there. Reading ahead
is skipped when it would need the reserve.

Source: Linux ``drivers/md/dm-verity-target.c`` (6.12), ``verity_prefetch_io``.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import final

from headway.core.block.bio import READ, corrupt
from headway.core.block.hashtree import Tree
from headway.core.block.kept import Kept
from headway.core.block.layer import Layer
from headway.core.block.line import NOIO, Line
from headway.core.block.spec import Site
from headway.core.block.workqueue import Workqueue
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError


@final
class Walker:
    """`tree` is on `hashes`, under `root`."""

    def __init__(
        self, tree: Tree, root: bytes, hashes: Layer, site: Site, workers: Workqueue, cache: int
    ) -> None:
        self.tree, self.root = tree, root
        self._hashes, self._levels = hashes, tree.levels()
        self._guard = site.runtime.guard()
        self._pool = site.pool("hash blocks", site.buffers(tree.hash_size), 1)
        self._bios = site.bios("hash reads")
        self._workers = workers
        self._going = 0  # leaves that are being read ahead, or will be
        self._ended: Ticket | None = None  # who waits for the last of them
        self._kept: Kept[tuple[int, int]] = Kept(self._pool, cache)  # by level and number
        self.corrupt = self.ahead = 0

    def leaves(self, offset: int, end: int) -> list[tuple[int, int, int]]:
        """Each block of level 0 that a range needs: its number, the first digest in it, how many."""
        tree, found = self.tree, []
        first, end = offset // tree.data_size, end // tree.data_size
        while first < end:
            leaf, slot = divmod(first, tree.per_block)
            count = min(end - first, tree.per_block - slot)
            found.append((leaf, slot, count))
            first += count
        return found

    def known(self, offset: int, end: int) -> list[bytes] | None:
        """The digests of all blocks of a range, if they are at hand."""
        if not self._levels:
            return [self.root] * (end > offset)
        wanted: list[bytes] = []
        for leaf, first, count in self.leaves(offset, end):
            found = self._kept.look((0, leaf), partial(self._cut, first, count))
            if found is None:
                return None
            wanted += found
        return wanted

    def _cut(self, first: int, count: int, block: memoryview) -> list[bytes]:
        step, width = self.tree.step, self.tree.width
        return [bytes(block[at * step : at * step + width]) for at in range(first, first + count)]

    def walk(
        self, leaf: int, first: int, count: int, spare: memoryview | None = None
    ) -> Plan[list[bytes]]:
        """Digests of a leaf, from the root down. Raises: BlockError. Waits: for a buffer, for I/O."""
        wanted = [self.root]
        for level in reversed(range(len(self._levels))):
            number = leaf // self.tree.per_block**level
            below = leaf // self.tree.per_block ** (level - 1) if level else 0
            cut = (first, count) if level == 0 else (below % self.tree.per_block, 1)
            found = self._kept.look((level, number), partial(self._cut, *cut))
            if found is None:
                found = yield from self._read(level, number, wanted[0], cut, spare)
                spare = None
            wanted = found
        if spare is not None:
            self._pool.free(spare)
        return wanted

    def _read(
        self,
        level: int,
        number: int,
        digest: bytes,
        cut: tuple[int, int],
        buffer: memoryview | None,
    ) -> Plan[list[bytes]]:
        if buffer is None:
            [buffer] = yield from Line().take(self._pool)
        size = self.tree.hash_size
        offset = (self._levels[level][0] + number) * size
        kept = False
        try:
            yield from self._bios.ask(self._hashes, READ, offset, buffer[:size])
            if self.tree.digest(buffer[:size]) != digest:
                self.corrupt += 1
                raise corrupt(self._hashes.name, f"hash block of level {level},", number, offset)
            found = self._cut(*cut, buffer)
            kept = self._kept.keep((level, number), buffer)
        finally:
            if not kept:
                self._pool.free(buffer)
        return found

    def read_ahead(self, offset: int) -> None:
        """Have the leaf for `offset` read while the data is; skipped if memory is short. Waits: never."""
        leaf = offset // self.tree.data_size // self.tree.per_block
        if not self._levels or not self._kept.most or (0, leaf) in self._kept:
            return
        with self._guard:
            self._going += 1
        self._workers.queue(self._go_ahead, leaf)

    def _go_ahead(self, leaf: int) -> Plan[None]:
        try:
            if self._ended is None:  # else nobody needs it any more
                yield from self._ahead(leaf)
        finally:
            with self._guard:
                self._going -= 1
                ended = None if self._going else self._ended
            if ended is not None:
                ended.wake()

    def _ahead(self, leaf: int) -> Plan[None]:
        pool = self._pool
        taken = yield from pool.alloc_plan(Gfp.NOWAIT, NOIO, pool.runtime.owner(), 1, None)
        if taken is None:
            return
        if pool.reserve_count < pool.min_count:
            pool.free(taken[0])
            return
        self.ahead += 1
        with suppress(BlockError):  # whoever needs it will hear
            yield from self.walk(leaf, 0, 0, taken[0])

    def close(self) -> Plan[None]:
        """Give back what is kept. Waits: for what is being read ahead, which is nobody's request."""
        ticket = Ticket("reading ahead")
        with self._guard:
            self._ended = ticket
            over = not self._going
        if not over:
            yield from park(ticket)
        self._kept.close()
