"""Who uses a simulated machine: with and without its page cache, for memory alone, and for repair.

All are plans. Each user has blocks of its own, writes one after the other, and checks what it reads. A user
that is cancelled in the middle of a request leaves its memory to the request, waits until the device is
done with it, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.legs import DROPPED
from headway.core.block.line import carry_out
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.plan import Plan, Ticket, now, park
from headway.errors import NoMemory, UsageError
from headway.runtimes.simulator import Cancelled
from tests.simulation.blocks import ANY
from tests.simulation.disks import BLOCK

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS = ("direct", "restless", "cached", "buffered", "copier")
ROUNDS = 8
MOST = 4  # blocks of one request: what a frame holds
_MASKS = [Gfp.KERNEL, Gfp.KERNEL, Gfp.NOIO, Gfp.NOWAIT, Gfp.KERNEL | Gfp.NORETRY]


def sleep(seconds: float) -> Plan[None]:
    yield from park(Ticket("nobody"), seconds)


def rounds(world: World, count: int, one: Callable[[], Plan[None]]) -> Plan[None]:
    """One thing after the other; whoever is cancelled goes on with the next."""
    for _ in range(count):
        try:
            yield from one()
        except Cancelled:
            world.cancelled += 1


class Held:
    """Memory of a request: its user's, or, once that is cancelled, the request's, which gives it back."""

    def __init__(self, view: memoryview, give_back: Callable[[], object] = lambda: None) -> None:
        self.view = view
        self._give_back = give_back
        self._waiting: list[Ticket] = []
        self.is_home = False

    def free(self, bio: Bio | None = None) -> None:
        assert not self.is_home, "given back twice"
        self.is_home = True
        self.view.release()
        self._give_back()
        for ticket in self._waiting:
            ticket.wake()

    def gone(self) -> Plan[None]:
        """Wait until it is home, however often one is cancelled meanwhile."""
        while not self.is_home:
            ticket = Ticket("a request of one who was cancelled")
            self._waiting.append(ticket)
            try:
                yield from park(ticket)
            except Cancelled:
                pass


def own() -> Held:
    return Held(memoryview(bytearray(BLOCK)))


def lease(world: World, who: str, count: int) -> Plan[Held]:
    """A frame of the pool for so many blocks, charged to the budget."""
    yield from world.budget.alloc_plan(count, Gfp.KERNEL, 0, who, None, False)
    try:
        taken = yield from world.frames.alloc_plan(Gfp.KERNEL, 0, who, 1, None)
    except BaseException:
        world.budget.free(count)
        raise
    assert taken is not None

    def give_back() -> None:
        world.frames.free(taken[0])
        world.budget.free(count)

    return Held(taken[0][: count * BLOCK], give_back)


def sent(world: World, bio: Bio, held: Held) -> Plan[None]:
    """Carry a bio out that uses `held`; who is cancelled comes back when the device is done with it."""
    bio.home = held
    try:
        yield from carry_out(world.stack.top, bio)
    except Cancelled:
        yield from held.gone()
        raise


def restless(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Changes its memory while that is being written: any of the values may be written, and no other."""
    chance = world.chance

    def one() -> Plan[None]:
        first = chance.choice(blocks)
        count = min(chance.randrange(1, MOST + 1), blocks[-1] + 1 - first)
        held = yield from lease(world, who, count)
        if chance.random() < 0.7:
            under_way = [held]
            world.simulator.start(changer(world, first, under_way), f"user changer of {who}")
            try:
                yield from write(world, first, held)
            finally:
                under_way.clear()
        else:
            yield from read(world, first, held)
        if chance.random() < 0.5:
            yield from flush(world, blocks)

    yield from rounds(world, ROUNDS, one)


