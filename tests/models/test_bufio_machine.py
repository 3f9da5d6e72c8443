"""The buffer cache against a dictionary, with I/O errors and allocation failures from outside.

A block may read as what was last written to it, or, once a write of it has failed, as what the device
has. Whatever fails, nothing else changes, nothing leaks, and after a clean `write_dirty` all is on the disk.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headway.core.block.buffer import Buffer
from headway.core.plan import Plan
from headway.errors import BlockError
from headway.runtimes.simulator import Simulator
from tests.core.block.cache_rig import BLOCK, Bio, load, make, store
from tests.steps import step

BLOCKS = 12
FRAMES = 5
NUMBERS = st.integers(0, BLOCKS - 1)


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        staging = [memoryview(bytearray(4 * BLOCK))]
        self.cache, self.disk, self.memory = make(
            Simulator(lambda options: 0), FRAMES, staging=staging, reserve_count=2,
            keeping={"retain_bytes": BLOCK},
        )  # fmt: skip
        self.may_be = {number: {0} for number in range(BLOCKS)}  # the model
        self.held: list[Buffer] = []
        self.failing = 0
        self.lost = False  # a write has failed since the last write_dirty
        self.value = 0
        self.disk.bad = self._bad
        self.disk.failed = self._failed

    def _bad(self, bio: Bio) -> bool:
        if self.failing:
            self.failing -= 1
            return True
        return False

    def _failed(self, bio: Bio) -> None:
        if bio.op.value == "write":
            self.lost = True
            for number in range(bio.offset // BLOCK, bio.end // BLOCK):
                self.may_be[number].add(self.disk.value(number))

    def run(self, plan: Plan[Any]) -> Any:
        try:
            return step(plan).finish()
        except BlockError as error:
            return error

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        found = self.run(load(self.cache, number))
        if not isinstance(found, BlockError):
            assert found in self.may_be[number]

    @rule(number=NUMBERS)
    def write(self, number: int) -> None:
        self.value = self.value % 250 + 1
        self.may_be[number] = {self.value}
        assert not isinstance(self.run(store(self.cache, number, self.value)), BlockError)

    @precondition(lambda self: len(self.held) < 1)
    @rule(number=NUMBERS)
    def hold(self, number: int) -> None:
        found = self.run(self.cache.read_plan(number))
        if isinstance(found, Buffer):
            self.held.append(found)

    @precondition(lambda self: self.held)
    @rule()
    def write_held(self) -> None:
        buffer = self.held[0]
        self.value = self.value % 250 + 1
        buffer.view[:] = bytes([self.value]) * BLOCK
        buffer.mark_dirty()
        self.may_be[buffer.block] = {self.value}

    @precondition(lambda self: self.held)
    @rule(drop=st.booleans(), number=NUMBERS)
    def let_go(self, drop: bool, number: int) -> None:
        buffer = self.held.pop()
        value, old = buffer.view[0], buffer.block
        if drop:
            buffer.release()
        elif not isinstance(self.run(self.cache.move_plan(buffer, number)), BlockError):
            if number != old:
                self.may_be[number] = {value}
        else:  # what was at the new place may be lost, if that was what failed
            self.may_be[number].add(self.disk.value(number))

    @rule()
    def write_dirty(self) -> None:
        failed = isinstance(self.run(self.cache.write_dirty_plan()), BlockError)
        assert failed or not self.lost, "an error was lost"
        self.lost = False
        if not failed:
            for number, values in self.may_be.items():
                assert self.disk.value(number) in values
                buffer = self.cache.blocks.get(number)
                if buffer is None or buffer.error is None:  # else its holder still sees the other
                    self.may_be[number] = {self.disk.value(number)}

    @rule(number=NUMBERS, count=st.integers(1, 4))
    def prefetch_and_forget(self, number: int, count: int) -> None:
        self.run(self.cache.prefetch_plan(number, min(count, BLOCKS - number)))
        self.cache.forget(number, count)

    @rule(count=st.integers(1, 4))
    def shrink(self, count: int) -> None:
        class Control:
            scan_count = scanned = count

        before = self.memory.left
        freed = self.cache.keeper.scan_objects(Control())
        assert self.memory.left - before <= max(freed, 0)  # the rest filled the reserve
        self.run(self.cache.keeper._work())

    @rule(count=st.integers(1, 2))
    def fail_io(self, count: int) -> None:
        self.failing = count

    @rule(fails=st.booleans())
    def fail_memory(self, fails: bool) -> None:
        self.memory.fails = fails

    @invariant()
    def sound(self) -> None:
        self.cache.check_invariants()
        supply = self.cache.supply
        in_use = sum(buffer.frame is not None for buffer in self.cache.blocks.values())
        assert supply.frames == in_use + len(supply.reserve) == FRAMES - self.memory.left
        assert len(supply.reserve) + supply.lacking == 2
        assert len(self.cache.staging) == 1

    def teardown(self) -> None:
        for buffer in self.held:
            buffer.release()
        self.failing = 0
        self.run(self.cache.close_plan())
        assert self.memory.left == FRAMES, "memory did not come home"
        assert self.cache.supply.alerts == 0, "releases would look for ever"


TestCacheMachine = CacheMachine.TestCase
