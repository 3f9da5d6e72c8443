"""writecache: what was flushed survives every power cut, the newest copy is read, and a full log waits."""

from __future__ import annotations

import random
from typing import Any

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block import logformat
from headway.core.block.bio import FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.line import carry_out
from headway.core.block.logformat import Entry, Header
from headway.core.block.ring import Ring
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from tests.core.block.layers.powercut import Life
from tests.core.block.rig import BLOCK, Keys, Rig, shut

BLOCKS = 24
CACHE = 18 * BLOCK  # smaller than what is written: it is written back all the time


def on(
    rig: Rig, disks: list[MemoryDevice], starve: bool, more: str = "", section: int = 5
) -> Stack:
    bottoms = []
    for disk in disks:
        bottom = rig.disk()
        bottom.device, bottom.size = disk, disk.size
        bottom._read, bottom._write = disk.pread_into, disk.pwrite
        bottoms.append(bottom)
    stack = Stack(
        rig.simulator,
        bottoms[0],
        [f"writecache,cache=fast,block={BLOCK},section={section},buffer=1KiB{more}"],
        opener=lambda name, site: bottoms[1],
        crypto=Keys(),
        starve=starve,
    )
    rig.run(stack.start())
    return stack


@pytest.mark.parametrize("seed", range(6))
def test_what_was_flushed_survives_a_power_cut_after_every_write(seed: int) -> None:
    images = [bytes(BLOCKS * BLOCK), bytes(CACHE + seed % 3 * 5 * BLOCK)]
    for number in range(3):
        life = Life(on, images, 10 * seed + number, BLOCKS, starve=seed % 2 == 1)
        life.run()
        images = life.check_all()


def one(stack: Stack, number: int, data: bytes | None = None, count: int = 1) -> Plan[Bio]:
    """Write blocks, or read `count`."""
    view = memoryview(bytearray(count * BLOCK if data is None else data))
    bio = Bio(READ if data is None else WRITE, number * BLOCK, view)
    yield from carry_out(stack.top, bio)
    return bio


def result(rig: Rig, plan: Plan[Any]) -> Any:
    task = rig.simulator.start(plan, "user")
    rig.run()
    assert task.done
    return task.result


def flush(stack: Stack) -> Plan[Bio]:
    bio = Bio(FLUSH)
    yield from carry_out(stack.top, bio)
    return bio


def disks() -> list[MemoryDevice]:
    return [MemoryDevice(BLOCKS * BLOCK), MemoryDevice(CACHE)]


@pytest.mark.parametrize("seed", range(12))
def test_reads_while_it_is_written_back_find_what_was_written(seed: int) -> None:
    """A segment is not written over while somebody reads from it."""
    rig = Rig(seed, fine=True)
    stack = on(rig, disks(), seed % 2 == 0)
    least = dict.fromkeys(range(4), 0)

    def writer(first: int) -> Plan[None]:
        for version in range(1, 30):
            number = first + 2 * (version % 2)
            assert (yield from one(stack, number, bytes([version]) * BLOCK)).error is None
            least[number] = version

    def reader() -> Plan[None]:
        for turn in range(40):
            before = least[turn % 4]
            bio = yield from one(stack, turn % 4)
            assert bio.error is None and bio.view is not None
            assert len(set(bio.view)) == 1, "a block of something else"
            assert bio.view[0] >= before

    stuck = rig.run(writer(0), writer(1), reader(), reader(), reader())
    assert not [task for task in stuck if task.name.startswith("task")]
    shut(rig, stack)


