"""What discards are narrowed to, what of a range of zeros is written, and what a client is told of it."""

import os
import stat

import pytest

import headway as hw
from headway.core.block.device import cleared, inside
from headway.edge.granularity import granularity_of
from headway.edge.memory_devices import MemoryDevice
from headway.edge.opening import open_device
from headway.edge.serving.export import make_export
from headway.errors import BlockError
from headway.server import serve

BLOCK = 4096


@pytest.mark.parametrize(
    ("offset", "length", "found"),
    [
        (0, 8192, (0, 8192)),
        (1, 8191, (4096, 4096)),
        (4095, 4097, (4096, 4096)),
        (4096, 4095, (4096, 0)),
        (100, 200, (4096, 0)),
        (1, 4096, (4096, 0)),
    ],
)
def test_what_is_whole_of_a_range(offset, length, found):
    assert inside(offset, length, BLOCK) == found


class Disk:
    """A disk that clears whole blocks alone, and counts what it is made to write."""

    def __init__(self, clears=True):
        self.data, self.written, self.clears = bytearray(b"x" * (64 << 14)), 0, clears

    def clear(self, offset, length):
        if not self.clears or not length or offset % BLOCK or length % BLOCK:
            return False
        self.data[offset : offset + length] = bytes(length)
        return True

    def write(self, view, offset):
        self.data[offset : offset + len(view)] = view
        self.written += len(view)


@pytest.mark.parametrize(
    ("offset", "length", "written"),
    [(0, 1 << 19, 0), (1, 1 << 19, 4096), (5000, 1 << 19, 4096), (4096, (1 << 19) + 1, 1)],
)
def test_only_the_edges_of_zeros_are_written(offset, length, written):
    disk = Disk()
    assert cleared(disk.clear, disk.write, offset, length, BLOCK)
    assert disk.data[offset : offset + length] == bytes(length)
    assert disk.data.count(b"x") == len(disk.data) - length
    assert disk.written == written


@pytest.mark.parametrize(("clears", "length"), [(True, 4095), (False, 1 << 19)])
def test_nothing_is_done_where_nothing_whole_can_be_cleared(clears, length):
    disk = Disk(clears)
    assert not cleared(disk.clear, disk.write, 1, length, BLOCK)
    assert disk.data.count(b"x") == len(disk.data)


def test_a_file_gives_back_whole_blocks_and_writes_nothing_for_the_rest(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * (16 * BLOCK))
    device = open_device(str(path), writable=True, direct=False)
    assert device.discard_granularity == os.statvfs(path).f_frsize
    if device.discard_granularity != BLOCK:
        pytest.skip(f"blocks of {device.discard_granularity} bytes on this file system")
    device.discard(100, 3 * BLOCK)
    device.close()
    assert path.read_bytes()[:BLOCK] == b"x" * BLOCK
    assert path.read_bytes()[3 * BLOCK :] == b"x" * (13 * BLOCK)


class Found:
    st_mode, st_rdev = stat.S_IFBLK, os.makedev(259, 3)


def test_what_a_block_device_says(tmp_path):
    """Of a partition its disk's; of what says nothing a sector's."""
    assert granularity_of(-1, Found, str(tmp_path)) == 512
    disk = tmp_path / "disk"
    (disk / "queue").mkdir(parents=True)
    (disk / "part").mkdir()
    (disk / "queue" / "logical_block_size").write_text("4096\n")
    (disk / "queue" / "discard_granularity").write_text("0\n")
    (tmp_path / "259:3").symlink_to(disk / "part")
    assert granularity_of(-1, Found, str(tmp_path)) == 4096
    (disk / "queue" / "discard_granularity").write_text("65536\n")
    assert granularity_of(-1, Found, str(tmp_path)) == 65536


def test_the_largest_of_a_stack_is_what_clients_are_told(tmp_path):
    specs = ["thin,create=yes,extent=64KiB", "linear,offset=64KiB"]
    with hw.open_stack("memory:4MiB", specs, writable=True) as device:
        assert device.discard_granularity == 64 << 10
        assert make_export("", device).offer.preferred == 64 << 10
    plain = make_export("", MemoryDevice(1 << 20))
    assert (plain.offer.minimum, plain.offer.preferred) == (1, 4096)
    odd = MemoryDevice(1 << 20)
    odd.discard_granularity = 3 * BLOCK  # not what the protocol has a word for
    assert make_export("", odd).offer.preferred == 4096


class Blocks(MemoryDevice):
    """Takes whole blocks alone, as a server may."""

    grain = 4096

    def __init__(self, size):
        super().__init__(size)
        self.discarded = []

    def discard(self, offset, length):
        assert not offset % 4096 and not length % 4096
        self.discarded.append((offset, length))

    def pread_into(self, view, offset):
        assert not offset % 4096 and not len(view) % 4096
        super().pread_into(view, offset)

    def pwrite(self, view, offset):
        assert not offset % 4096 and not len(view) % 4096
        super().pwrite(view, offset)


def test_layers_on_a_device_of_whole_blocks_know_it():
    with hw.open_stack(Blocks(1 << 20), ["linear"], writable=True) as device:
        assert device.grain == 4096
        with pytest.raises(BlockError, match="blocks of 4096"):
            device.pwrite(memoryview(b"any bytes"), 5000)
    with hw.open_stack(Blocks(1 << 20), ["linear"], writable=True, any_bytes=True) as device:
        device.pwrite(memoryview(b"any bytes"), 5000)
        device.discard(5000, 8192)
        device.pread_into(view := memoryview(bytearray(9)), 5000)
        assert view == b"any bytes"


def test_a_trim_of_less_than_a_servers_block_is_narrowed():
    """A server behind ours has blocks of 4096 bytes, and would refuse it."""

    blocks = Blocks(1 << 20)
    with serve(blocks, listen="tcp::0") as uri:
        device = hw.open_device(uri, writable=True)
        assert device.alignment == device.discard_granularity == 4096
        device.discard(0, 8192)
        device.discard(1, 8192)
        device.discard(10, 20)
        assert blocks.discarded == [(0, 8192), (4096, 4096)]
        assert make_export("", device).offer.minimum == 4096
        device.close()
