"""What is written as one, and what becomes of a block that moves."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from headway.core.block.bio import Bio
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError, UsageError
from headway.runtimes.simulator import Simulator
from tests.core.block.cache_rig import BLOCK, Disk, load, make, store
from tests.steps import step


def run(plan: Plan[Any]) -> Any:
    return step(plan).finish()


def gathering(frames: int, blocks: int = 4) -> tuple[Any, Any, Any]:
    staging = [memoryview(bytearray(blocks * BLOCK))]
    return make(Simulator(lambda options: 0), frames, staging=staging)


def test_adjacent_dirty_blocks_are_written_as_one() -> None:
    cache, disk, _ = gathering(16)
    for block in (3, 1, 2, 7, 9):
        run(store(cache, block, block))
    run(cache.write_dirty_plan())
    assert disk.requests("write") == [
        ("write", 1 * BLOCK, 3 * BLOCK),
        ("write", 7 * BLOCK, BLOCK),
        ("write", 9 * BLOCK, BLOCK),
    ]
    assert [disk.value(n) for n in (1, 2, 3, 7, 8, 9)] == [1, 2, 3, 7, 0, 9]
    assert len(cache.staging) == 1


def test_no_more_is_written_as_one_than_the_staging_buffer_holds() -> None:
    cache, disk, _ = gathering(16, blocks=4)
    for block in range(10):
        run(store(cache, block, block + 1))
    run(cache.write_dirty_plan())
    assert [length // BLOCK for _, _, length in disk.requests("write")] == [4, 4, 2]
    assert [disk.value(n) for n in range(10)] == list(range(1, 11))


def test_ranges_that_do_not_touch_are_not_put_together() -> None:
    cache, disk, _ = gathering(16)
    cache.write_alignment = 512
    for block, (start, end) in enumerate([(512, BLOCK), (0, BLOCK), (0, 512), (0, 512)]):
        buffer = run(cache.read_plan(block))
        buffer.view[start:end] = b"q" * (end - start)
        buffer.mark_dirty(start, end)
        buffer.release()
    run(cache.write_dirty_plan())
    assert disk.requests("write") == [
        ("write", 512, 2 * BLOCK),
        ("write", 3 * BLOCK, 512),
    ]


def test_without_staging_and_while_it_is_in_use_blocks_go_one_by_one() -> None:
    cache, disk, _ = gathering(16)
    disk.held = []
    for block in (1, 2):
        run(store(cache, block, block))
    first = step(cache.write_dirty_plan())
    first.to_park()
    for block in (5, 6):
        run(store(cache, block, block))
    second = step(cache.write_dirty_plan())
    second.to_park()
    assert [bio.length // BLOCK for bio in disk.held] == [2, 1, 1]
    disk.let_go()
    first.finish(), second.finish()
    assert [disk.value(n) for n in (1, 2, 5, 6)] == [1, 2, 5, 6]


def test_an_error_of_a_run_is_that_of_each_of_its_blocks() -> None:
    cache, disk, _ = gathering(16)
    disk.bad = lambda bio: bio.op.value == "write"
    for block in (1, 2):
        run(store(cache, block, block))
    with pytest.raises(BlockError):
        run(cache.write_dirty_plan())
    assert not cache.blocks and cache.stats().errors == 1 and len(cache.staging) == 1


def test_writing_back_one_for_its_memory_takes_its_neighbours_along() -> None:
    cache, disk, _ = gathering(3)
    for block in range(3):
        run(store(cache, block, block + 1))
    run(load(cache, 9))
    assert disk.requests("write") == [("write", 0, 3 * BLOCK)]


# -- move --------------------------------------------------------------------------------------------------


def test_the_memory_of_one_holder_s_block_moves() -> None:
    cache, disk, _ = gathering(8)
    disk.fill(1, 7)
    buffer = run(cache.read_plan(1))
    frame = buffer.frame
    run(cache.move_plan(buffer, 5))
    moved = cache.blocks[5]
    assert sorted(cache.blocks) == [5] and moved.dirty and not moved.held and moved.frame is frame
    assert not buffer.held and not buffer.ready, "a hit that still has it steps back"
    cache.check_invariants()
    run(cache.write_dirty_plan())
    assert disk.value(5) == 7 and run(load(cache, 1)) == 7


def test_who_waits_for_memory_is_given_what_was_moved() -> None:
    cache, disk, _ = make(Simulator(lambda options: 0), 1)
    disk.fill(1, 7)
    buffer = run(cache.read_plan(1))
    waiting = step(load(cache, 2))
    waiting.to_park()
    run(cache.move_plan(buffer, 5))
    assert waiting.finish() == 0
    assert disk.value(5) == 7, "it was written for its memory"


def test_what_was_dirty_is_written_at_its_old_place_first() -> None:
    cache, disk, _ = gathering(8)
    run(store(cache, 1, 3)), run(store(cache, 5, 4))
    buffer = run(cache.read_plan(1))
    run(cache.move_plan(buffer, 5))
    assert disk.value(1) == 3 and disk.value(5) == 4, "both were written before"
    run(cache.write_dirty_plan())
    assert disk.value(5) == 3


def test_other_holders_keep_their_block() -> None:
    cache, disk, _ = gathering(8)
    disk.fill(1, 7)
    buffer, other = run(cache.read_plan(1)), run(cache.read_plan(1))
    run(cache.move_plan(buffer, 5))
    assert other is buffer and other.block == 1 and other.held == 1
    assert disk.value(5) == 7 and sorted(cache.blocks) == [1]


def test_a_move_waits_for_the_holders_of_the_new_place_and_readers_for_the_move() -> None:
    cache, disk, _ = gathering(8)
    disk.fill(1, 7), disk.fill(5, 8)
    buffer, there = run(cache.read_plan(1)), run(cache.read_plan(5))
    moving = step(cache.move_plan(buffer, 5))
    moving.to_park()
    cache.release(there)
    disk.held = []
    buffer.mark_dirty()
    moving.to_park() if not moving.request else None
    moving.answer(True)
    moving.to_park()  # its old place is being written; the new one is taken
    reader = step(load(cache, 5))
    reader.to_park()
    disk.let_go()
    moving.finish()
    assert reader.finish() == 7


def test_a_move_that_cannot_be_is_refused_and_releases() -> None:
    cache, disk, _ = gathering(8)
    buffer = run(cache.read_plan(1))
    with pytest.raises(UsageError):
        run(cache.move_plan(buffer, 1000))
    disk.bad = lambda bio: bio.op.value == "write"
    other = run(cache.read_plan(1))
    with pytest.raises(BlockError):
        run(cache.move_plan(buffer, 3))
    assert other.held == 1 and sorted(cache.blocks) == [1]
    with pytest.raises(UsageError):
        cache.release(other), run(cache.move_plan(other, 3))


class Waiting(Disk):
    """Takes a request over only when it is let: what a layer does whose reserve is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.ticket: Ticket | None = Ticket("a reserve")

    def submit_now(self, bio: Bio) -> bool:
        return False

    def submit(self, bio: Bio, line: Any) -> Any:
        return self._wait(bio, line)

    def _wait(self, bio: Bio, line: Any) -> Plan[None]:
        if self.ticket is not None:
            yield from park(self.ticket)
        super().submit(bio, line)


