"""A buffer cache to look into: a memory of so many frames, a device that can fail, and a log of attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headway.core.block.bio import FLUSH, READ, WRITE, Bio, refused
from headway.core.block.bottom import Bottom
from headway.core.block.bufio import BufferCache
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan, Runtime
from headway.edge.memory_devices import MemoryDevice

BLOCK = 4096


class Frames:
    """A backend of at most `count` buffers; `fails` makes every allocation fail, `masks` are what it saw."""

    def __init__(self, count: int, size: int = BLOCK) -> None:
        self.left = count
        self.size = size
        self.fails = False
        self.masks: list[Gfp] = []
        self.before: Callable[[str], object] = lambda door: None

    def _take(self, door: str, gfp: Gfp) -> memoryview | None:
        self.masks.append(gfp)
        self.before(door)
        if self.fails or not self.left:
            return None
        self.left -= 1
        return memoryview(bytearray(self.size))

    def light(self, gfp: Gfp) -> memoryview | None:
        return self._take("light", gfp)

    def alloc(self, gfp: Gfp) -> memoryview | None:
        return self._take("alloc", gfp)

    def free(self, element: memoryview) -> None:
        self.left += 1


class Disk(Bottom):
    """A memory device whose requests are noted, and fail where `bad` says so; `held` keeps them until let go."""

    def __init__(self, blocks: int = 64, *, size: int | None = None) -> None:
        super().__init__(MemoryDevice(size or blocks * BLOCK), inline=True)
        self.log: list[tuple[str, int, int]] = []
        self.bad: Callable[[Bio], bool] = lambda bio: False
        self.failed: Callable[[Bio], object] = lambda bio: None
        self.held: list[Bio] | None = None

    def submit_now(self, bio: Bio) -> bool:
        return self.held is None and self._answer(bio)

    def submit(self, bio: Bio, line: Any) -> None:
        if self.held is not None and bio.op is not FLUSH:
            self.held.append(bio)
            return
        self._answer(bio)
        bio.complete()

    def _answer(self, bio: Bio) -> bool:
        self.log.append((bio.op.value, bio.offset, bio.length))
        if self.bad(bio):
            bio.error = refused(bio, self.name, "the rig let it fail", 5)
            self.failed(bio)
        else:
            self._move(bio)
        return True

    def let_go(self) -> None:
        """Carry out what is held, and hold no more."""
        held, self.held = self.held or [], None
        for bio in held:
            self._answer(bio)
            bio.complete()

    def fill(self, block: int, value: int) -> None:
        self.device.pwrite(memoryview(bytes([value]) * BLOCK), block * BLOCK)

    def value(self, block: int) -> int:
        found = bytearray(BLOCK)
        self.device.pread_into(memoryview(found), block * BLOCK)
        assert len(set(found)) == 1, "torn"
        return found[0]

    def requests(self, op: str = "") -> list[tuple[str, int, int]]:
        return [entry for entry in self.log if not op or entry[0] == op]


def make(
    runtime: Runtime, frames: int, disk: Disk | None = None, **options: Any
) -> tuple[BufferCache, Disk, Frames]:
    """A cache whose keeper is not started."""
    disk = disk or Disk()
    memory = Frames(frames)
    cache = BufferCache(disk, memory, BLOCK, runtime=runtime, **options)
    return cache, disk, memory


def store(cache: BufferCache, block: int, value: int) -> Plan[None]:
    """Fill a block and make it dirty."""
    buffer = yield from cache.read_plan(block, fresh=True)
    buffer.view[:] = bytes([value]) * BLOCK
    cache.mark_dirty(buffer)
    cache.release(buffer)


def load(cache: BufferCache, block: int) -> Plan[int]:
    """What a block has."""
    buffer = yield from cache.read_plan(block)
    try:
        found = set(bytes(buffer.view))
        assert len(found) == 1, "torn"
        return found.pop()
    finally:
        cache.release(buffer)


__all__ = ["BLOCK", "FLUSH", "READ", "WRITE", "Disk", "Frames", "load", "make", "store"]