def test_what_somebody_reads_from_is_not_written_over() -> None:
    rig = Rig()
    stack = on(rig, disks(), False)
    for number in range(4):
        assert result(rig, one(stack, number, b"o" * BLOCK)).error is None
    log = stack.top.log  # type: ignore[attr-defined]
    found = log.ring.find(0, 1)  # a read that is under way for long

    def writer() -> Plan[None]:
        for turn in range(40):
            assert (yield from one(stack, 4 + turn % 20, b"n" * BLOCK)).error is None

    assert [task.name for task in rig.run(writer()) if task.name.startswith("task")]
    view = memoryview(bytearray(BLOCK))
    stack.top.below[1].device.pread_into(view, log.form.address(found.position))  # type: ignore[attr-defined]
    assert view == b"o" * BLOCK
    log.read(found.segment)
    assert not [task.name for task in rig.run() if task.name.startswith("task")]
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(12))
def test_of_two_writes_at_once_the_same_one_wins_before_and_after_a_start(seed: int) -> None:
    rig, both = Rig(seed, fine=True), disks()
    stack = on(rig, both, False, ",drain=no,high=100,low=100")
    rig.run(*(one(stack, 3, bytes([version]) * BLOCK) for version in range(1, 6)))
    before = result(rig, one(stack, 3)).view
    shut(rig, stack)
    rig = Rig()
    stack = on(rig, both, False)
    assert stack.top.stats()["replayed"] == 5
    assert result(rig, one(stack, 3)).view == before
    shut(rig, stack)


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


@pytest.mark.parametrize("block", [1024, 2048, 4096])
def test_what_users_write_is_never_taken_for_a_superblock(block: int) -> None:
    """With blocks of 512 bytes the ring begins where larger ones would have their second superblock."""
    form, state = logformat.fit(1 << 16, 1 << 16, 512, 5), logformat.State(4, 3, 60, 9, 2)
    raw = form.superblock(state) + form.superblock(state._replace(generation=3))
    raw = raw.ljust(block, b"?")
    for forged in (form, logformat.fit(1 << 16, 1 << 16, block, 5)):
        fake = forged.superblock(logformat.State(99, 1, 0, 1, 0)).ljust(512)
        whole = (raw + fake).ljust(8192, b"?")
        assert logformat.parse(whole, 1 << 16, 1 << 16) == (form, state)


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


def test_segments_are_placed_by_hand() -> None:
    """Room of eight blocks: a segment never crosses the end, a full ring gives none, a release gives it back."""
    ring = Ring(8, 3, 0, 1, 1)
    first = ring.place(3, 3)
    assert first is not None and (first.segment.start, first.position, ring.used) == (0, 1, 4)
    second = ring.place(2, 2)  # the first is full, so it was sealed
    assert second is not None and second.segment.start == 4 and ring.sealed() == [first.segment]
    assert ring.place(2, 2) is None  # one block is left
    assert ring.done(first, [Entry(n, 0, 0) for n in (7, 8, 9)]) is None
    found = ring.find(7, 5)
    assert (found.count, found.position, found.segment) == (3, 1, first.segment)
    assert ring.find(1, 9).count == 6  # up to what is here
    ring.committed([first.segment])
    assert ring.needed([first.segment]) == {7: 1, 8: 2, 9: 3}
    ticket = first.segment.quiet()
    ring.drop([first.segment])
    assert ring.find(7, 3).segment is None
    assert ticket is not None and first.segment.read() is ticket
    ring.release([first.segment])
    assert (ring.tail, ring.used) == (4, 3)
    third = ring.place(3, 3)  # from the beginning: the block that is left at the end is passed over
    assert third is not None and (third.segment.start, ring.used) == (8, 8)


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


