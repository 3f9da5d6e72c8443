"""A write cache's log: what a start believes, what a failing device costs, and how much room is taken."""

from __future__ import annotations

import pytest

from headway.core.block import logformat
from headway.core.block.bio import FLUSH
from headway.core.block.logformat import Entry, Header
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError
from tests.core.block.layers.cached import BLOCKS, CACHE, disks, flush, on, one, result, zero
from tests.core.block.rig import BLOCK, Rig, shut


def test_what_an_earlier_power_cut_left_is_never_taken_for_the_next_segment() -> None:
    """A header that is whole but of an older epoch, at the very place, with the very number."""
    both = disks()
    form = logformat.fit(CACHE, BLOCKS * BLOCK, BLOCK, 5)
    old, new = bytes(BLOCK), b"n" * BLOCK

    def segment(sequence: int, position: int, epoch: int, data: bytes) -> None:
        entry = Entry(sequence, 0, logformat.check(memoryview(data)))
        header = Header(sequence, position, epoch, 0, [entry])
        both[1].pwrite(memoryview(form.header(header)), form.address(position))
        both[1].pwrite(memoryview(data), form.address(position + 1))

    both[1].pwrite(memoryview(form.superblock(logformat.State(0, 1, 0, 1, 0))), 0)
    segment(1, 0, 2, new)
    segment(2, 2, 1, old)  # left over from the epoch before
    segment(3, 4, 2, new)
    rig = Rig()
    stack = on(rig, both, False, ",drain=no")
    assert stack.top.stats()["replayed"] == 1
    left = memoryview(bytearray(BLOCK))
    both[1].pread_into(left, form.address(2))
    assert not any(left)  # nor by the start after this one
    shut(rig, stack)


def test_of_a_commit_that_was_cut_the_later_header_is_never_taken_for_one_of_a_later_life() -> None:
    """Of two headers under way the second is kept. The next life fills the first's place, and writes it back."""
    both = disks()
    rig = Rig()
    stack = on(rig, both, False, ",drain=no,high=100,low=100")
    form = stack.top.log.form  # type: ignore[attr-defined]
    for number in range(10):  # two segments of five
        result(rig, one(stack, number, b"o" * BLOCK))
    result(rig, flush(stack))
    both[1].pwrite(memoryview(bytes(BLOCK)), form.address(0))  # as if it had never been
    rig = Rig()
    stack = on(rig, both, False)
    assert stack.top.stats()["replayed"] == 0
    for number in range(5, 10):
        result(rig, one(stack, number, b"n" * BLOCK))
    result(rig, flush(stack))
    shut(rig, stack)  # the tail is now the place and the number of what was left
    rig = Rig()
    stack = on(rig, both, False)
    assert stack.top.stats()["replayed"] == 0
    for number in range(5, 10):
        assert result(rig, one(stack, number)).view == b"n" * BLOCK
    shut(rig, stack)


def test_data_that_is_not_what_was_said_costs_its_own_block_and_no_other() -> None:
    """Somebody changed a block while it was written: what others flushed with it is there, at each start."""
    slow, fast = MemoryDevice(BLOCKS * BLOCK), MemoryDevice(2 * CACHE)
    rig = Rig()
    stack = on(rig, [slow, fast], False)
    for number in range(9):  # two segments, one commit
        result(rig, one(stack, number, bytes([number + 1]) * BLOCK))
    rig.run(stack.request(FLUSH, 0, None, 0))
    images = [bytes(BLOCKS * BLOCK), bytearray(fast.size)]
    fast.pread_into(memoryview(images[1]), 0)  # the power goes
    at = images[1].index(bytes([3]) * BLOCK)
    images[1][at] ^= 1
    disks = [MemoryDevice(len(image)) for image in images]
    for disk, image in zip(disks, images, strict=True):
        disk.pwrite(memoryview(bytearray(image)), 0)
    for start in range(3):  # nothing is written back in between
        rig = Rig()
        stack = on(rig, disks, False, ",drain=no")
        for number in range(9):
            bio = result(rig, one(stack, number))
            assert bio.view == bytes([0 if number == 2 else number + 1]) * BLOCK
        result(rig, one(stack, 20, bytes([start]) * BLOCK))  # its header vouches for all before it
        rig.run(stack.request(FLUSH, 0, None, 0))
        shut(rig, stack)


def test_a_slow_device_that_fails_keeps_waiting_writes_and_loses_nothing() -> None:
    rig = Rig()
    stack = on(rig, disks(), False)
    slow, _ = stack.top.below
    works = slow._write  # type: ignore[attr-defined]

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the slow disk is away")

    slow._write = fails  # type: ignore[attr-defined]
    ended = [result(rig, one(stack, n, bytes([n + 1]) * BLOCK)).error for n in range(BLOCKS)]
    kept = [number for number, error in enumerate(ended) if error is None]
    assert 8 < len(kept) < BLOCKS and "away" in str(ended[-1])
    assert "away" in str(stack.top.stats()["failure"])
    assert result(rig, flush(stack)).error is None  # that is the fast one's
    for number in kept:
        assert result(rig, one(stack, number)).view == bytes([number + 1]) * BLOCK
    slow._write = works  # type: ignore[attr-defined]
    assert result(rig, one(stack, 23, b"w" * BLOCK)).error is None
    assert stack.top.stats()["failure"] is None
    shut(rig, stack)
    for number in kept[:-1]:
        view = memoryview(bytearray(BLOCK))
        slow.device.pread_into(view, number * BLOCK)  # type: ignore[attr-defined]
        assert view == bytes([number + 1]) * BLOCK


