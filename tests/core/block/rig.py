"""A simulator to run bios in: an oracle that is fair or drawn from a seed, devices, stacking layers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from headway.core.block.bio import READ, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.bottom import Bottom
from headway.core.block.crypto import Secret
from headway.core.block.layer import Layer
from headway.core.block.line import Line, carry_out
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.core.block.workqueue import Workqueue
from headway.core.plan import Call, Offload, Plan
from headway.edge.crypto import Crypto
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError
from headway.runtimes.simulator import Failure, Kind, Option, Simulator, Task

BLOCK = 512


class Rig:
    """One simulated run. `seed` None: everybody in turn; else chance, and `fail` of the I/O fails."""

    def __init__(self, seed: int | None = None, *, fail: float = 0.0, fine: bool = True) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.fail = fail
        self.turn = 0
        self.disks: list[Bottom] = []
        self.simulator = Simulator(self.choose, fine=fine, may_fail=self.may_fail if fail else None)

    def choose(self, options: Sequence[Option]) -> int:
        if options[0].kind in (Kind.WORK, Kind.FAIL):
            return int(self.chance.random() < self.fail)
        self.turn += 1
        if self.seed is None:
            return self.turn % len(options)
        return self.chance.randrange(len(options))

    def may_fail(self, request: Call | Offload) -> Failure | None:
        if getattr(request.effect, "__name__", "") == "_move_late":
            return Failure(error=BlockError(5, "the rig let it fail"))
        return None

    def run(self, *plans: Plan[Any]) -> list[Task]:
        """Run plans to the end; who is stuck."""
        for number, plan in enumerate(plans):
            self.simulator.start(plan, f"task {number}")
        stuck = self.simulator.go()
        for task in self.simulator.tasks:
            failure, task.failure = task.failure, None
            if failure is not None:
                raise failure
        return stuck

    def workers(self, name: str = "workers", **options: Any) -> Workqueue:
        queue = Workqueue(self.simulator, name, **options)
        self.simulator.start(queue.start(), f"start {name}")
        return queue

    def set_of(self, name: str = "bios", **options: Any) -> BioSet:
        return BioSet(self.simulator, name, **options)

    def disk(self, size: int = 64 * BLOCK, *, late: bool = True, **options: Any) -> Bottom:
        """A memory device, carried out by workers of its own if `late`."""
        workers = self.workers("disk") if late else None
        return Bottom(MemoryDevice(size), workers=workers, **options)


class Keys(Crypto):
    """Key files that need no file: the key is made of the name."""

    def __init__(self) -> None:
        super().__init__(print)

    def key_file(self, path: str) -> Secret:
        return Secret(hashlib.sha512(path.encode()).digest())


class Log(Layer):
    """Passes everything on, and writes down the order."""

    def __init__(self, name: str, below: Layer, log: list[str]) -> None:
        self.name, self.size, self.below, self.log = name, below.size, (below,), log

    def submit(self, bio: Bio, line: Line) -> None:
        self.log.append(f"{self.name} {bio.offset // BLOCK}")
        line.send(bio, self.below[0])


class Struck(Layer):
    """A signal's exception comes while it moves bytes, if `strikes`."""

    def __init__(self, below: Layer) -> None:
        self.name, self.size, self.below = "struck", below.size, (below,)
        self.strikes = False

    def submit_now(self, bio: Bio) -> bool:
        if self.strikes:
            raise KeyboardInterrupt
        return self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        line.send(bio, self.below[0])


class Splitter(Layer):
    """The stacking driver of the incident: cuts a bio into blocks, each in a bio of its set, all queued."""

    def __init__(self, below: Layer, bios: BioSet, name: str = "S") -> None:
        self.name, self.size, self.below, self.bios = name, below.size, (below,), bios

    def submit(self, bio: Bio, line: Line) -> Plan[None]:
        while bio.length > BLOCK:
            line.send((yield from self.bios.split(bio, BLOCK, line)), self.below[0])
        line.send((yield from self.bios.clone(bio, line)), self.below[0])
        bio.complete()


def read(layer: Layer, offset: int, length: int) -> Plan[Bio]:
    """Read in a bio of nobody's set, and wait."""
    bio = Bio(READ, offset, memoryview(bytearray(length)))
    yield from carry_out(layer, bio)
    return bio


def stack_on(rig: Rig, *specs: str, late: bool = True, **options: Any) -> Stack:
    """A stack in the simulator; `memory:SIZE` opens further devices. The disks are in `rig.disks`."""
    rig.disks = [options.pop("bottom", None) or rig.disk(late=late)]

    def opener(spec: str, site: Site) -> Layer:
        rig.disks.append(rig.disk(late=late))
        return rig.disks[-1]

    options.setdefault("crypto", Keys())
    stack = Stack(rig.simulator, rig.disks[0], specs, opener=opener, **options)
    rig.run(stack.start())
    return stack


def shut(rig: Rig, stack: Stack) -> None:
    """Close the stack: all it started has ended, and all it had is home."""
    left = [task.name for task in rig.run(stack.close())]
    assert not [name for name in left if not name.startswith("disk")], left


class Volatile(MemoryDevice):
    """A disk with a cache: what was not flushed may be lost, block by block, when the power goes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.stable = bytearray(size)

    def flush(self) -> None:
        self.pread_into(memoryview(self.stable), 0)

    def cut(self, chance: random.Random) -> None:
        now = bytearray(self.size)
        self.pread_into(memoryview(now), 0)
        for start in range(0, self.size, BLOCK):
            if chance.random() < 0.5:
                self.stable[start : start + BLOCK] = now[start : start + BLOCK]
        self.pwrite(memoryview(self.stable), 0)
