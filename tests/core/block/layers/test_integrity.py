"""integrity: changes are found, and no power cut makes a block and its tag differ."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headway as hw
from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.layers.integrity import Integrity
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from tests.core.block.rig import BLOCK, Keys, Rig, Volatile, shut

BLOCKS = 40
SIZE = 64 * BLOCK


def stack_of(rig: Rig, device: MemoryDevice, more: str = "", *, starve: bool = False) -> Stack:
    disk = rig.disk()
    disk.device, disk._read, disk._write, disk.size = (
        device, device.pread_into, device.pwrite, device.size,
    )  # fmt: skip
    spec = f"integrity,block={BLOCK},section=3{more}"
    stack = Stack(rig.simulator, disk, [spec], crypto=Keys(), starve=starve)
    rig.run(stack.start())
    return stack


def one(stack: Stack, number: int, version: int | None = None, *, fua: bool = False) -> Plan[Bio]:
    """Write a block full of `version`, or read it."""
    view = memoryview(bytearray([version or 0]) * BLOCK)
    bio = Bio(READ if version is None else WRITE, number * BLOCK, view, fua=fua)
    yield from carry_out(stack.top, bio)
    return bio


def result(rig: Rig, plan: Plan[Bio]) -> Bio:
    task = rig.simulator.start(plan, "user")
    rig.run()
    assert task.done
    return task.result


@given(seed=st.integers(0, 2**32))
def test_what_was_flushed_survives_a_power_cut_and_no_block_is_lost(seed: int) -> None:
    """Power goes at any step, twice; each block that was not flushed is lost or kept by chance."""
    chance = random.Random(seed)
    device = Volatile(SIZE)
    durable = dict.fromkeys(range(BLOCKS), 0)
    written: dict[int, set[int]] = {number: {0} for number in range(BLOCKS)}
    rig = Rig()
    shut(rig, stack_of(rig, device, ",create=yes"))
    versions = iter(range(1, 250))

    def user(stack: Stack, first: int) -> Plan[None]:
        done: dict[int, int] = {}
        for _ in range(12):
            number = first + 4 * chance.randrange(BLOCKS // 4)
            version, fua = next(versions), chance.random() < 0.2
            written[number].add(version)
            bio = yield from one(stack, number, version, fua=fua)
            assert bio.error is None
            done[number] = version
            if fua:
                durable[number] = max(durable[number], version)
            if chance.random() < 0.3:
                covered, flush = dict(done), Bio(FLUSH)
                yield from carry_out(stack.top, flush)
                assert flush.error is None
                for block, least in covered.items():
                    durable[block] = max(durable[block], least)

    for _ in range(2):
        rig = Rig(chance.randrange(1 << 30), fine=chance.random() < 0.3)
        stack = stack_of(rig, device, starve=chance.random() < 0.5)
        for first in range(4):
            rig.simulator.start(user(stack, first), f"user {first}")
        for _ in range(chance.randrange(50, 1500)):
            if not (options := rig.simulator.options()):
                break
            rig.simulator.take(options[rig.choose(options)])
        kept = dict(durable)
        device.cut(chance)
        rig = Rig()
        stack = stack_of(rig, device)
        for number, least in kept.items():
            bio = result(rig, one(stack, number))
            assert bio.error is None, bio.error
            assert bio.view is not None
            found = set(bytes(bio.view))
            assert len(found) == 1, "a block is torn"
            assert found <= {version for version in written[number] if version >= least}
            [durable[number]] = found
        shut(rig, stack)


@pytest.mark.parametrize("key", ["", ",key-file=k"])
def test_a_flipped_bit_is_found_in_its_block_alone(key: str) -> None:
    device = MemoryDevice(SIZE)
    rig = Rig()
    stack = stack_of(rig, device, f",create=yes{key}")
    for number in range(BLOCKS):
        rig.run(one(stack, number, number + 1))
    shut(rig, stack)
    rig = Rig()
    stack = stack_of(rig, device, key)
    assert isinstance(stack.top, Integrity)
    at = stack.top._form.data_start + 7 * BLOCK + 3
    byte = memoryview(bytearray(1))
    device.pread_into(byte, at)
    byte[0] ^= 1
    device.pwrite(byte, at)
    for number in range(BLOCKS):
        bio = result(rig, one(stack, number))
        assert (bio.error is None) == (number != 7)
    bio = result(rig, one(stack, 7))
    assert isinstance(bio.error, BlockError)
    assert bio.error.errno == 5 and bio.error.offset == 7 * BLOCK
    assert stack.top.stats()["corrupt"] == 2
    rig.run(one(stack, 7, 99))  # written anew it is good again
    assert result(rig, one(stack, 7)).error is None
    shut(rig, stack)


def test_reads_while_sections_are_put_in_place_never_find_a_wrong_tag() -> None:
    for seed in range(20):
        rig = Rig(seed, fine=True)
        stack = stack_of(rig, MemoryDevice(SIZE), ",create=yes", starve=seed % 2 == 0)
        least = dict.fromkeys(range(4), 0)

        def writer(stack: Stack = stack, least: dict[int, int] = least) -> Plan[None]:
            for version in range(1, 30):
                bio = yield from one(stack, version % 4, version)
                assert bio.error is None
                least[version % 4] = version

        def reader(stack: Stack = stack, least: dict[int, int] = least) -> Plan[None]:
            for turn in range(20):
                before = least[turn % 4]
                bio = yield from one(stack, turn % 4)
                assert bio.error is None and bio.view is not None
                assert len(set(bio.view)) == 1 and bio.view[0] >= before

        rig.run(writer(), reader(), reader())
        shut(rig, stack)


def test_after_a_failed_journal_nothing_is_promised() -> None:
    rig = Rig()
    stack = stack_of(rig, MemoryDevice(SIZE), ",create=yes")
    [disk] = stack.top.below

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "the disk is gone")

    disk._write = fails  # type: ignore[attr-defined]
    assert result(rig, one(stack, 1, 1)).error is None  # in memory
    flush = Bio(FLUSH)
    rig.run(carry_out(stack.top, flush))
    assert "gone" in str(flush.error)
    assert "gone" in str(result(rig, one(stack, 1, 2)).error)
    assert set(result(rig, one(stack, 1)).view or b"") == {1}
    shut(rig, stack)


def test_what_was_made_with_a_key_needs_it_and_shows_it_to_nobody(tmp_path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"swordfish")
    key.chmod(0o600)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 << 20))
    spec = f"integrity,key-file={key}"
    with hw.open_stack(str(disk), [spec], writable=True, create=True) as device:
        device.pwrite(memoryview(b"x" * 4096), 4096)
        assert "swordfish" not in repr(vars(device.stack.top))
    with hw.open_stack(str(disk), [spec]) as device:
        view = memoryview(bytearray(8192))
        device.pread_into(view, 0)
        assert view == bytes(4096) + b"x" * 4096  # what was never written reads as zeros
    with pytest.raises(UsageError, match="made with a key-file"):
        hw.open_stack(str(disk), ["integrity"])
    key.write_bytes(b"marlin")
    with pytest.raises(UsageError, match="its key is another"):
        hw.open_stack(str(disk), [spec])
    with pytest.raises(UsageError, match="no superblock"):
        hw.open_stack("memory:2MiB", ["integrity"], writable=True)


def test_copy_through_integrity_and_crypt(tmp_path) -> None:
    from headway.copying import copy

    key = tmp_path / "key"
    key.write_bytes(b"swordfish")
    key.chmod(0o600)
    data = random.Random(8).randbytes(3_000_001)
    (tmp_path / "source").write_bytes(data)
    layers = [f"crypt,key-file={key},iterations=1000,buffer=64KiB", f"integrity,key-file={key}"]
    for starve in (False, True):
        report = copy(
            tmp_path / "source", tmp_path / "target", layers=layers, verify=True, starve=starve,
            memory="4MiB", request_size="256KiB",
        )  # fmt: skip
        assert report.verified and report.memory_peak <= report.memory_limit
        with hw.open_stack(str(tmp_path / "target"), layers) as device:
            view = memoryview(bytearray(-(-len(data) // 4096) * 4096))
            device.pread_into(view, 0)
            assert view[: len(data)] == data


@pytest.mark.parametrize("seed", range(12))
def test_closing_with_writes_that_nobody_flushed_loses_nothing(seed: int) -> None:
    """The last section is being put in place when the last flush is told; the journal is emptied after that."""
    device, rig = MemoryDevice(SIZE), Rig(seed, fine=False)
    stack = stack_of(rig, device, ",create=yes")

    def user() -> Plan[None]:
        for number in range(3):
            yield from one(stack, number, 7, fua=True)
        for number in range(1, 5):
            yield from one(stack, number, 8)
        yield from stack.close()

    task = rig.simulator.start(user(), "user")
    rig.run()
    assert task.done
    again = stack_of(rig, device)
    for number, version in enumerate([7, 8, 8, 8, 8]):
        bio = result(rig, one(again, number))
        assert bio.error is None and set(bytes(bio.view or b"")) == {version}
    shut(rig, again)
