"""What keeps data on a simulated machine beside its page cache: buffer caches, and values on a swap.

Both take their memory from the machine's zone, and give way to others as shrinkers. All are plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from headway.core.block.bufio import BufferCache
from headway.core.block.spill import Spill
from headway.core.block.swap import Swap
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan
from headway.errors import BlockError, HeadwayError, NoMemory
from tests.simulation.disks import BLOCK
from tests.simulation.users import ROUNDS, rounds, sleep

if TYPE_CHECKING:
    from tests.simulation.world import World

CACHES = 3  # buffer caches that have a staging buffer and those that do not take turns


class Buffered:
    """One user's buffer cache on the stack. After an error it writes all its blocks anew, as databases do."""

    def __init__(self, world: World, who: str) -> None:
        self.world = world
        number = len(world.backends)
        backend = world.backend(BLOCK, f"buffers of {who}")
        self.cache = BufferCache(
            world.stack.top, backend, BLOCK, runtime=world.simulator, name=f"{who} cache",
            staging=[memoryview(bytearray(4 * BLOCK))] if number % CACHES else None,
            in_flight=1 + number % 2, keeping={"retain_bytes": BLOCK},
        )  # fmt: skip
        backend.on_room(self.cache.supply.kick)
        self.registration = world.path.reclaim.shrinkers.register(
            self.cache.keeper, name=self.cache.name, batch=2
        )
        self.blocks: Sequence[int] = ()
        self.doubtful = False  # a write has failed: what it was to write may be nowhere

    def use(self, blocks: Sequence[int]) -> Plan[None]:
        self.blocks = blocks
        chance = self.world.chance

        def one() -> Plan[None]:
            number = chance.choice(blocks)
            dice = chance.random()
            if dice < 0.5:
                yield from self.store(number, chance.randrange(1, 256))
            elif dice < 0.75:
                yield from self.load(number)
            elif dice < 0.85:
                yield from self.cache.prefetch_plan(number, min(3, blocks[-1] + 1 - number))
            elif dice < 0.9:
                self.cache.forget(number)
                yield from sleep(chance.choice([0.001, 40.0]))  # some grow old
            else:
                yield from self.sync()

        yield from rounds(self.world, 3 * ROUNDS, one)

    def store(self, number: int, value: int) -> Plan[None]:
        try:
            buffer = yield from self.cache.read_plan(number, fresh=True)
        except BlockError:
            assert self.world.setting.io_may_fail
            return
        buffer.view[:] = bytes([value]) * BLOCK
        self.cache.mark_dirty(buffer)
        self.cache.release(buffer)
        block = self.world.blocks[number]
        block.acked = block.write(value)

    def load(self, number: int) -> Plan[None]:
        may_fail = self.world.setting.io_may_fail
        try:
            buffer = yield from self.cache.read_plan(number)
        except BlockError:
            assert may_fail
            return
        data = bytes(buffer.view)
        self.cache.release(buffer)
        self.world.blocks[number].check(data, number, after_cut=may_fail)

    def sync(self) -> Plan[bool]:
        """Write what is dirty, and flush; False if anything failed since the last time."""
        if not self.doubtful:
            self.doubtful = not (yield from self.written(self.blocks))
            return not self.doubtful
        for number in self.blocks:
            if not (yield from self.world.again(partial(self.written_anew, number))):
                return False
        self.doubtful = False
        return True

    def written_anew(self, number: int) -> Plan[bool]:
        """One block by itself: a flaky layer lets few through at a time."""
        block = self.world.blocks[number]
        if block.acked:
            yield from self.store(number, block.written[block.acked])
        return (yield from self.written([number]))

    def written(self, numbers: Sequence[int]) -> Plan[bool]:
        """Write and flush; what was stored of `numbers` is durable then."""
        blocks = self.world.blocks
        covered = [(number, blocks[number].acked) for number in numbers]
        self.doubtful = True
        try:
            yield from self.cache.write_dirty_plan()
        except BlockError:
            assert self.world.setting.io_may_fail
            return False
        for number, version in covered:
            blocks[number].durable = max(version, blocks[number].durable)
        return True

    def close(self) -> Plan[None]:
        yield from self.registration.leave()
        try:
            yield from self.cache.close_plan()
        except BlockError:
            assert self.world.setting.io_may_fail
        self.cache.check_invariants()


class Spilled:
    """Values on a swap, on a stack of its own; what was stored comes back, or fails with the device."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stack = world.make_stack(world.swap_specs)
        backend = world.backend(BLOCK, "spill store")
        chance = world.chance
        self.swap = Swap(
            self.stack.top, BLOCK, runtime=world.simulator, in_flight=chance.choice([1, 3])
        )
        self.store = Spill(self.swap, backend, runtime=world.simulator, name="spill store")
        backend.on_room(self.store.supply.kick)
        self.registration = world.path.reclaim.shrinkers.register(
            self.store, name="spill store", batch=2, needs=Gfp.IO
        )
        self.kept: dict[tuple[int, int], bytes] = {}

    def use(self, me: int) -> Plan[None]:
        chance = self.world.chance

        def one() -> Plan[None]:
            key = (me, chance.randrange(3))
            dice = chance.random()
            if dice < 0.5:
                yield from self.put(key, chance.randbytes(chance.randrange(1, 4 * BLOCK)))
            elif dice < 0.85:
                yield from self.get(key)
            elif dice < 0.95:
                yield from sleep(0.001 + chance.random() / 10)
            elif key in self.kept:
                del self.kept[key]
                self.store.delete(key)

        yield from rounds(self.world, 2 * ROUNDS, one)

    def put(self, key: tuple[int, int], data: bytes) -> Plan[None]:
        try:
            yield from self.store.put_plan(key, memoryview(data))
        except NoMemory:
            return
        except BlockError:
            assert self.may_fail
            return
        self.kept[key] = data

    def get(self, key: tuple[int, int]) -> Plan[None]:
        try:
            found = yield from self.store.get_plan(key)
        except KeyError:
            assert key not in self.kept
            return
        except BlockError:
            assert self.may_fail
            return
        except HeadwayError as error:
            assert isinstance(error, NoMemory), error
            return
        assert found == self.kept[key], f"value {key} is another now"

    @property
    def may_fail(self) -> bool:
        setting = self.world.setting
        return setting.io_fails > 0 or any("flaky" in spec for spec in setting.swap_specs)

    def close(self) -> Plan[None]:
        yield from self.registration.leave()
        for key in sorted(self.kept):
            yield from self.world.again(partial(self.comes_back, key))
        self.store.check_invariants()
        self.store.close()
        assert self.swap.used == 0, f"{self.swap.used} slots were lost"
        self.swap.close()

    def comes_back(self, key: tuple[int, int]) -> Plan[bool]:
        try:
            found = yield from self.store.get_plan(key)
        except (BlockError, NoMemory):
            assert self.may_fail or self.swap.refused
            return False
        assert found == self.kept[key], f"value {key} is another now"
        return True
