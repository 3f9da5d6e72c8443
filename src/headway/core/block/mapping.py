"""A scatter list made into one request: a bio for each piece, bounced where the device cannot reach it.

It does not submit: only the finished request is, and that is the danger. Each bio, and each bounce
buffer, comes from a reserve while those taken before are held and not in flight; so a mapper can wait
for what it holds itself, or two mappers for each other's. Two remedies, to be chosen:

* `Remedy.CAPACITY`: size for the worst case. If at most `mappers` map at once and each takes at most k
  elements, N*(k-1)+1 of them always let one finish (with fewer, all can hold k-1 and wait). The mapper
  refuses to be made with less, and waits then without danger.
* `Remedy.UNWIND`: never wait. If anything is missing, all that was taken goes back, last first, and
  `NoMemory` is raised: the caller owns nothing, and tries again when it likes.

The pools belong to the mapper's level and nobody else's: the bios that a bounce makes must not come
from the set that the mapped bios came from, since those are held while it waits.

Source: Bolkhovitin and Axboe, "Implementation of blk_rq_map_kern_sg()" (2009); Linux ``block/bounce.c``
(before 6.16), which takes up to 256 pages from a pool of 64 while it holds the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, final

from headway.core.block.bio import READ, WRITE, Bio, Op
from headway.core.block.bioset import BioSet
from headway.core.block.limits import NO_LIMITS, Limits
from headway.core.block.line import NOIO, Line, Target
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.plan import Plan
from headway.errors import NoMemory, UsageError


class Remedy(Enum):
    """What keeps a mapper from waiting for itself."""

    CAPACITY = "size for the worst case"
    UNWIND = "fail, and unwind completely"


def worst_case(mappers: int, most: int) -> int:
    """Elements with which one of `mappers` always finishes, if each takes `most`, one after the other."""
    return mappers * (most - 1) + 1


@final
class Mapped:
    """A request: bios that are submitted together, and complete as one."""

    __slots__ = ("bios", "bounced", "head")

    def __init__(self, head: Bio) -> None:
        self.head = head  # complete when all bios are; not submitted itself
        self.bios: list[Bio] = []
        # each: the buffer, the part of it that is used, the memory it stands for
        self.bounced: list[tuple[Any, memoryview, memoryview]] = []


@final
class Mapper:
    """Maps scatter lists. `reaches(view)` says whether the device can use that memory as it is.

    A request has at most `most` pieces after cutting to `limits` and to the size of a bounce buffer;
    `mappers` is how many map at once. Raises: UsageError if CAPACITY is chosen and the bios or
    buffers are fewer than the worst case.
    """

    __slots__ = ("_bios", "_buffers", "_limits", "_piece", "_reaches", "_remedy", "most")

    def __init__(
        self,
        bios: BioSet,
        buffers: Mempool[memoryview],
        *,
        reaches: Callable[[memoryview], bool],
        buffer_size: int,
        most: int,
        mappers: int = 1,
        limits: Limits = NO_LIMITS,
        remedy: Remedy = Remedy.CAPACITY,
    ) -> None:
        self._bios = bios
        self._buffers = buffers
        self._reaches = reaches
        self._piece = buffer_size
        self.most = most
        self._limits = limits
        self._remedy = remedy
        if buffer_size % limits.alignment:
            raise UsageError(
                f"bounce buffers of {buffer_size} bytes hold no whole blocks of {limits.alignment}"
            )
        need = worst_case(mappers, most)
        for what, pool in (("bios", bios.pool), ("bounce buffers", buffers)):
            if remedy is Remedy.CAPACITY and pool.min_count < need:
                raise UsageError(
                    f"{mappers} mappers of up to {most} {what} each can hang with {pool.min_count} in "
                    f"pool {pool.name!r}: give it {need}, or let the mapper unwind (Remedy.UNWIND)"
                )

    def map(self, op: Op, offset: int, sg: Sequence[memoryview], head: Bio) -> Plan[Mapped]:
        """A request for the bytes of `sg`, one view after the other, from `offset`.

        `head` is the caller's bio, complete when the request is. Waits: with CAPACITY, for bios and
        buffers. Raises: NoMemory, with UNWIND, and nothing is held; UsageError if it has too many pieces.
        """
        assert op is READ or op is WRITE
        mapped = Mapped(head)
        pieces = self._cut(offset, sg)
        try:
            for at, view in pieces:
                bio = yield from self._take(self._bios.pool, len(pieces))
                mapped.bios.append(bio.aim(op, at, view, len(view)))
                if not self._reaches(view):
                    buffer = yield from self._take(self._buffers, len(pieces))
                    bio.view = buffer[: len(view)]
                    mapped.bounced.append((buffer, bio.view, view))
                    if op is WRITE:
                        bio.view[:] = view
        except BaseException:
            self.unmap(mapped)
            raise
        return mapped

    def submit(self, mapped: Mapped, layer: Target, line: Line) -> None:
        """Pass the whole request on. What was bounced is copied back, and freed, when it is complete."""
        bios, mapped.bios = mapped.bios, []
        head = mapped.head
        if mapped.bounced:
            head.push(lambda bio: self._finish(mapped, bio))
        for bio in bios:
            head.chain(bio)
        for bio in bios:
            line.send(bio, layer)
        head.complete()  # its own share; the children hold the rest

    def unmap(self, mapped: Mapped) -> None:
        """Give everything of a request that was not submitted back, last taken first."""
        while mapped.bios:
            bio = mapped.bios.pop()
            bounced = mapped.bounced
            if bounced and bounced[-1][1] is bio.view:
                self._buffers.free(bounced.pop()[0])
            self._bios.free(bio)

    def _finish(self, mapped: Mapped, bio: Bio) -> None:
        while mapped.bounced:
            buffer, part, user = mapped.bounced.pop()
            if bio.op is READ and bio.error is None:
                user[:] = part
            self._buffers.free(buffer)

    def _cut(self, offset: int, sg: Sequence[memoryview]) -> list[tuple[int, memoryview]]:
        pieces = []
        for view in sg:
            reached = self._reaches(view)
            while len(view):
                length = self._limits.front(offset, len(view))
                if not reached:
                    length = min(length, self._piece)
                pieces.append((offset, view[:length] if length < len(view) else view))
                offset, view = offset + length, view[length:]
        if len(pieces) > self.most:
            raise UsageError(
                f"a scatter list of {len(sg)} views is {len(pieces)} pieces, and this mapper was made "
                f"for {self.most}: map it in parts"
            )
        return pieces

    def _take(self, pool: Mempool[Any], count: int) -> Plan[Any]:
        gfp = Gfp.NOWAIT if self._remedy is Remedy.UNWIND else Gfp.NOIO
        taken = yield from pool.alloc_plan(gfp, NOIO, pool.runtime.owner(), 1, None)
        if taken is None:
            raise NoMemory(
                f"mapping {count} pieces: pool {pool.name!r} has {pool.reserve_count} of "
                f"{pool.min_count} and its allocator failed; nothing is held, try again later"
            )
        return taken[0]
