"""A write cache in the simulator, on devices that are looked into, and what one asks of it."""

from __future__ import annotations

from typing import Any

from headway.core.block.bio import FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from tests.core.block.rig import BLOCK, Keys, Rig

BLOCKS = 24
CACHE = 18 * BLOCK  # smaller than what is written: it is written back all the time


def on(
    rig: Rig, disks: list[MemoryDevice], starve: bool, more: str = "", section: int = 5
) -> Stack:
    bottoms = []
    for disk in disks:
        bottom = rig.disk()
        bottom.device, bottom.size = disk, disk.size
        bottom._read, bottom._write = disk.pread_into, disk.pwrite
        bottoms.append(bottom)
    stack = Stack(
        rig.simulator,
        bottoms[0],
        [f"writecache,cache=fast,block={BLOCK},section={section},buffer=1KiB{more}"],
        opener=lambda name, site: bottoms[1],
        crypto=Keys(),
        starve=starve,
    )
    rig.run(stack.start())
    return stack


def one(stack: Stack, number: int, data: bytes | None = None, count: int = 1) -> Plan[Bio]:
    """Write blocks, or read `count`."""
    view = memoryview(bytearray(count * BLOCK if data is None else data))
    bio = Bio(READ if data is None else WRITE, number * BLOCK, view)
    yield from carry_out(stack.top, bio)
    return bio


def result(rig: Rig, plan: Plan[Any]) -> Any:
    task = rig.simulator.start(plan, "user")
    rig.run()
    assert task.done
    return task.result


def flush(stack: Stack) -> Plan[Bio]:
    bio = Bio(FLUSH)
    yield from carry_out(stack.top, bio)
    return bio


def disks() -> list[MemoryDevice]:
    return [MemoryDevice(BLOCKS * BLOCK), MemoryDevice(CACHE)]


def zero(stack: Stack, number: int, count: int) -> Plan[Bio]:
    bio = Bio(ZERO, number * BLOCK, length=count * BLOCK)
    yield from carry_out(stack.top, bio)
    return bio