def changer(world: World, first: int, under_way: list[Held]) -> Plan[None]:
    """Another value in memory that is being written, after a while."""
    for _ in range(world.chance.randrange(1, 30)):
        yield from now()
    if not under_way or under_way[0].is_home:
        return
    view, value = under_way[0].view, world.chance.randrange(1, 256)
    for number in range(first, first + len(view) // BLOCK):
        world.blocks[number].write(value)
    view[:] = bytes([value]) * len(view)


def direct(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Each request in a frame of the pool, with its blocks charged to the budget."""
    chance = world.chance

    def one() -> Plan[None]:
        first = chance.choice(blocks)
        count = min(chance.randrange(1, MOST + 1), blocks[-1] + 1 - first)
        held = yield from lease(world, who, count)
        dice = chance.random()
        if dice < 0.6:
            yield from write(world, first, held)
        elif dice < 0.7:
            yield from clear(world, first, count, chance.choice([ZERO, ZERO, DISCARD]), held)
        else:
            yield from read(world, first, held)
        if chance.random() < 0.3:
            yield from flush(world, blocks)

    yield from rounds(world, ROUNDS, one)


def write(world: World, first: int, held: Held) -> Plan[None]:
    """Give a few blocks one value; `held` goes home."""
    fua = world.chance.random() < 0.2
    value = world.chance.randrange(1, 256)
    held.view[:] = bytes([value]) * len(held.view)
    count = len(held.view) // BLOCK
    written = [world.blocks[n].write(value) for n in range(first, first + count)]
    bio = Bio(WRITE, first * BLOCK, held.view, fua=fua)
    yield from sent(world, bio, held)
    if bio.error is None:
        answered(world, first, written, durable=fua)
    held.free()


def clear(world: World, first: int, count: int, op: Any, held: Held) -> Plan[None]:
    value = 0 if op is ZERO else ANY
    written = [world.blocks[n].write(value) for n in range(first, first + count)]
    bio = Bio(op, first * BLOCK, length=count * BLOCK)
    yield from sent(world, bio, held)
    if bio.error is None:
        answered(world, first, written, durable=False)
    held.free()


def answered(world: World, first: int, written: list[int], *, durable: bool) -> None:
    for number, version in enumerate(written, first):
        world.blocks[number].acked = version
        if durable:
            world.blocks[number].durable = version


def read(world: World, first: int, held: Held) -> Plan[None]:
    bio = Bio(READ, first * BLOCK, held.view)
    yield from sent(world, bio, held)
    if bio.error is None:
        for number in range(len(held.view) // BLOCK):
            data = bytes(held.view[number * BLOCK : (number + 1) * BLOCK])
            world.blocks[first + number].check(data, first + number, after_cut=False)
    held.free()


def flush(world: World, blocks: Sequence[int]) -> Plan[None]:
    covered = [(number, world.blocks[number].acked) for number in blocks]
    bio, held = Bio(FLUSH), own()
    yield from sent(world, bio, held)
    held.free()
    if bio.error is None:
        for number, version in covered:
            world.blocks[number].durable = max(version, world.blocks[number].durable)


def cached(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Through the page cache; what it has no page for goes straight to the stack."""
    chance, cache = world.chance, world.cache

    def one() -> Plan[None]:
        number = chance.choice(blocks)
        if chance.random() < 0.7:
            value = chance.randrange(1, 256)
            if (yield from cache.write(number, value, who)):
                world.blocks[number].acked = world.blocks[number].write(value)
            else:
                yield from write(world, number, own())
        else:
            data = yield from cache.read(number, who)
            if data is None:
                yield from read(world, number, own())
            else:
                world.blocks[number].check(data, number, after_cut=False)
        if chance.random() < 0.2:
            yield from sync(world, blocks)

    yield from rounds(world, 2 * ROUNDS, one)


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

    def one() -> Plan[None]:
        if held and (len(held) > 6 or chance.random() < 0.4):
            share.free(held.pop(chance.randrange(len(held))))
            return
        try:
            run = yield from world.path.alloc(share, chance.choice(_MASKS), 0, who)
        except NoMemory:
            run = None
        if run is not None:
            held.append(run)
        if chance.random() < 0.3:
            yield from sleep(0.001 + chance.random() / 50)

    yield from rounds(world, 4 * ROUNDS, one)
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
