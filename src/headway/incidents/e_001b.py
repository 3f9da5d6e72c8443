"""E-001b (2018): a flag that says "do not try hard" on an allocation with nothing behind it.

The first round of reclaim finds nothing, the second finds a page. NORETRY gives up after the first. That is what a
caller with a second path wants; here the failure reaches the user, at random, while memory could be had.
An audit of the kernel's users of the flag found sixteen such places. The remedies: a last try without the flag, the
flag that only spares the machine a kill, a smaller request, and a reserve, which is what the real cache has.

Source: M. Patocka's audit in "dm bufio: Reduce dm_bufio_lock contention" (2018).
"""

from __future__ import annotations

from typing import final

from headway.core.block.bottom import Bottom
from headway.core.block.bufio import BufferCache
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import NoMemory
from headway.incidents.stage import DONE, SPURIOUS, Fix, Incident, Stage

BLOCK = 4096
BLOCKS = 3


@final
class _Memory:
    """Nothing is free; the second round of reclaim in a row finds a page. `leftovers`: small ones are free."""

    def __init__(self, stage: Stage, free: int, leftovers: bool) -> None:
        self._stage = stage
        self._free = free
        self._leftovers = leftovers

    def light(self, gfp: Gfp) -> memoryview | None:
        return self.alloc(gfp)

    def alloc(self, gfp: Gfp, size: int = BLOCK) -> memoryview | None:
        if self._free:
            self._free -= 1
            return memoryview(bytearray(size))
        most = 0 if not gfp.may_park else 1 if gfp & Gfp.NORETRY else 16
        for number in range(1, most + 1):
            found = number == 2
            self._stage.say(
                "memory", f"round {number} of reclaim", "a page" if found else "nothing"
            )
            if found:
                return memoryview(bytearray(size))
        return memoryview(bytearray(size)) if size < BLOCK and self._leftovers else None

    def free(self, element: memoryview) -> None:
        self._free += 1


def play(stage: Stage, fix: str | None) -> str:
    cache: BufferCache | None = None
    memory = _Memory(stage, free=1 if fix == "reserve" else 0, leftovers=fix == "smaller")
    if fix == "reserve":
        device = Bottom(MemoryDevice(8 * BLOCK))
        cache = BufferCache(device, memory, BLOCK, runtime=stage.simulator, name="cache")
    ended: list[str] = []
    stage.enter("user", _user(stage, memory, cache, fix, ended))
    finished = stage.play()
    return ended[0] if ended else finished


def _user(
    stage: Stage, memory: _Memory, cache: BufferCache | None, fix: str | None, ended: list[str]
) -> Plan[None]:
    for block in range(BLOCKS):
        if cache is not None:
            buffer = yield from cache.read_plan(block)
            stage.say(
                "user", f"block {block}", f"{cache.stats().reserve_lacking} of 1 reserve in use"
            )
            cache.release(buffer)
            continue
        try:
            _alloc(stage, memory, fix)
        except NoMemory:
            stage.say("user", f"block {block}", "fails: no memory")
            ended.append(SPURIOUS)
            return
        stage.say("user", f"block {block}", "done")
        yield from stage.turn()


def _alloc(stage: Stage, memory: _Memory, fix: str | None) -> memoryview:
    first = Gfp.KERNEL | (Gfp.RETRY_MAYFAIL if fix == "may-fail" else Gfp.NORETRY)
    frame = memory.alloc(first)
    if frame is None and fix == "fallback":
        stage.say("user", "tries again, without NORETRY")
        frame = memory.alloc(Gfp.KERNEL)
    if frame is None and fix in ("smaller", "keeps-flag"):
        stage.say("user", "tries half the size, with the flag")
        frame = memory.alloc(first, BLOCK // 2)
    if frame is None:
        raise NoMemory("the allocator gave up")
    return frame


INCIDENT = Incident(
    "E-001b",
    "an allocation gives up after one round, and nothing is behind it",
    SPURIOUS,
    (
        Fix("fallback", "a last try without NORETRY", DONE),
        Fix("smaller", "a smaller request, which can be had", DONE),
        Fix("keeps-flag", "a smaller request that keeps the flag to the last", SPURIOUS),
        Fix("may-fail", "RETRY_MAYFAIL, where all that was wanted is no kill", DONE),
        Fix("reserve", "a reserve behind it, as the cache has", DONE),
    ),
    play,
)
