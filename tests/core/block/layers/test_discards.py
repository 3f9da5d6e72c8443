"""Discards and zeros through each layer, down to real files: holes where they may be, zeros where they must be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block.stacked import StackedDevice
from headway.edge import pagecache
from headway.errors import BlockError
from headway.server import serve

SIZE = 4 << 20
AT, LENGTH = 1 << 20, 2 << 20
PLAIN = "crypt,format=plain,key-file={}/key,sector=4096"
HOLES = {  # how many files get smaller by half of what is discarded, or more
    "linear": 1,
    "mirror,leg={}/leg": 2,
    "stripe,with={}/leg,chunk=64KiB": 2,
    "bounce": 1,
    "ebs": 1,
    "delay,seconds=0": 1,
    PLAIN: 0,  # it would tell what is in use
    PLAIN + ",discards=yes": 1,
    "integrity,create=yes": 0,  # a hole has no tag
    "writecache,cache={}/leg": 1,
    "thin,create=yes,extent=64KiB": 0,  # the place stays its own
}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "key").write_bytes(os.urandom(64))
    (tmp_path / "key").chmod(0o600)
    made = [tmp_path / "disk", tmp_path / "leg"]
    for path in made:
        path.write_bytes(bytes(2 * SIZE))
    with made[0].open("r+b") as file:
        if not pagecache.punch(file.fileno(), 0, 4096):
            pytest.skip("this file system makes no holes")
    return made


def opened(files: list[Path], spec: str) -> StackedDevice:
    return hw.open_stack(str(files[0]), [spec.format(files[0].parent)], writable=True)


@pytest.mark.parametrize("spec", HOLES)
def test_a_discard_reaches_the_files_where_it_may(files: list[Path], spec: str) -> None:
    with opened(files, spec) as device:
        device.pwrite(memoryview(b"x" * SIZE), 0)
    with opened(files, spec.replace(",create=yes", "")) as device:
        before = [path.stat().st_blocks * 512 for path in files]
        device.discard(AT, LENGTH)
        device.flush()
        shrunk = [
            was - path.stat().st_blocks * 512 >= LENGTH // 2
            for was, path in zip(before, files, strict=True)
        ]
        assert sum(shrunk) == HOLES[spec]
        view = memoryview(bytearray(AT))
        for beside in (0, AT + LENGTH):
            device.pread_into(view, beside)
            assert view == b"x" * AT


@pytest.mark.parametrize("spec", HOLES)
def test_zeros_read_as_zeros_now_and_after_a_start(files: list[Path], spec: str) -> None:
    with opened(files, spec) as device:
        device.pwrite(memoryview(b"x" * SIZE), 0)
        assert device.zero(AT, LENGTH)
    for _ in range(2):
        with opened(files, spec.replace(",create=yes", "")) as device:
            view = memoryview(bytearray(SIZE))
            device.pread_into(view, 0)
            assert view == b"x" * AT + bytes(LENGTH) + b"x" * AT


def test_a_thin_device_gives_room_back_and_verity_refuses(files: list[Path]) -> None:
    with opened(files, "thin,create=yes,extent=64KiB") as device:
        free = device.stack.stats()[device.name]["free"]
        device.pwrite(memoryview(b"x" * SIZE), 0)
        device.discard(AT, LENGTH)
        device.flush()
        used = free - device.stack.stats()[device.name]["free"]
        assert used == (SIZE - LENGTH) >> 16
    with opened(files, "verity,hash={}/leg,create=yes") as device:
        device.flush()
        root = device.stack.stats()[device.name]["root"]
    with opened(files, f"verity,hash={{}}/leg,root={root}") as device:
        for change in (device.discard, device.zero):
            with pytest.raises(BlockError, match="cannot be written"):
                change(0, 4096)


@pytest.mark.parametrize("spec", HOLES)
def test_what_is_told_to_be_a_hole_reads_as_zeros(files: list[Path], spec: str) -> None:
    """Also where the writes are still in a cache's log. What encrypts or has tags tells of none."""
    for path in files:
        os.truncate(path, 0)
        os.truncate(path, 2 * SIZE)
    tells = not spec.startswith(("crypt", "integrity"))
    with opened(files, spec) as device:
        written = bytearray(device.size)
        for at, length in [(0, 4096), (SIZE // 2, 200_704), (SIZE - 8192, 8192)]:
            written[at : at + length] = b"x" * length
            device.pwrite(memoryview(b"x" * length), at)
        offset = told = 0
        while offset < device.size:
            extent = device.extent(offset)
            assert offset < extent.end <= device.size
            if extent.hole:
                assert not any(written[offset : extent.end])
                told += extent.end - offset
            offset = extent.end
        assert told > SIZE if tells else not told


def test_a_copy_out_of_a_thin_device_keeps_its_holes(tmp_path: Path) -> None:
    with hw.open_stack(
        hw.open_device("memory:1MiB"), ["thin,size=64MiB,extent=64KiB"], writable=True, create=True
    ) as device:
        device.pwrite(memoryview(b"x" * 4096), 32 << 20)
        with serve(device, listen="tcp::0") as uri:
            report = copy(uri, tmp_path / "out")
    assert report.bytes == 64 << 20
    found = tmp_path / "out"
    assert found.stat().st_blocks * 512 < 1 << 20
    with found.open("rb") as file:
        file.seek(32 << 20)
        assert file.read(4096) == b"x" * 4096
