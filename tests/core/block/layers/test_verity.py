"""verity: what was changed is not read, on any path; veritysetup agrees; little memory is enough."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

import headway as hw
from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer
from headway.core.block.layers.verity import Verity
from headway.core.block.line import carry_out
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.core.block.treemaking import Making
from headway.core.plan import Plan
from headway.errors import BlockError, UsageError
from tests.core.block.rig import BLOCK, Keys, Rig, shut

BLOCKS = 64  # of data; 16 digests in a block of 512: two levels
MADE = f"verity,hash=h,block={BLOCK}"


class World:
    """A data disk and a hash disk that outlive the stacks on them."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        self.size = blocks * BLOCK
        rig = Rig()
        self.data, self.hashes = rig.disk(self.size, late=False), rig.disk(self.size, late=False)
        self.devices = self.data.device, self.hashes.device
        self.bytes = random.Random(3).randbytes(self.size)
        self.data.device.pwrite(memoryview(self.bytes), 0)
        stack = self.stack(rig, "create=yes")
        rig.run(stack.request(FLUSH, 0, None, 0))
        assert isinstance(stack.top, Making)
        self.root = stack.top.root.hex()
        shut(rig, stack)

    def stack(self, rig: Rig, more: str, *, starve: bool = False, workers: bool = False) -> Stack:
        data, hashes = (rig.disk(self.size) for _ in range(2))
        for disk, device in zip((data, hashes), self.devices, strict=True):
            disk.device, disk._read, disk._write = device, device.pread_into, device.pwrite

        def opened(path: str, site: Site) -> Layer:
            return (
                Bottom(hashes.device, workers=site.workers("leg", limit=4)) if workers else hashes
            )

        stack = Stack(
            rig.simulator, data, [f"{MADE},{more}"], opener=opened, crypto=Keys(), starve=starve
        )
        rig.run(stack.start())
        return stack

    def reading(self, rig: Rig, more: str = "", **options: bool) -> Stack:
        return self.stack(rig, f"root={self.root}{more}", **options)

    def flip(self, device: int, offset: int) -> None:
        view = memoryview(bytearray(1))
        self.devices[device].pread_into(view, offset)
        view[0] ^= 4
        self.devices[device].pwrite(view, offset)


def read(stack: Stack, offset: int, length: int, *, inline: bool) -> Plan[Bio]:
    bio = Bio(READ, offset, memoryview(bytearray(length)))
    if not (inline and stack.submit_now(bio)):
        yield from carry_out(stack.top, bio)
    return bio


@pytest.mark.parametrize("starve", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_both_doors_give_what_was_vouched_for(seed: int, starve: bool) -> None:
    """Many readers at once, every reserve at its minimum, every allocation beyond it failing (starve)."""
    world, rig = World(), Rig(seed, fine=seed % 2 == 0)
    stack = world.reading(rig, starve=starve)
    done = []

    def user(number: int) -> Plan[None]:
        chance = random.Random(100 * seed + number)
        for _ in range(12):
            first = chance.randrange(BLOCKS)
            count = chance.randrange(1, BLOCKS - first + 1)
            bio = yield from read(stack, first * BLOCK, count * BLOCK, inline=chance.random() < 0.5)
            assert bio.error is None
            assert bio.view == world.bytes[first * BLOCK : (first + count) * BLOCK]
        done.append(number)

    rig.run(*(user(number) for number in range(4)))
    assert len(done) == 4
    assert isinstance(stack.top, Verity)
    kept = len(stack.top.walker._kept)
    assert kept == 0 if starve else kept > 0
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(30))
def test_a_stack_may_be_closed_while_the_tree_is_read_ahead(seed: int) -> None:
    """The hash device has workers too, as a file has: they end after those that use them."""
    world, rig = World(), Rig(seed)
    stack = world.reading(rig, workers=True)

    def use() -> Plan[None]:
        bio = yield from read(stack, 0, BLOCK, inline=False)
        assert bio.error is None
        yield from stack.close()

    left = [task.name for task in rig.run(use())]
    assert not [name for name in left if not name.startswith("disk")], left
    assert not rig.simulator.reports


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("block", [0, 17, 63])
def test_one_flipped_bit_fails_its_block_and_no_other(block: int, inline: bool) -> None:
    world, rig = World(), Rig()
    world.flip(0, block * BLOCK + 100)
    stack = world.reading(rig)
    for _ in range(2):  # the second time the digests are at hand
        for number in range(BLOCKS):
            task = rig.simulator.start(read(stack, number * BLOCK, BLOCK, inline=inline), "user")
            rig.run()
            error = task.result.error
            assert (error is None) == (number != block)
            if error is not None:
                assert isinstance(error, BlockError)
                assert error.errno == 5 and error.offset == block * BLOCK
    assert stack.top.stats()["corrupt"] == 2
    shut(rig, stack)


