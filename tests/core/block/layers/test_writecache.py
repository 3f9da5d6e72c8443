"""writecache: what was flushed survives every power cut, the newest copy is read, and a full log waits."""

from __future__ import annotations

import pytest

from headway.core.block.stack import Stack
from headway.edge.memory_devices import MemoryDevice
from tests.core.block.layers.powercut import Life
from tests.core.block.rig import BLOCK, Keys, Rig

BLOCKS = 24
CACHE = 18 * BLOCK  # smaller than what is written: it is written back all the time


def on(rig: Rig, disks: list[MemoryDevice], starve: bool, more: str = "") -> Stack:
    bottoms = []
    for disk in disks:
        bottom = rig.disk()
        bottom.device, bottom.size = disk, disk.size
        bottom._read, bottom._write = disk.pread_into, disk.pwrite
        bottoms.append(bottom)
    stack = Stack(
        rig.simulator,
        bottoms[0],
        [f"writecache,cache=fast,block={BLOCK},section=5,buffer=1KiB{more}"],
        opener=lambda name, site: bottoms[1],
        crypto=Keys(),
        starve=starve,
    )
    rig.run(stack.start())
    return stack


@pytest.mark.parametrize("seed", range(6))
def test_what_was_flushed_survives_a_power_cut_after_every_write(seed: int) -> None:
    images = [bytes(BLOCKS * BLOCK), bytes(CACHE + seed % 3 * 5 * BLOCK)]
    for number in range(3):
        life = Life(on, images, 10 * seed + number, BLOCKS, starve=seed % 2 == 1)
        life.run()
        images = life.check_all()
