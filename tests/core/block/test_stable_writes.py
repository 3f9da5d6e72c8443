"""Memory that is changed while it is written: who looks at it twice sees the same (BLK_FEAT_STABLE_WRITES)."""

from __future__ import annotations

import pytest

import headway as hw
from headway.core.block.bio import FLUSH, READ, WRITE
from headway.core.block.bufio import BufferCache
from headway.core.block.layer import Layer, needs_stable
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.errors import UsageError
from tests.core.block.cache_rig import BLOCK, Disk, Frames
from tests.core.block.rig import Keys, Rig

FIRST, CHANGED = b"f" * BLOCK, b"c" * BLOCK
LOG = 16 * BLOCK


class Bench:
    """A stack on a disk; what layers open beside it takes its time with writes."""

    def __init__(self, specs: list[str], steady: bool, images: list[bytes] | None = None) -> None:
        self.rig = Rig(fine=False)
        self.disks = [Disk()]
        self.images = images
        if images is not None:
            self.fill(self.disks[0], images[0])
        self.stack = Stack(
            self.rig.simulator, self.disks[0], specs, opener=self.opener, crypto=Keys(),
            steady_bytes=2 * BLOCK * steady,
        )  # fmt: skip
        self.rig.run(self.stack.start())

    def opener(self, spec: str, site: Site) -> Layer:
        self.disks.append(Disk(size=LOG if spec == "log" else None))
        if self.images is not None:
            self.fill(self.disks[-1], self.images[len(self.disks) - 1])
        return self.disks[-1]

    def fill(self, disk: Disk, image: bytes) -> None:
        disk.device.pwrite(memoryview(image), 0)

    def contents(self) -> list[bytes]:
        found = []
        for disk in self.disks:
            view = memoryview(bytearray(disk.size))
            disk.device.pread_into(view, 0)
            found.append(bytes(view))
        return found

    def change_while_it_is_written(self) -> None:
        """One block, of which the second disk has nothing yet when its memory changes."""
        view = memoryview(bytearray(FIRST))
        self.disks[1].held = []
        self.rig.run(self.stack.request(WRITE, 0, view, BLOCK))
        assert len(self.disks[1].held) == 1
        view[:] = CHANGED
        self.disks[1].let_go()
        self.rig.simulator.go()

    def read(self) -> bytes:
        view = memoryview(bytearray(BLOCK))
        self.rig.run(self.stack.request(READ, 0, view, BLOCK))
        return bytes(view)


@pytest.mark.parametrize("specs", [["mirror,leg=b"], ["mirror,leg=b", "linear"]])
def test_the_legs_of_a_mirror_stay_equal(specs: list[str]) -> None:
    bench = Bench(specs, steady=True)
    bench.change_while_it_is_written()
    assert [content[:BLOCK] for content in bench.contents()] == [FIRST, FIRST]


def test_without_a_copy_they_do_not() -> None:
    bench = Bench(["mirror,leg=b"], steady=False)
    bench.change_while_it_is_written()
    assert [content[:BLOCK] for content in bench.contents()] == [FIRST, CHANGED]


@pytest.mark.parametrize(("steady", "found"), [(True, FIRST), (False, bytes(BLOCK))])
def test_what_a_log_has_a_checksum_of_is_found_after_a_power_cut(
    steady: bool, found: bytes
) -> None:
    """Without a copy its checksum is of other bytes: what was flushed is as if it had not been written."""
    spec = "writecache,cache=log,section=4"
    bench = Bench([spec], steady)
    bench.change_while_it_is_written()
    bench.rig.run(bench.stack.request(FLUSH, 0, None, 0))
    after = Bench([spec], steady=False, images=bench.contents())
    assert after.read() == found


@pytest.mark.parametrize(
    ("specs", "needs"),
    [
        (["linear"], False),
        (["mirror,leg=b"], True),
        (["mirror,leg=b", "linear", "ebs", "delay"], True),
        (["mirror,leg=b", "crypt,format=plain,key-file=k"], False),
        (["crypt,format=plain,key-file=k", "mirror,leg=b"], True),
        (["mirror,leg=b", "integrity,create=yes,section=4", "linear"], False),
        (["linear", "stripe,with=b"], False),
        (["mirror,leg=b", "bounce"], False),
        (["mirror,leg=b", "bounce,reads=no", "linear"], False),
        (["writecache,cache=log,section=4", "thin,create=yes,extent=4KiB"], True),
    ],
)  # fmt: skip
def test_the_need_goes_up_to_who_copies(specs: list[str], needs: bool) -> None:
    bench = Bench(specs, steady=False)
    assert needs_stable(bench.stack.top) is needs
    steady = Bench(specs, steady=True)
    assert not needs_stable(steady.stack.top)
    assert steady.stack.top.name.startswith("bounce on ") is (needs or specs[-1] == "bounce")


def test_a_cache_whose_blocks_may_change_is_not_made_where_that_does_harm() -> None:
    bench = Bench(["mirror,leg=b"], steady=False)
    with pytest.raises(UsageError, match="bounce,reads=no"):
        BufferCache(bench.stack.top, Frames(4), BLOCK, runtime=bench.rig.simulator)


def test_stacks_are_steady_unless_told_that_memory_is_private() -> None:
    with (
        hw.Zone("1MiB") as zone,
        hw.open_stack("memory:1MiB", ["mirror,leg=memory:1MiB"], writable=True) as device,
        hw.BufferCache(device, memory=zone, block_size=4096) as cache,
    ):
        with cache.new(3) as block:
            block.view[:] = FIRST
            block.mark_dirty()
        cache.write_dirty()
        assert not device.stable_writes
    with hw.open_stack(
        "memory:1MiB", ["mirror,leg=memory:1MiB"], writable=True, private=True
    ) as device:
        assert device.stable_writes
        with hw.Zone("1MiB") as zone, pytest.raises(UsageError, match="private=True"):
            hw.BufferCache(device, memory=zone)


@pytest.mark.parametrize("starve", [False, True])
def test_the_copies_fit_a_small_memory(starve: bool) -> None:
    with (
        hw.Zone("256KiB", min_free=0) as zone,
        hw.open_stack(
            "memory:1MiB", ["mirror,leg=memory:1MiB,window=4KiB"], writable=True, memory=zone,
            starve=starve,
        ) as device,
    ):  # fmt: skip
        assert device.memory_bytes <= 48 << 10
        data = bytes(range(256)) * 4000
        device.pwrite(memoryview(data), 512)
        view = memoryview(bytearray(len(data)))
        device.pread_into(view, 512)
        assert view == data