@pytest.mark.parametrize("starve", [False, True])
def test_a_changed_tree_is_not_believed(starve: bool) -> None:
    """At each level, and in the digest of one block alone."""
    world = World()
    for at, wrong in ((BLOCK + 5, BLOCKS), (2 * BLOCK + 3 * 32, 16), (5 * BLOCK + 1, 16)):
        world.flip(1, at)
        rig = Rig()
        stack = world.reading(rig, starve=starve)
        bad = 0
        for number in range(BLOCKS):
            task = rig.simulator.start(read(stack, number * BLOCK, BLOCK, inline=True), "user")
            rig.run()
            bad += task.result.error is not None
        assert bad == wrong
        shut(rig, stack)
        world.flip(1, at)


@pytest.mark.parametrize("seed", range(10))
def test_io_errors_end_in_clean_errors(seed: int) -> None:
    world, rig = World(), Rig(seed, fail=0.2)
    stack = world.reading(rig, starve=seed % 2 == 0)
    ended = []

    def user(number: int) -> Plan[None]:
        for turn in range(8):
            bio = yield from read(
                stack, (number * 8 + turn) * BLOCK, 8 * BLOCK, inline=turn % 2 == 0
            )
            ended.append(bio.error is None)

    rig.run(*(user(number) for number in range(4)))
    assert len(ended) == 32 and not all(ended)
    shut(rig, stack)


def test_t7_2_reading_ahead_stops_where_it_would_need_the_reserve() -> None:
    """T7.2: a prefetch gives up after its first try, and never takes the reserve."""
    world = World()
    for starve in (False, True):
        rig = Rig()
        stack = world.reading(rig, starve=starve)
        for number in range(0, BLOCKS, 8):
            rig.run(read(stack, number * BLOCK, BLOCK, inline=False))
        assert (stack.top.stats()["read_ahead"] == 0) == starve
        shut(rig, stack)


def test_it_cannot_be_written() -> None:
    world, rig = World(), Rig()
    stack = world.reading(rig)
    for inline in (True, False):
        bio = Bio(WRITE, 0, memoryview(bytes(BLOCK)))
        if inline:
            assert stack.submit_now(bio)
        else:
            rig.run(carry_out(stack.top, bio))
        assert bio.error is not None and "cannot be written" in str(bio.error)
    shut(rig, stack)


@pytest.mark.parametrize("blocks", [1, 2, 16, 17, 256, 257])
def test_trees_of_every_height(blocks: int) -> None:
    world, rig = World(blocks), Rig()
    stack = world.reading(rig)
    task = rig.simulator.start(read(stack, 0, world.size, inline=False), "user")
    rig.run()
    assert task.result.error is None and task.result.view == world.bytes
    shut(rig, stack)


def test_what_makes_no_tree_is_refused() -> None:
    world = World()
    for more, says in (
        ("root=12", "64 hexadecimal digits"),
        ("root=" + "zz" * 32, "64 hexadecimal digits"),
        ("create=no", "root=HEX"),
        (f"root={world.root},hash-offset=1KiB", "no verity superblock"),
        ("algorithm=md5,create=yes", "one of sha256"),
    ):
        with pytest.raises(UsageError, match=says):
            world.stack(Rig(), more)


# -- with veritysetup ----------------------------------------------------------------------------------


def veritysetup(*arguments: object) -> subprocess.CompletedProcess[str]:
    found = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        pytest.skip("veritysetup is not installed (Debian: cryptsetup-bin)")
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("options", ["", ",algorithm=sha512,block=1024"])
def test_veritysetup_verifies_what_headway_made(tmp_path, options) -> None:
    data, hashes = tmp_path / "data", tmp_path / "hashes"
    data.write_bytes(random.Random(5).randbytes(300 * 4096))
    with hashes.open("wb") as file:
        file.truncate(1 << 20)
    spec = f"verity,hash={hashes}{options}"
    with hw.open_stack(str(data), [spec], writable=True, create=True) as device:
        device.pwrite(memoryview(b"new".ljust(4096)), 8192)
        device.flush()
        root = device.stack.top.root.hex()
    done = veritysetup("verify", data, hashes, root)
    assert done.returncode == 0, done.stderr
    with data.open("r+b") as file:
        file.seek(123456)
        file.write(b"!")
    assert veritysetup("verify", data, hashes, root).returncode != 0


@pytest.mark.parametrize(
    "options", [(), ("--hash", "sha1", "--data-block-size", "1024"), ("--salt", "-")]
)
def test_headway_reads_what_veritysetup_formatted(tmp_path, options) -> None:
    data, hashes = tmp_path / "data", tmp_path / "hashes"
    data.write_bytes(plain := random.Random(6).randbytes(300 * 4096))
    done = veritysetup("format", *options, data, hashes)
    assert done.returncode == 0, done.stderr
    [root] = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root")]
    spec = f"verity,hash={hashes},root={root}"
    view = memoryview(bytearray(len(plain)))
    with hw.open_stack(str(data), [spec]) as device:
        device.pread_into(view, 0)
        assert view == plain
        device.pread_into(view, 0)
    with data.open("r+b") as file:
        file.seek(123456)
        file.write(b"!")
    with hw.open_stack(str(data), [spec]) as device, pytest.raises(BlockError, match="changed"):
        device.pread_into(view, 0)
