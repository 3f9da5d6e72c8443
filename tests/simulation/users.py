"""Who uses a simulated machine: with and without its page cache, for memory alone, and for repair.

All are plans. Each user has blocks of its own, writes one after the other, and checks what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.legs import DROPPED
from headway.core.block.line import carry_out
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.plan import Plan, Ticket, park
from headway.errors import NoMemory, UsageError
from tests.simulation.blocks import ANY
from tests.simulation.disks import BLOCK

if TYPE_CHECKING:
    from tests.simulation.world import World

ROUNDS = 8
MOST = 4  # blocks of one request: what a frame holds
_MASKS = [Gfp.KERNEL, Gfp.KERNEL, Gfp.NOIO, Gfp.NOWAIT, Gfp.KERNEL | Gfp.NORETRY]


def sleep(seconds: float) -> Plan[None]:
    yield from park(Ticket("nobody"), seconds)


def direct(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Each request in a frame of the pool, with its blocks charged to the budget."""
    chance = world.chance
    for _ in range(ROUNDS):
        first = chance.choice(blocks)
        count = min(chance.randrange(1, MOST + 1), blocks[-1] + 1 - first)
        yield from world.budget.alloc_plan(count, Gfp.KERNEL, 0, who, None, False)
        taken = yield from world.frames.alloc_plan(Gfp.KERNEL, 0, who, 1, None)
        assert taken is not None
        view = taken[0][: count * BLOCK]
        dice = chance.random()
        if dice < 0.6:
            yield from write(world, first, count, view)
        elif dice < 0.7:
            yield from clear(world, first, count, chance.choice([ZERO, ZERO, DISCARD]))
        else:
            yield from read(world, first, count, view)
        view.release()
        world.frames.free(taken[0])
        world.budget.free(count)
        if chance.random() < 0.3:
            yield from flush(world, blocks)


def write(world: World, first: int, count: int, view: memoryview) -> Plan[None]:
    fua = world.chance.random() < 0.2
    value = world.chance.randrange(1, 256)
    view[:] = bytes([value]) * len(view)
    written = [world.blocks[n].write(value) for n in range(first, first + count)]
    bio = Bio(WRITE, first * BLOCK, view, fua=fua)
    yield from carry_out(world.stack.top, bio)
    if bio.error is None:
        answered(world, first, written, durable=fua)


def clear(world: World, first: int, count: int, op: Any) -> Plan[None]:
    value = 0 if op is ZERO else ANY
    written = [world.blocks[n].write(value) for n in range(first, first + count)]
    bio = Bio(op, first * BLOCK, length=count * BLOCK)
    yield from carry_out(world.stack.top, bio)
    if bio.error is None:
        answered(world, first, written, durable=False)


def answered(world: World, first: int, written: list[int], *, durable: bool) -> None:
    for number, version in enumerate(written, first):
        world.blocks[number].acked = version
        if durable:
            world.blocks[number].durable = version


def read(world: World, first: int, count: int, view: memoryview) -> Plan[None]:
    bio = Bio(READ, first * BLOCK, view)
    yield from carry_out(world.stack.top, bio)
    if bio.error is None:
        for number in range(count):
            data = bytes(view[number * BLOCK : (number + 1) * BLOCK])
            world.blocks[first + number].check(data, first + number, after_cut=False)


def flush(world: World, blocks: Sequence[int]) -> Plan[None]:
    covered = [(number, world.blocks[number].acked) for number in blocks]
    bio = Bio(FLUSH)
    yield from carry_out(world.stack.top, bio)
    if bio.error is None:
        for number, version in covered:
            world.blocks[number].durable = max(version, world.blocks[number].durable)


def cached(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Through the page cache; what it has no page for goes straight to the stack."""
    chance, cache = world.chance, world.cache
    own = memoryview(bytearray(BLOCK))
    for _ in range(2 * ROUNDS):
        number = chance.choice(blocks)
        if chance.random() < 0.7:
            value = chance.randrange(1, 256)
            if (yield from cache.write(number, value, who)):
                world.blocks[number].acked = world.blocks[number].write(value)
            else:
                yield from write(world, number, 1, own)
        else:
            data = yield from cache.read(number, who)
            if data is None:
                yield from read(world, number, 1, own)
            else:
                world.blocks[number].check(data, number, after_cut=False)
        if chance.random() < 0.2:
            yield from sync(world, blocks)


def sync(world: World, blocks: Sequence[int]) -> Plan[None]:
    """Write this user's pages out, and flush: what fsync does."""
    worked = True
    for number in blocks:
        worked = (yield from world.cache.write_out(number)) and worked
    if worked:
        yield from flush(world, blocks)


def hog(world: World, who: str) -> Plan[None]:
    """Takes pages of the zone, and gives them back a little later."""
    chance = world.chance
    share = world.zone.share(chance.randrange(2), name=who)
    held: list[PageRun] = []
    for _ in range(4 * ROUNDS):
        if held and (len(held) > 6 or chance.random() < 0.4):
            share.free(held.pop(chance.randrange(len(held))))
            continue
        try:
            run = yield from world.path.alloc(share, chance.choice(_MASKS), 0, who)
        except NoMemory:
            run = None
        if run is not None:
            held.append(run)
        if chance.random() < 0.3:
            yield from sleep(0.001 + chance.random() / 50)
    while held:
        share.free(held.pop())
    share.close()


def repair(world: World) -> Plan[None]:
    """Fills dropped legs again, now and then."""
    for _ in range(3):
        yield from sleep(0.01 + world.chance.random() * 3)
        for mirror in world.mirrors():
            for leg in mirror.legs.all:
                if leg.state is DROPPED:
                    try:
                        yield from mirror.resync.run(leg)
                    except UsageError:
                        pass  # another is being filled
