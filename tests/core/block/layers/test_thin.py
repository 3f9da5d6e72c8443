"""thin: extents get places when they are written, keep them through power cuts, and give them back."""

from __future__ import annotations

import errno
import random

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio, Op
from headway.core.block.layer import Layer
from headway.core.block.line import Line, carry_out, submit
from headway.core.block.stack import Stack
from headway.core.block.tagformat import most_in_section
from headway.core.block.thinmap import laid_out
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from tests.core.block.layers.powercut import Life
from tests.core.block.rig import BLOCK, Rig, Struck, shut

BLOCKS = 24
DISK = 48 * BLOCK


def on(rig: Rig, disks: list[MemoryDevice], starve: bool, more: str = "") -> Stack:
    [disk] = disks
    bottom = rig.disk()
    bottom.device, bottom.size = disk, disk.size
    bottom._read, bottom._write = disk.pread_into, disk.pwrite
    begin = memoryview(bytearray(8))
    disk.pread_into(begin, 0)
    create = "no" if any(begin) else "yes"
    spec = f"thin,extent=1KiB,block={BLOCK},size={BLOCKS * BLOCK},create={create}{more}"
    stack = Stack(rig.simulator, bottom, [spec], starve=starve)
    rig.run(stack.start())
    return stack


@pytest.mark.parametrize("seed", range(6))
def test_what_was_flushed_survives_a_power_cut_after_every_write(seed: int) -> None:
    images = [bytes(8) + bytes([seed and 165]) * (DISK - 8)]
    for number in range(3):
        life = Life(on, images, 10 * seed + number, BLOCKS, starve=seed % 2 == 1)
        life.run()
        images = life.check_all()


def carry(rig: Rig, stack: Stack, op: Op, extent: int, fill: int = 0, count: int = 1) -> Bio:
    """One request for whole extents (two blocks each), or a flush."""
    length = 0 if op is FLUSH else 2 * BLOCK * count
    view = memoryview(bytearray([fill]) * length) if op in (READ, WRITE) else None
    bio = Bio(op, 0 if op is FLUSH else 2 * BLOCK * extent, view, length=length)
    rig.run(carry_out(stack.top, bio))
    return bio


def small(rig: Rig, places: int) -> tuple[Stack, list[MemoryDevice]]:
    """Twelve extents, and room for fewer."""
    _, geometry = laid_out(1 << 20, BLOCK, 2 * BLOCK, BLOCKS * BLOCK)
    disks = [MemoryDevice(geometry.start + places * 2 * BLOCK)]
    return on(rig, disks, False), disks


def test_a_full_pool_refuses_first_writes_and_nothing_else() -> None:
    rig = Rig()
    stack, _ = small(rig, 4)
    for extent in range(4):
        assert carry(rig, stack, WRITE, extent, extent + 1).error is None
    full = carry(rig, stack, WRITE, 9, 9).error
    assert isinstance(full, BlockError) and full.errno == errno.ENOSPC
    assert "all 4 places" in str(full) and full.offset == 9 * 2 * BLOCK
    assert carry(rig, stack, READ, 9).view == bytes(2 * BLOCK)
    assert carry(rig, stack, ZERO, 9).error is None  # needs none
    assert carry(rig, stack, WRITE, 2, 7).error is None
    assert carry(rig, stack, READ, 2).view == bytes([7]) * 2 * BLOCK
    assert carry(rig, stack, FLUSH, 0).error is None
    assert stack.top.stats() == {
        "places": 4, "free": 0, "mapped": 4, "refused": 1, "commits": 1, "replayed": 0
    }  # fmt: skip
    shut(rig, stack)


