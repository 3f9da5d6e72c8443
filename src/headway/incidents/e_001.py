"""E-001 (2016, discussed in 2018): a cache asks for memory while it holds its one lock, and is throttled.

W needs a buffer. Its allocation may reclaim; reclaim throttles it, a tenth of a second at a time, and W holds
L throughout. Everybody else who reclaims asks the cache how much it could give, which wants L. So reclaim
stalls for all behind the one that is throttled. The remedies are of four kinds: do not hold the lock (*drop-lock*,
*noio-once*), do not want it (*no-lock-count*, *trylock*), do not stall (*fail-fast*, *no-throttle*), and
those that leave it as it was for reclaim (*may-fail*, *bucket-locks*). The cache here is the real one; the
lock around it is the incident's.

Source: Linux ``drivers/md/dm-bufio.c`` before and after commits 9ea61cac0 and 41c73a49df31 (4.10); the thread
"dm bufio: Reduce dm_bufio_lock contention" (2018).
"""

from __future__ import annotations

from typing import Any, final

from headway.core.block.bottom import Bottom
from headway.core.block.bufio import BufferCache
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Offload, Plan, Ticket, park
from headway.edge.memory_devices import MemoryDevice
from headway.incidents.stage import DONE, STALL, Fix, Incident, Stage

BLOCK = 4096
ROUND_S = 0.1
ROUNDS = {None: 20, "may-fail": 40, "fail-fast": 0, "no-throttle": 0}
TOO_LONG_S = 1.0  # a reclaimer that waits for longer is stalled
UNLOCKED = ("drop-lock", "noio-once")


@final
class _Frames:
    """Memory that is all used, but for what reclaim finds in the end."""

    def __init__(self, count: int) -> None:
        self.left = count

    def light(self, gfp: Gfp) -> memoryview | None:
        return self.alloc(gfp)

    def alloc(self, gfp: Gfp) -> memoryview | None:
        if not self.left:
            return None
        self.left -= 1
        return memoryview(bytearray(BLOCK))

    def free(self, element: memoryview) -> None:
        self.left += 1


def play(stage: Stage, fix: str | None) -> str:
    frames = _Frames(3)
    device = Bottom(MemoryDevice(64 * BLOCK))
    cache = BufferCache(device, frames, BLOCK, runtime=stage.simulator, name="cache",
                        keeping={"retain_bytes": 0})  # fmt: skip
    lock: FixedMempool[str] = FixedMempool(["L"], runtime=stage.simulator, name="L")
    waits: list[float] = []
    stage.simulator.run(_fill(cache))
    stage.enter("W", _worker(stage, cache, lock, fix))
    for who in ("R1", "R2"):
        stage.enter(who, _reclaimer(stage, who, cache, lock, waits, fix))
    stage.enter("U", _reader(stage, cache, lock, fix))
    ended = stage.play()
    return STALL if ended == DONE and max(waits) > TOO_LONG_S else ended


def _fill(cache: BufferCache) -> Plan[None]:
    for block in range(2):
        cache.release((yield from cache.read_plan(block)))


def _worker(
    stage: Stage, cache: BufferCache, lock: FixedMempool[str], fix: str | None
) -> Plan[None]:
    locked = fix not in UNLOCKED
    if locked:
        yield from _take(stage, "W", lock)
    buffer = yield from _throttled(stage, cache.read_plan(9), cache, fix)
    stage.say("W", "has block 9")
    cache.release(buffer)
    if locked:
        lock.free("L")
        stage.say("W", "unlocks L")


def _throttled(stage: Stage, plan: Plan[Any], cache: BufferCache, fix: str | None) -> Plan[Any]:
    """Carry the cache's own plan out; its NOIO try is made to wait as reclaim makes it wait."""
    answer: Any = None
    try:
        while True:
            request = plan.send(answer)
            if isinstance(request, Offload) and request.effect == cache.supply.memory.alloc:
                answer = yield from _reclaim(stage, fix)
                continue
            answer = yield request
    except StopIteration as stop:
        return stop.value


def _reclaim(stage: Stage, fix: str | None) -> Plan[Any]:
    if fix == "drop-lock":
        stage.say("W", "makes no NOIO try")
        return None
    rounds = ROUNDS.get(fix, 20)
    if rounds:
        stage.say("W", f"allocates with NOIO: throttled for {rounds} rounds of {ROUND_S} s")
        yield from park(Ticket("congestion"), rounds * ROUND_S)
    stage.say("W", "allocates with NOIO", "none" if rounds else "none, at once")
    return None


def _take(stage: Stage, who: str, lock: FixedMempool[str]) -> Plan[None]:
    if not lock.reserve_count:
        stage.say(who, "wants L", "it waits")
    yield from lock.alloc_plan(Gfp.KERNEL, 0, who, 1, None)
    stage.say(who, "locks L")


def _reclaimer(
    stage: Stage,
    who: str,
    cache: BufferCache,
    lock: FixedMempool[str],
    waits: list[float],
    fix: str | None,
) -> Plan[None]:
    """Anybody in direct reclaim: asks the cache what it could give."""
    yield from stage.turn()
    began_s = stage.simulator.now()
    if fix == "no-lock-count":
        stage.say(who, "counts, without L", f"{cache.keeper.count_objects(None)} buffers")
    elif fix == "trylock" and not lock.reserve_count:
        stage.say(who, "counts", "L is taken: nothing here now")
    else:
        yield from _take(stage, who, lock)
        stage.say(who, "counts", f"{cache.keeper.count_objects(None)} buffers")
        lock.free("L")
    waits.append(stage.simulator.now() - began_s)
    if waits[-1]:
        stage.say(who, f"has waited {waits[-1]:.1f} s")


def _reader(
    stage: Stage, cache: BufferCache, lock: FixedMempool[str], fix: str | None
) -> Plan[None]:
    """Somebody who only wants a block that is there."""
    yield from stage.turn()
    locked = fix not in (*UNLOCKED, "bucket-locks")
    if locked:
        yield from _take(stage, "U", lock)
    buffer = yield from cache.read_plan(1)
    stage.say("U", "reads block 1", "a hit")
    cache.release(buffer)
    if locked:
        lock.free("L")


INCIDENT = Incident(
    "E-001",
    "a cache is throttled while it holds the lock that all of reclaim wants",
    STALL,
    (
        Fix("drop-lock", "NOWAIT only; where that fails, wait for a buffer without the lock"),
        Fix("noio-once", "after NOWAIT one NOIO try, without the lock; then reserve, evict, wait"),
        Fix("fail-fast", "NORETRY is to mean: no stall, return nothing"),
        Fix("may-fail", "RETRY_MAYFAIL: no kill, no random failure, slower to fail", STALL),
        Fix("no-throttle", "exempt the task from throttling"),
        Fix("no-lock-count", "the count takes no lock, freeing is queued work"),
        Fix("trylock", "the shrinker only tries the lock"),
        Fix("bucket-locks", "look-ups take a lock of their bucket", STALL),
    ),
    play,
)
