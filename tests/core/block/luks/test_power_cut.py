"""Power cuts after every write of a new header: it is there whole, or it is none, and nothing in between."""

from __future__ import annotations

import random
from typing import Any

import pytest

from headway.core.block.bio import FLUSH, READ, WRITE
from headway.core.block.bottom import Bottom
from headway.core.block.stack import Stack
from headway.edge.memory_devices import MemoryDevice
from headway.errors import UsageError
from tests.core.block.layers.powercut import Recorded, settle
from tests.core.block.rig import BLOCK, Keys, Rig

SIZE = (2 << 20) + 8 * 4096
KEY = "key-file=k,key-bits=256,iterations=1000"
SPECS = {
    "luks1": f"crypt,format=luks1,{KEY}",
    "luks2": f"crypt,format=luks2,offset=2MiB,{KEY}",
    "through a layer": f"crypt,format=luks2,offset=1MiB,{KEY}",  # of larger blocks
}
UNDER = {"through a layer": ["crypt,format=plain,key-file=below"]}


def stack_on(rig: Rig, disk: MemoryDevice, name: str, *, create: bool) -> Stack:
    spec = SPECS[name] + ",create=yes" * create
    return Stack(rig.simulator, Bottom(disk), [*UNDER.get(name, []), spec], crypto=Keys())


def after(events: list[Any], chance: random.Random) -> bytes:
    """The disk, if the power went after these: what was not flushed is there by chance."""
    stable, waiting = bytearray(SIZE), dict[int, bytes]()
    for event in events:
        if event[0] == "write":
            _, _, offset, data = event
            for at in range(0, len(data), BLOCK):
                waiting[offset + at] = data[at : at + BLOCK]
        else:
            settle(stable, waiting, lambda: True)
    settle(stable, waiting, lambda: chance.random() < 0.5)
    return bytes(stable)


def opened(image: bytes, name: str) -> bytes:
    """The first block. Raises: UsageError if there is no header."""
    rig, disk = Rig(fine=False), MemoryDevice(SIZE)
    disk.pwrite(memoryview(image), 0)
    stack = stack_on(rig, disk, name, create=False)
    rig.run(stack.start())
    view = memoryview(bytearray(4096))
    rig.run(stack.request(READ, 0, view, len(view)))
    rig.run(stack.close())
    return bytes(view)


@pytest.mark.parametrize("name", SPECS)
def test_a_header_is_whole_or_none_after_a_power_cut_while_it_is_written(name: str) -> None:
    chance, events = random.Random(7), list[Any]()
    rig, data = Rig(fine=False), random.Random(8).randbytes(4096)
    stack = stack_on(rig, Recorded(bytes(SIZE), events, 0), name, create=True)
    rig.run(stack.start())
    made = len(events)
    for view in (memoryview(bytearray(data)), None):
        rig.run(stack.request(WRITE if view else FLUSH, 0, view, len(view or b"")))
    rig.run(stack.close())
    found = []
    for length in range(made):
        try:
            opened(after(events[:length], chance), name)
        except UsageError as error:
            assert "no LUKS header" in str(error) or "damaged" in str(error), error
            found.append(False)
        else:
            found.append(True)
    assert not found[0] and found == sorted(found), found  # once it is there it stays
    assert opened(after(events, chance), name) == data
