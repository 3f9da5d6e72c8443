"""thin: extents get places when they are written, keep them through power cuts, and give them back."""

from __future__ import annotations

import pytest

from headway.core.block.stack import Stack
from headway.edge.memory_devices import MemoryDevice
from tests.core.block.layers.powercut import Life
from tests.core.block.rig import BLOCK, Rig

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