def test_a_device_and_its_cache_are_files_and_the_device_is_whole_when_it_is_closed(
    tmp_path,
) -> None:
    disk, fast = tmp_path / "disk", tmp_path / "fast"
    disk.write_bytes(b"." * (1 << 20))
    fast.write_bytes(bytes(256 << 10))
    spec = f"writecache,cache={fast},section=15"
    data = random.Random(1).randbytes(300_000 // 4096 * 4096)
    with hw.open_stack(str(disk), [spec + ",drain=no"], writable=True) as device:
        device.pwrite(memoryview(data[:40960]), 4096)
        device.zero(512 << 10, 64 << 10)
    assert disk.read_bytes() == b"." * (1 << 20)
    with pytest.raises(UsageError, match="not on their device yet"):
        hw.open_stack(str(disk), [spec + ",create=yes"], writable=True)
    with hw.open_stack(str(disk), [spec], writable=True) as device:
        device.pwrite(memoryview(data[40960:]), 4096 + 40960)
    held = disk.read_bytes()
    assert held[4096 : 4096 + len(data)] == data
    assert held[512 << 10 : 576 << 10] == bytes(64 << 10) and held[-4096:] == b"." * 4096
    (tmp_path / "small").write_bytes(bytes(1 << 19))
    with pytest.raises(UsageError, match="made for a device of 1048576 bytes"):
        hw.open_stack(str(tmp_path / "small"), [spec], writable=True)
    fast.write_bytes(b"?" * (256 << 10))
    with pytest.raises(UsageError, match="no superblock: create=yes"):
        hw.open_stack(str(disk), [spec], writable=True)
    for wrong, says in (
        (spec[:-2] + "40", "choose a larger cache"),
        (spec + ",low=60", "percentages"),
    ):
        with pytest.raises(UsageError, match=says):
            hw.open_stack(str(disk), [wrong + ",create=yes"], writable=True)


@pytest.mark.parametrize("starve", [False, True])
def test_copy_through_a_write_cache(tmp_path, starve: bool) -> None:
    data = random.Random(8).randbytes(3_000_001)
    (tmp_path / "source").write_bytes(data)
    (tmp_path / "fast").write_bytes(bytes(1 << 20))
    report = copy(
        tmp_path / "source", tmp_path / "target", layers=[f"writecache,cache={tmp_path / 'fast'},section=100"],
        verify=True, starve=starve, memory="4MiB", request_size="256KiB",
    )  # fmt: skip
    assert report.verified and report.memory_peak <= report.memory_limit
    assert (tmp_path / "target").read_bytes()[: len(data)] == data


def test_a_segment_that_fills_the_ring_to_its_end_is_sealed_there() -> None:
    """Room of twelve blocks, segments of up to five: what follows the last begins at the beginning."""
    ring = Ring(12, 4, 0, 1, 1)
    places = [ring.place(1, 1) for _ in range(9)]
    first, last = places[0], places[-1]
    assert first is not None and last is not None and (last.position, ring.head) == (11, 12)
    ring.committed([first.segment])
    ring.drop([first.segment])
    ring.release([first.segment])
    following = ring.place(1, 1)
    assert following is not None and (following.segment.start, following.position) == (12, 13)


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
    assert len({id(error) for error in (*told, log.error)}) == 7
    assert log.error.__traceback__ is None and log.error.__cause__ is log.error.__context__ is None
    with pytest.raises(BlockError, match="gone"):
        rig.run(stack.close())


@pytest.mark.parametrize("starve", [False, True])
def test_a_copy_whose_write_back_fails_fails_and_leaves_no_destination(
    tmp_path, starve: bool
) -> None:
    (tmp_path / "source").write_bytes(b"s" * 300_000)
    with hw.Zone("8MiB") as zone:
        with pytest.raises(BlockError):
            copy(
                tmp_path / "source", tmp_path / "target", zone=zone, verify=True, starve=starve, memory="4MiB",
                layers=["error,ops=writes", "writecache,cache=memory:2MiB"],
            )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_interrupt_in_the_fast_device_leaves_nothing_under_way() -> None:
    """A key pressed in a write, or a read, that is carried out inline: flushes and closing go on."""
    fast = MemoryDevice(1 << 18)
    bottom, rig = Bottom(fast), Rig()
    stack = Stack(
        rig.simulator, Bottom(MemoryDevice(1 << 18)), ["writecache,cache=fast,create=yes,section=8"],
        opener=lambda *_: bottom, crypto=Keys(),
    )  # fmt: skip
    rig.run(stack.start())
    view = memoryview(bytearray(b"a" * 4096))
    assert stack.submit_now(Bio(WRITE, 0, view))
    works = bottom._read, bottom._write

    def interrupted(view: memoryview, offset: int) -> int:
        raise KeyboardInterrupt

    bottom._read = bottom._write = interrupted  # type: ignore[assignment]
    for op in (READ, WRITE):
        bio = Bio(op, 0, memoryview(bytearray(4096)))
        with pytest.raises(KeyboardInterrupt):
            stack.submit_now(bio)
        assert bio.offset == 0
    bottom._read, bottom._write = works
    assert result(rig, flush(stack)).error is None
    bio = Bio(READ, 0, memoryview(bytearray(4096)))
    assert stack.submit_now(bio) and bio.view == view
    shut(rig, stack)


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


def zero(stack: Stack, number: int, count: int) -> Plan[Bio]:
    bio = Bio(ZERO, number * BLOCK, length=count * BLOCK)
    yield from carry_out(stack.top, bio)
    return bio


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