def test_after_a_failed_commit_nothing_is_promised() -> None:
    rig = Rig()
    stack = on(rig, disks(), False)
    assert result(rig, one(stack, 1, b"a" * BLOCK)).error is None

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the fast disk is gone")

    stack.top.below[1]._write = fails  # type: ignore[attr-defined]
    assert "gone" in str(result(rig, flush(stack)).error)
    assert "gone" in str(result(rig, one(stack, 1, b"b" * BLOCK)).error)
    assert result(rig, one(stack, 1)).view == b"a" * BLOCK
    with pytest.raises(BlockError, match="gone"):
        shut(rig, stack)


@pytest.mark.parametrize("slots", range(18, 24))
def test_who_writes_in_order_reads_what_is_last_at_every_turn_of_the_ring(slots: int) -> None:
    """Full segments do not fill the ring: the last of a turn is shorter, and may end where the ring does."""
    rig = Rig()
    both = [MemoryDevice(64 * BLOCK), MemoryDevice((2 + slots) * BLOCK)]
    stack = on(rig, both, False, section=8)
    for turn in range(160):
        number, data = turn % 64, bytes([turn % 255 + 1]) * BLOCK
        if turn % 7 == 0:
            assert result(rig, flush(stack)).error is None
        assert result(rig, one(stack, number, data)).error is None
        if number:
            bio = result(rig, one(stack, number - 1, count=2))
            assert bio.error is None and bio.view[BLOCK:] == data
    shut(rig, stack)


def test_closing_tells_that_a_write_back_failed_and_ends_all_else() -> None:
    rig = Rig()
    stack = on(rig, disks(), False)
    slow, _ = stack.top.below

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the slow disk is away", offset=offset)

    slow._write = fails  # type: ignore[attr-defined]
    assert result(rig, one(stack, 1, b"a" * BLOCK)).error is None
    with pytest.raises(BlockError, match="away") as told:
        rig.run(stack.close())
    assert told.value.offset == BLOCK
    left = [task.name for task in rig.simulator.stuck() if not task.name.startswith("disk")]
    assert not left


def test_closing_tells_that_what_is_left_could_not_be_committed_where_nothing_is_written_back() -> (
    None
):
    rig = Rig()
    stack = on(rig, disks(), False, ",drain=no")
    assert result(rig, one(stack, 1, b"a" * BLOCK)).error is None

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the fast disk is gone")

    stack.top.below[1]._write = fails  # type: ignore[attr-defined]
    with pytest.raises(BlockError, match="gone"):
        rig.run(stack.close())


def test_what_failed_is_told_each_time_anew_and_keeps_no_memory() -> None:
    """The error of a device is kept for good, not the traceback of who met it, with the buffers in it."""
    rig = Rig()
    stack = on(rig, disks(), False)
    assert result(rig, one(stack, 1, b"a" * BLOCK)).error is None

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the fast disk is gone", offset=offset)

    stack.top.below[1]._write = fails  # type: ignore[attr-defined]
    bios = [result(rig, flush(stack)) for _ in range(3)]
    bios += [result(rig, one(stack, 2, b"b" * BLOCK)) for _ in range(3)]
    told = [bio.error for bio in bios]
    log = stack.top.log  # type: ignore[attr-defined]
    assert all(isinstance(error, BlockError) and "gone" in str(error) for error in told)
    assert len({id(error) for error in (*told, log.committer.error)}) == 7
    assert (
        log.committer.error.__traceback__ is None
        and log.committer.error.__cause__ is log.committer.error.__context__ is None
    )
    with pytest.raises(BlockError, match="gone"):
        rig.run(stack.close())


def test_zeros_count_as_what_they_cover_and_are_written_back_when_that_is_much() -> None:
    """In memory is one entry for each block of the ring, and no more, however little of it zeros take."""
    rig = Rig()
    slow = MemoryDevice(400 * BLOCK)
    slow.pwrite(memoryview(b"?" * slow.size), 0)
    stack = on(rig, [slow, MemoryDevice(42 * BLOCK)], False, section=10)
    log = stack.top.log  # type: ignore[attr-defined]
    for first in range(0, 400, 50):
        assert result(rig, zero(stack, first, 50)).error is None
        assert log.ring.cached <= log.ring.covered <= 40
    assert log.written_back >= 360
    assert result(rig, flush(stack)).error is None
    for number in range(0, 400, 50):
        assert result(rig, one(stack, number)).view == bytes(BLOCK)
    shut(rig, stack)
    left = memoryview(bytearray(slow.size))
    slow.pread_into(left, 0)
    assert log.ring.covered == log.ring.cached == 0 and not any(left)


def test_what_zeros_covered_counts_after_a_start_too() -> None:
    rig, both = Rig(), [MemoryDevice(400 * BLOCK), MemoryDevice(42 * BLOCK)]
    stack = on(rig, both, False, ",drain=no,high=100,low=100", section=10)
    assert result(rig, zero(stack, 3, 30)).error is None
    shut(rig, stack)
    rig = Rig()
    stack = on(rig, both, False, ",high=100,low=100", section=10)
    assert stack.top.stats()["cached"] == 30
    ring = stack.top.log.ring  # type: ignore[attr-defined]
    assert ring.covered == 30
    assert (
        result(rig, zero(stack, 100, 30)).error is None
    )  # some of it has to be written back for that
    assert ring.covered <= 40
    shut(rig, stack)