@pytest.mark.parametrize("op", [DISCARD, ZERO])
def test_what_is_given_up_is_used_again_and_reads_as_zeros(op: Op) -> None:
    """The write that finds no place waits for the commit that makes the giving up durable."""
    rig = Rig()
    stack, disks = small(rig, 4)
    for extent in range(4):
        assert carry(rig, stack, WRITE, extent, extent + 1).error is None
    assert carry(rig, stack, op, 1, count=2).error is None
    assert carry(rig, stack, READ, 1, count=2).view == bytes(4 * BLOCK)
    for extent in (7, 8):
        assert carry(rig, stack, WRITE, extent, extent).error is None
    assert carry(rig, stack, WRITE, 9, 9).error is not None
    shut(rig, stack)
    rig = Rig()
    stack = on(rig, disks, False)
    found = [carry(rig, stack, READ, extent).view for extent in (0, 1, 3, 7, 8)]
    assert [set(view or b"") for view in found] == [{1}, {0}, {4}, {7}, {8}]
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(10))
def test_writes_to_one_new_extent_at_once_share_one_place(seed: int) -> None:
    """What a first write does not cover is zeros, whatever the place had before."""
    rig = Rig(seed, fine=True)
    disks = [MemoryDevice(DISK)]
    disks[0].pwrite(memoryview(bytes([165]) * (DISK - 8)), 8)
    stack = on(rig, disks, seed % 2 == 0)
    ended: list[Bio] = []

    def user(at: int) -> Plan[None]:
        bio = Bio(WRITE, 3 * 2 * BLOCK + at, memoryview(bytearray([at // 200 + 1]) * 100))
        yield from carry_out(stack.top, bio)
        ended.append(bio)

    rig.run(*(user(at) for at in (0, 200, 400, 600)))
    assert [bio.error for bio in ended] == [None] * 4
    held = bytes(carry(rig, stack, READ, 3).view or b"")
    for at in (0, 200, 400, 600):
        assert held[at : at + 100] == bytes([at // 200 + 1]) * 100
        assert held[at + 100 : at + 200] == bytes(100)
    assert stack.top.stats()["mapped"] == 1
    shut(rig, stack)


def test_a_first_write_that_fails_gives_its_place_back() -> None:
    rig = Rig()
    stack, _ = small(rig, 1)
    [disk] = stack.top.below
    works = disk._write  # type: ignore[attr-defined]

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the disk stutters")

    disk._write = fails  # type: ignore[attr-defined]
    assert "stutters" in str(carry(rig, stack, WRITE, 1, 1).error)
    disk._write = works  # type: ignore[attr-defined]
    assert carry(rig, stack, READ, 1).view == bytes(2 * BLOCK)
    assert carry(rig, stack, WRITE, 2, 2).error is None
    shut(rig, stack)


def test_a_changed_table_is_found_at_the_start() -> None:
    rig = Rig()
    stack, disks = small(rig, 4)
    assert carry(rig, stack, WRITE, 0, 1).error is None
    at = stack.top.places._form.data_start  # type: ignore[attr-defined]
    shut(rig, stack)
    disks[0].pwrite(memoryview(b"\3"), at)
    with pytest.raises(BlockError, match="block of the table 0"):
        on(Rig(), disks, False)


def test_a_thin_device_larger_than_its_file(tmp_path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4 << 20))
    spec = "thin,size=1GiB,extent=64KiB"
    with pytest.raises(UsageError, match="has no superblock"):
        hw.open_stack(str(disk), [spec], writable=True)
    with hw.open_stack(str(disk), [spec], writable=True, create=True) as device:
        assert device.size == 1 << 30
        device.pwrite(memoryview(b"far"), 1 << 29)
        device.flush()
        free = device.stack.stats()[device.name]["free"]
    with hw.open_stack(str(disk), [spec], writable=True) as device:
        view = memoryview(bytearray(6))
        device.pread_into(view, (1 << 29) - 3)
        assert view == b"\0\0\0far"
        assert device.stack.stats()[device.name]["free"] == free
        device.discard(1 << 29, 64 << 10)
        device.flush()
        assert device.stack.stats()[device.name]["free"] == free + 1
        with pytest.raises(OSError) as caught:
            for extent in range(100):
                device.pwrite(memoryview(bytes(1000)), extent << 20)
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(UsageError, match="cut off"):
        disk.write_bytes(disk.read_bytes()[: 1 << 20])
        hw.open_stack(str(disk), [spec], writable=True)
    with pytest.raises(UsageError, match="no place is left"):
        hw.open_stack("memory:1MiB", ["thin,create=yes"], writable=True)
    with pytest.raises(UsageError, match="not a multiple of block"):
        hw.open_stack("memory:1MiB", ["thin,create=yes,extent=1000"], writable=True)


@pytest.mark.parametrize("starve", [False, True])
def test_copy_to_a_thin_device(tmp_path, starve: bool) -> None:
    data = random.Random(8).randbytes(3_000_001)
    (tmp_path / "source").write_bytes(data)
    layers = ["thin,extent=64KiB", "bounce,buffer=100KiB"]
    report = copy(
        tmp_path / "source", tmp_path / "target", layers=layers, verify=True, starve=starve,
        memory="4MiB", request_size="256KiB",
    )  # fmt: skip
    assert report.verified and report.memory_peak <= report.memory_limit
    with hw.open_stack(str(tmp_path / "target"), layers, writable=True) as device:
        view = memoryview(bytearray(len(data)))
        device.pread_into(view, 0)
        assert view == data


class Held(Layer):
    """Keeps flushes to itself while it is told to; everything else goes through."""

    def __init__(self, below: Layer) -> None:
        self.name, self.size, self.below = "held", below.size, (below,)
        self.held: list[Bio] | None = None

    def submit_now(self, bio: Bio) -> bool:
        return bio.op is not FLUSH and self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        if bio.op is FLUSH and self.held is not None:
            self.held.append(bio)
        else:
            line.send(bio, self.below[0])

    def release(self, rig: Rig) -> None:
        held, self.held = self.held or [], None
        rig.run(*(submit(self.below[0], bio) for bio in held))


PER_TABLE_BLOCK = BLOCK // 4
SECTION = most_in_section(BLOCK)
GONE, NEW = SECTION * PER_TABLE_BLOCK, (SECTION + 1) * PER_TABLE_BLOCK


def with_a_full_journal() -> tuple[Rig, Stack, Held]:
    """A commit is at its first flush, and the open section is full: the next change of another block of
    the table waits for room, as that of GONE, which has a place, and of NEW, which has none."""
    rig = Rig()
    held = Held(rig.disk(1 << 20, late=False))
    size = (SECTION + 2) * PER_TABLE_BLOCK * 2 * BLOCK
    spec = f"thin,extent=1KiB,block={BLOCK},size={size},create=yes"
    stack = Stack(rig.simulator, held, [spec])
    rig.run(stack.start())
    assert carry(rig, stack, WRITE, GONE, 1).error is None
    assert carry(rig, stack, FLUSH, 0).error is None
    held.held = []
    for turn in range(2):
        for number in range(SECTION):
            extent = number * PER_TABLE_BLOCK + turn
            assert carry(rig, stack, WRITE, extent, 2).error is None
        if not turn:
            rig.run(carry_out(stack.top, Bio(FLUSH)))
    assert len(held.held) == 1 and stack.top.stats()["mapped"] == 2 * SECTION + 1
    return rig, stack, held


def test_a_write_to_an_extent_that_is_not_in_the_journal_yet_waits_for_it() -> None:
    """A flush that it did not wait for would leave it out, and a power cut lose it."""
    rig, stack, held = with_a_full_journal()
    ended: list[Bio] = []

    def user(offset: int) -> Plan[None]:
        bio = Bio(WRITE, offset, memoryview(bytearray([7]) * BLOCK))
        yield from stack.carry_out(bio)
        ended.append(bio)

    rig.run(user(NEW * 2 * BLOCK))
    rig.run(user(NEW * 2 * BLOCK + BLOCK))
    assert not ended
    held.release(rig)
    assert [bio.error for bio in ended] == [None, None]
    assert carry(rig, stack, READ, NEW).view == bytes([7]) * 2 * BLOCK
    shut(rig, stack)


@pytest.mark.parametrize("op", [ZERO, DISCARD])
def test_an_extent_is_not_said_to_be_zeros_before_that_is_in_the_journal(op: Op) -> None:
    """Else its old data were back after a flush and a power cut."""
    rig, stack, held = with_a_full_journal()
    ended: list[Bio] = []

    def user() -> Plan[None]:
        bio = Bio(op, GONE * 2 * BLOCK, None, length=2 * BLOCK)
        yield from stack.carry_out(bio)
        ended.append(bio)

    rig.run(user())
    rig.run(user())
    assert not ended
    held.release(rig)
    assert [bio.error for bio in ended] == [None, None]
    assert carry(rig, stack, READ, GONE).view == bytes(2 * BLOCK)
    assert carry(rig, stack, WRITE, GONE, 3).error is None
    shut(rig, stack)


def test_an_interrupted_write_leaves_its_extent_as_free_as_before() -> None:
    rig = Rig()
    struck = Struck(rig.disk(1 << 16, late=False))
    stack = Stack(rig.simulator, struck, [f"thin,extent=1KiB,block={BLOCK},create=yes"])
    rig.run(stack.start())
    assert carry(rig, stack, WRITE, 3, 1).error is None
    free = stack.top.stats()["free"]
    struck.strikes = True
    bio = Bio(WRITE, 3 * 2 * BLOCK, memoryview(bytearray(BLOCK)))
    fields = bio.fields()
    with pytest.raises(KeyboardInterrupt):
        stack.submit_now(bio)
    assert bio.fields() == fields
    struck.strikes = False
    assert carry(rig, stack, ZERO, 3).error is None
    assert carry(rig, stack, FLUSH, 0).error is None
    assert stack.top.stats()["free"] == free + 1  # it was given up, not written with zeros
    shut(rig, stack)
