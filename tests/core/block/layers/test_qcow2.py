"""qcow2: the bytes that QEMU wrote, through both doors and in little memory; what is not known is refused."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway.core.block.bio import DISCARD, READ, WRITE, ZERO, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from tests.core.block.layers.qcow2image import KINDS, bytes_of, image
from tests.core.block.rig import Rig, shut, stack_on

CLUSTER = 512
COUNT = 150  # of clusters: 64 entries in a table


def drawn(chance: random.Random, count: int = COUNT) -> list[tuple[str, bytes]]:
    """A run of clusters that are nowhere, so that one table is missing; else by chance. Packed ones shrink."""
    made = []
    for number in range(count):
        kind = "nowhere" if 64 <= number < 128 else chance.choice(KINDS)
        data = chance.randbytes(CLUSTER) if kind == "here" else chance.randbytes(40) * 9
        made.append((kind, data[:CLUSTER]))
    return made


def bottom(rig: Rig, data: bytes, *, late: bool) -> Bottom:
    disk = rig.disk(len(data), late=late)
    disk.device.pwrite(memoryview(data), 0)
    return disk


def opened(rig: Rig, data: bytes, spec: str = "qcow2", **options: Any) -> Stack:
    disk = bottom(rig, data, late=options.pop("late", True))
    return stack_on(rig, spec, bottom=disk, **options)


def read(stack: Stack, offset: int, length: int, *, inline: bool = False) -> Plan[Bio]:
    bio = Bio(READ, offset, memoryview(bytearray(length)))
    if not (inline and stack.submit_now(bio)):
        yield from carry_out(stack.top, bio)
    return bio


@pytest.mark.parametrize("starve", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_both_doors_give_what_is_there(seed: int, starve: bool) -> None:
    """Many readers at once, every reserve at its minimum, every allocation beyond it failing (starve)."""
    chance, rig = random.Random(seed), Rig(seed, fine=seed % 2 == 0)
    clusters = drawn(chance)
    expected = bytes_of(clusters, CLUSTER)
    stack = opened(rig, image(clusters), starve=starve, late=seed % 3 > 0)
    done = []

    def user(number: int) -> Plan[None]:
        mine = random.Random(100 * seed + number)
        for _ in range(12):
            offset = mine.randrange(len(expected))
            length = mine.randrange(1, min(6 * CLUSTER, len(expected) - offset) + 1)
            bio = yield from read(stack, offset, length, inline=mine.random() < 0.5)
            assert bio.error is None
            assert bio.view == expected[offset : offset + length]
        done.append(number)

    rig.run(*(user(number) for number in range(4)))
    assert len(done) == 4
    counted = stack.top.stats()
    assert counted["unpacked"] > 0
    assert counted["kept"] == 0 if starve else counted["kept"] > 0
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_nowhere_comes_from_below_and_ends_where_that_ends(seed: int) -> None:
    chance, rig = random.Random(seed), Rig(seed)
    clusters = drawn(chance, 40)
    below = chance.randbytes(CLUSTER * 20 + 100)

    def opener(spec: str, site: object) -> Bottom:
        return bottom(rig, below, late=seed % 2 > 0)

    disk = bottom(rig, image(clusters, backing="base", form="raw"), late=True)
    stack = Stack(rig.simulator, disk, ["qcow2,backing=base"], opener=opener)
    rig.run(stack.start())
    expected = bytes_of(clusters, CLUSTER, below)
    for inline in (False, True):
        for offset in (0, 20 * CLUSTER, 20 * CLUSTER + 99, 19 * CLUSTER + 1, 39 * CLUSTER):
            length = min(3 * CLUSTER, len(expected) - offset)
            task = rig.simulator.start(read(stack, offset, length, inline=inline), "user")
            rig.run()
            assert task.result.error is None
            assert task.result.view == expected[offset : offset + length]
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_read_fails_all_that_was_taken_comes_home(seed: int) -> None:
    chance, rig = random.Random(seed), Rig(seed, fail=0.2)
    clusters = drawn(chance, 20)
    stack = opened(rig, image(clusters), starve=True)
    expected = bytes_of(clusters, CLUSTER)
    ended = []

    def user() -> Plan[None]:
        for _ in range(8):
            offset = chance.randrange(len(expected) - CLUSTER)
            bio = yield from read(stack, offset, CLUSTER)
            if bio.error is None:
                assert bio.view == expected[offset : offset + CLUSTER]
            else:
                assert "let it fail" in str(bio.error)
            ended.append(bio.error)

    rig.run(user(), user())
    assert len(ended) == 16
    rig.fail = 0.0
    shut(rig, stack)


@pytest.mark.parametrize("op", [WRITE, ZERO, DISCARD])
def test_it_cannot_be_written(op: Any) -> None:
    rig = Rig()
    stack = opened(rig, image([("here", b"x")]))
    for carry in (stack.submit_now, lambda bio: rig.run(carry_out(stack.top, bio))):
        bio = Bio(op, 0, memoryview(bytearray(CLUSTER)) if op is WRITE else None, length=CLUSTER)
        carry(bio)
        assert isinstance(bio.error, BlockError) and bio.error.errno == 30  # EROFS
    shut(rig, stack)


def test_holes_are_told_as_far_as_they_go() -> None:
    rig, clusters = (
        Rig(),
        [("here", b"a")] * 2 + [("nowhere", b"")] * 3 + [("zeros", b"")] + [("packed", b"b")],
    )
    stack = opened(rig, image(clusters, size=7 * CLUSTER - 12))
    found, offset = [], 0
    while offset < stack.size:
        task = rig.simulator.start(stack.top.extent(offset), "user")
        rig.run()
        found.append((offset // CLUSTER, task.result.end, task.result.hole))
        offset = task.result.end
    assert found == [(0, 2 * CLUSTER, False), (2, 6 * CLUSTER, True), (6, 7 * CLUSTER - 12, False)]
    shut(rig, stack)


def test_a_damaged_cluster_fails_and_no_other() -> None:
    """Its place is after the end; it is packed in more than a cluster; it does not unpack; it unpacks short."""
    rig, clusters = (
        Rig(),
        [("here", b"%d" % number) for number in range(3)] + [("packed", b"4")] * 2,
    )
    cluster = 4096
    data = image(clusters, bits=12)
    table = 2 * cluster  # after the header and L1
    struct.pack_into(">Q", data, table + 8, len(data))
    struct.pack_into(">Q", data, table + 16, (1 << 62) | (15 << 58) | table)
    (entry,) = struct.unpack_from(">Q", data, table + 24)
    packed_at = entry & (1 << 58) - 1
    data[packed_at : packed_at + 4] = b"\xff\xff\xff\xff"
    struct.pack_into(">Q", data, table + 32, (1 << 62) | len(data))
    stack = opened(rig, data)
    said = ["", "after the end", "more than a cluster", "invalid", "packed are 0 bytes"]
    for inline in (False, True):
        for number, words in enumerate(said):
            task = rig.simulator.start(read(stack, number * cluster, 10, inline=inline), "user")
            rig.run()
            error = task.result.error
            if not words:
                assert error is None and bytes(task.result.view) == b"0" + bytes(9)
                continue
            assert isinstance(error, BlockError) and error.errno == 5
            assert error.offset == number * cluster and words in str(error), str(error)
    shut(rig, stack)


def changed(offset: int, form: str, value: int, backing: str = "base") -> bytearray:
    data = image([("here", b"x")], backing=backing, form="qcow2")
    struct.pack_into(form, data, offset, value)
    return data


REFUSED = [
    (bytearray(b"no image" * 200), "is no qcow2 image"),
    (bytearray(b"QFI\xfb"), "is no qcow2 image"),
    (changed(4, ">I", 1), "version 1"),
    (changed(20, ">I", 30), "clusters of 2**30"),
    (changed(32, ">I", 2), "encrypted"),
    (changed(36, ">I", 0), "0 first entries"),
    (changed(40, ">Q", 1 << 40, ""), "its first table is at offset 1099511627776"),
    (changed(72, ">Q", 1 << 2), "its data in another file"),
    (changed(72, ">Q", 1 << 3), "a compression other than zlib"),
    (changed(72, ">Q", 1 << 9), "features 0x200 that are not known"),
    (changed(8, ">Q", 1 << 50), "is damaged"),
    (changed(72, ">Q", 0b11), "stands on 'base', which is not opened unasked"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_not_known_is_refused_in_one_line(data: bytearray, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(Rig(), bytes(data), late=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_only_a_raw_device_is_read_below_another(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(image([("here", b"b")]))
    for form, fits in (("qcow2", False), ("raw", True)):  # raw bytes may look like anything
        (tmp_path / "top").write_bytes(image([("nowhere", b"")], backing="base", form=form))
        spec = [f"qcow2,backing={tmp_path / 'base'}"]
        if fits:
            with hw.open_stack(str(tmp_path / "top"), spec) as device:
                view = memoryview(bytearray(4))
                device.pread_into(view, 0)
                assert bytes(view) == b"QFI\xfb"
        else:
            with pytest.raises(UsageError, match="is a qcow2 image too"):
                hw.open_stack(str(tmp_path / "top"), spec)
    (tmp_path / "alone").write_bytes(image([("here", b"x")]))
    with pytest.raises(UsageError, match="stands on nothing"):
        hw.open_stack(str(tmp_path / "alone"), spec)
    with pytest.raises(UsageError, match="it only reads"):
        hw.open_stack(MemoryDevice(4096), ["qcow2"], writable=True, create=True)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    "options",
    [(), ("-o", "cluster_size=512"), ("-o", "cluster_size=2M"), ("-o", "compat=0.10"), ("-c",),
     ("-c", "-o", "cluster_size=4k"), ("-o", "preallocation=metadata")],
    ids=" ".join,
)  # fmt: skip
def test_what_qemu_wrote_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    chance, size = random.Random(7), (2 << 20) + 1536
    data = bytearray(size)
    for _ in range(30):
        at = chance.randrange(size)
        piece = chance.randbytes(3000) * chance.randrange(1, 40)
        data[at : at + len(piece)] = piece[: size - at]
    raw, made = tmp_path / "raw", tmp_path / "made"
    raw.write_bytes(data)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(made)]
    subprocess.run(words, check=True, capture_output=True)
    with hw.open_stack(str(made), ["qcow2"]) as device:
        assert device.size == size and device.read_only
        for offset, length in [(0, size), (1, 70_000), (size - 5, 5)]:
            view = memoryview(bytearray(length))
            device.pread_into(view, offset)
            assert view == data[offset : offset + length]