def test_what_a_cancelled_writer_was_to_write_is_dirty_as_before() -> None:
    """Else whoever reads while memory is short, and is cancelled, would lose another's data."""
    cache, disk, _ = make(Simulator(lambda options: 0), 16, Waiting())
    run(store(cache, 3, 7))
    writer, other = step(cache.write_dirty_plan()), step(cache.write_dirty_plan())
    assert writer.to_park() is disk.ticket and other.to_park() is not disk.ticket
    with pytest.raises(KeyboardInterrupt):
        writer.throw(KeyboardInterrupt())
    assert (cache.stats().dirty, cache.stats().errors, disk.requests()) == (1, 0, [])
    disk.ticket = None
    other.answer(True)
    other.finish()
    assert disk.value(3) == 7 and cache.stats().dirty == 0
    cache.check_invariants()
    run(cache.close_plan())


class Closed(Disk):
    """What a host says when it is closed."""

    def _answer(self, bio: Bio) -> bool:
        bio.error = BlockError(errno.ECANCELED, "the host was closed")
        return True


def test_a_device_that_says_cancelled_has_failed_and_is_not_asked_for_ever() -> None:
    cache, _, _ = make(Simulator(lambda options: 0), 16, Closed())
    with pytest.raises(BlockError, match="closed"):
        run(cache.read_plan(3))
    run(store(cache, 4, 7))
    with pytest.raises(BlockError, match="closed"):
        run(cache.write_dirty_plan())
    assert cache.stats().dirty == 0
