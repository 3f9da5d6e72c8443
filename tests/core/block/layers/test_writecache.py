"""writecache: what was flushed survives every power cut, the newest copy is read, and a full log waits."""

from __future__ import annotations

import random

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from tests.core.block.layers.cached import BLOCKS, CACHE, disks, flush, on, one, result
from tests.core.block.layers.powercut import Life
from tests.core.block.rig import BLOCK, Keys, Rig, shut


@pytest.mark.parametrize("seed", range(6))
def test_what_was_flushed_survives_a_power_cut_after_every_write(seed: int) -> None:
    images = [bytes(BLOCKS * BLOCK), bytes(CACHE + seed % 3 * 5 * BLOCK)]
    for number in range(3):
        life = Life(on, images, 10 * seed + number, BLOCKS, starve=seed % 2 == 1)
        life.run()
        images = life.check_all()


@pytest.mark.parametrize("seed", range(6))
def test_life_after_life_of_who_writes_in_order_survives_power_cuts(seed: int) -> None:
    """Few and full segments, so that what one life leaves is where the next ones write."""
    images = [bytes(BLOCKS * BLOCK), bytes((2 + 16 + seed) * BLOCK)]
    for number in range(8):
        life = Life(on, images, 100 * seed + number, BLOCKS)
        life.run_in_order(life.chance.choice([[10], [10], [5], [5], [3, 9]]))
        images = life.check_all(full=True)


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
