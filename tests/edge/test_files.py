"""Devices on real files: every offset and length, O_DIRECT with and without alignment, failures."""

import errno
import mmap
import os
import random
import socket

import pytest

from headway import Mempool
from headway.core.block.device import Extent, Kind
from headway.edge.files import ALIGNMENT, FileDevice
from headway.edge.memory_devices import MemoryDevice
from headway.edge.opening import open_device
from headway.errors import BlockError, UsageError

SIZE = 5 * ALIGNMENT + 123


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def bounce_pool():
    return Mempool.of([memoryview(mmap.mmap(-1, 2 * ALIGNMENT))], name="bounce")


def aligned(length):
    return memoryview(mmap.mmap(-1, max(length, 1)))[:length]


def unaligned(length):
    return memoryview(mmap.mmap(-1, length + 1))[1 : length + 1]


RANGES = [
    (0, SIZE),
    (0, ALIGNMENT),
    (ALIGNMENT, 3 * ALIGNMENT),
    (1, SIZE - 1),
    (7, 100),
    (ALIGNMENT, ALIGNMENT + 1),
    (5 * ALIGNMENT, 123),
    (SIZE, 0),
]


@pytest.mark.parametrize("memory", [aligned, unaligned])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("bounced", [False, True])
@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_reads_and_writes_the_range_and_nothing_else(path, memory, direct, bounced, offset, length):
    before = path.read_bytes()
    bounce = bounce_pool() if bounced else None
    device = open_device(str(path), writable=True, direct=direct, bounce=bounce)
    view = memory(length)
    device.pread_into(view, offset)
    assert view == before[offset : offset + length]
    view[:] = bytes(byte ^ 0xFF for byte in view)
    device.pwrite(view, offset)
    device.flush()
    device.close()
    changed = bytes(byte ^ 0xFF for byte in before[offset : offset + length])
    assert path.read_bytes() == before[:offset] + changed + before[offset + length :]
    if bounce is not None:
        bounce.close()  # raises if a buffer did not come home


def test_direct_is_really_taken_where_the_file_system_has_it(path):
    device = open_device(str(path), direct=True)
    if device.direct_fd is None:
        pytest.skip("no O_DIRECT here")
    assert device.alignment == ALIGNMENT
    view = aligned(ALIGNMENT)
    assert device._direct(os.preadv, view, 0) == ALIGNMENT
    device.close()


def test_a_source_that_shrinks_is_an_error_with_its_offset(path):
    device = open_device(str(path))
    os.truncate(path, 100)
    with pytest.raises(BlockError, match=r"ends at 100, but had 20603 bytes .* it shrank") as info:
        device.pread_into(aligned(SIZE), 0)
    assert info.value.offset == 100
    device.close()


def test_an_error_in_the_middle_has_the_offset_where_it_happened(path):
    fd = os.open(path, os.O_RDONLY)
    device = FileDevice(fd, "read-only", size=SIZE)
    with pytest.raises(BlockError, match="write of 10 bytes at offset 77 of read-only") as info:
        device.pwrite(aligned(10), 77)
    assert (info.value.errno, info.value.offset) == (errno.EBADF, 77)
    device.close()


def test_holes_are_seen(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 18)
        file.write(b"x" * ALIGNMENT)
    device = open_device(str(path))
    first = device.extent(0)
    if not first.hole:
        pytest.skip("no holes on this file system")
    assert first == Extent(1 << 18, True)
    assert device.extent(1 << 18) == Extent((1 << 18) + ALIGNMENT, False)
    assert device.extent((1 << 18) + ALIGNMENT) == Extent(1 << 20, True)
    device.close()


@pytest.mark.parametrize("make", ["directory", "fifo", "socket", "character", "missing", "empty"])
def test_what_is_no_device_is_refused_at_once(tmp_path, make):
    path = tmp_path / "x"
    says = {"fifo": "a FIFO", "character": "a character device", "missing": "No such file"}
    says["empty"] = "is not a device"
    match make:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "character":
            path = "/dev/zero"
        case "empty":
            path = ""
    with pytest.raises((UsageError, BlockError), match=says.get(make, make)):
        open_device(str(path))


def test_a_file_made_up_by_the_kernel_is_refused_rather_than_copied_empty():
    if not os.path.exists("/proc/version"):
        pytest.skip("no /proc")
    with pytest.raises(UsageError, match="has no size to copy"):
        open_device("/proc/version")


def test_memory_zero_and_null():
    memory = open_device("memory:1KiB")
    assert isinstance(memory, MemoryDevice)
    memory.pwrite(memoryview(b"abc"), 5)
    view = memoryview(bytearray(1024))
    memory.pread_into(view, 0)
    assert view == bytes(5) + b"abc" + bytes(1016)
    memory.close()
    zero = open_device("zero:200000")
    view = memoryview(bytearray(b"x" * 200_000))
    zero.pread_into(view, 0)
    assert (view == bytes(200_000), zero.kind, zero.size) == (True, Kind.ZERO, 200_000)
    with pytest.raises(BlockError, match="cannot be written"):
        zero.pwrite(view, 0)
    null = open_device("null:")
    null.pwrite(view, 1 << 40)
    with pytest.raises(BlockError, match="holds nothing"):
        null.pread_into(view, 0)


def test_null_with_a_size_has_an_end_and_reads_as_a_hole():
    null = open_device("null:200000", writable=True)
    assert (null.size, null.capacity, null.extent(0)) == (200_000, 200_000, Extent(200_000, True))
    view = memoryview(bytearray(b"x" * 100_000))
    null.pwrite(view, 100_000)
    null.pread_into(view, 100_000)
    assert bytes(view) == bytes(100_000)
    for move in (null.pwrite, null.pread_into):
        with pytest.raises(UsageError):
            move(view, 100_001)


@pytest.mark.parametrize(
    "spec", ["memory:", "zero:", "null:x", "zero:5MB", "http://host/x", "ftp://x"]
)
def test_a_made_device_that_makes_no_sense_is_refused(spec):
    with pytest.raises(UsageError):
        open_device(spec)
