"""Power cuts after every single write of a run: the devices as they may be then, and what must be found.

One life of a stack is recorded: each write and flush of every device, in the order of the run, and between
them what the users wrote and what they know to be durable. Then, for each prefix of that record, the
devices are made as a cut would leave them: what was flushed is there, of the rest each 512 bytes by chance.
The stack is started on them and read. Then another life begins on one of those.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio, Op
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from tests.core.block.rig import BLOCK, Rig, shut

ANYTHING = None  # what was discarded


class Recorded(MemoryDevice):
    """A disk whose every write and flush is written down; it has zero and discard where `offers` says."""

    def __init__(self, image: bytes, events: list[Any], number: int) -> None:
        super().__init__(len(image))
        super().pwrite(memoryview(image), 0)
        self.events, self.number = events, number

    def pwrite(self, view: memoryview, offset: int) -> None:
        self.events.append(("write", self.number, offset, bytes(view)))
        super().pwrite(view, offset)

    def flush(self) -> None:
        self.events.append(("flush", self.number))


Start = Callable[[Rig, list[MemoryDevice], bool], Stack]


class Life:
    """One life of a stack made by `start` on `images`; `users` work on their own blocks, at once."""

    def __init__(
        self, start: Start, images: list[bytes], seed: int, blocks: int, *, starve: bool = False
    ) -> None:
        self.start, self.images, self.blocks = start, images, blocks
        self.chance = random.Random(seed)
        self.rig = Rig(seed, fine=False)
        self.events: list[Any] = []
        disks: list[MemoryDevice] = [
            Recorded(image, self.events, number) for number, image in enumerate(images)
        ]
        self.stack = start(self.rig, disks, starve)
        self.contents = [[content] for content in self.read_all(self.rig, self.stack)]
        self.events.append(("found",))

    def read_all(self, rig: Rig, stack: Stack) -> list[bytes]:
        view = memoryview(bytearray(self.blocks * BLOCK))
        bio = Bio(READ, 0, view)
        rig.run(carry_out(stack.top, bio))
        assert bio.error is None, bio.error
        return [bytes(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK)]

    def run(self, users: int = 3, requests: int = 12) -> None:
        share = self.blocks // users
        plans = [self.user(n * share, (n + 1) * share, requests) for n in range(users)]
        assert not [task for task in self.rig.run(*plans) if task.name.startswith("task")]
        shut(self.rig, self.stack)

    def run_in_order(self, bursts: list[int]) -> None:
        """One user, who writes block after block, round and round, and flushes after each burst."""
        assert not [
            task for task in self.rig.run(self.in_order(bursts)) if task.name.startswith("task")
        ]
        shut(self.rig, self.stack)

    def in_order(self, bursts: list[int]) -> Plan[None]:
        at = self.chance.randrange(self.blocks)
        for burst in bursts:
            for _ in range(burst):
                bio = self.request(WRITE, at % self.blocks, 1)
                yield from carry_out(self.stack.top, bio)
                assert bio.error is None, bio.error
                at += 1
            known = {number: len(content) - 1 for number, content in enumerate(self.contents)}
            bio = Bio(FLUSH)
            yield from carry_out(self.stack.top, bio)
            assert bio.error is None, bio.error
            self.events.append(("durable", known))

    def user(self, first: int, end: int, requests: int) -> Plan[None]:
        chance = self.chance
        for _ in range(requests):
            op = chance.choice([WRITE, WRITE, WRITE, WRITE, ZERO, DISCARD, FLUSH, FLUSH])
            start = chance.randrange(first, end)
            count = chance.randrange(1, min(5, end - start) + 1)
            known = {number: len(self.contents[number]) - 1 for number in range(first, end)}
            bio = self.request(op, start, count)
            bio.fua = op is not FLUSH and chance.random() < 0.15
            fua = bio.fua
            yield from carry_out(self.stack.top, bio)
            assert bio.error is None, bio.error
            if op is FLUSH:
                self.events.append(("durable", known))
            elif fua:
                done = {n: len(self.contents[n]) - 1 for n in range(start, start + count)}
                self.events.append(("durable", done))

    def request(self, op: Op, start: int, count: int) -> Bio:
        if op is FLUSH:
            return Bio(FLUSH)
        length, view = count * BLOCK, None
        if op is WRITE:
            view = memoryview(bytearray(self.chance.randbytes(length)))
        for at in range(count):
            written: Any = ANYTHING if op is DISCARD else bytes(BLOCK)
            if view is not None:
                written = bytes(view[at * BLOCK : (at + 1) * BLOCK])
            self.contents[start + at].append(written)
            self.events.append(("asked", start + at, len(self.contents[start + at]) - 1))
        return Bio(op, start * BLOCK, view, length=length)

    # -- the power goes --------------------------------------------------------------------------------

    def cut(self, length: int) -> list[bytes]:
        """The devices, of which only the first `length` events have happened."""
        stable = [bytearray(image) for image in self.images]
        waiting: list[dict[int, bytes]] = [{} for _ in self.images]
        for event in self.events[:length]:
            if event[0] == "write":
                _, number, offset, data = event
                for at in range(0, len(data), BLOCK):
                    waiting[number][offset + at] = data[at : at + BLOCK]
            elif event[0] == "flush":
                settle(stable[event[1]], waiting[event[1]], lambda: True)
        for image, rest in zip(stable, waiting, strict=True):
            settle(image, rest, lambda: self.chance.random() < 0.5)
        return [bytes(image) for image in stable]

    def check(self, length: int) -> list[bytes]:
        """After a cut there each block has what was durable, or something newer; the devices then."""
        floor, last = [0] * self.blocks, [0] * self.blocks
        for event in self.events[:length]:
            if event[0] == "durable":
                for number, at in event[1].items():
                    floor[number] = max(floor[number], at)
            elif event[0] == "asked":
                last[event[1]] = event[2]
        images, rig = self.cut(length), Rig(fine=False)
        disks = [MemoryDevice(len(image)) for image in images]
        for disk, image in zip(disks, images, strict=True):
            disk.pwrite(memoryview(image), 0)
        stack = self.start(rig, disks, False)
        found = self.read_all(rig, stack)
        for number, content in enumerate(found):
            may = self.contents[number][floor[number] : last[number] + 1]
            assert ANYTHING in may or content in may, (
                f"after {length} of {len(self.events)} events block {number} has none of the {len(may)} it may "
                f"have; {self.contents[number].index(content) if content in self.contents[number] else 'rubbish'}"
            )
        shut(rig, stack)
        return images

    def check_all(self, *, full: bool = False) -> list[bytes]:
        """Every prefix from where the life began; one of the outcomes: with `full` the good end as often as a
        cut just before a flush, when most may be lost."""
        first = self.events.index(("found",))
        chosen = self.chance.randrange(first, len(self.events) + 1)
        if full:
            flushes = [
                at for at in range(first, len(self.events)) if self.events[at] == ("flush", 1)
            ]
            chosen = self.chance.choice([len(self.events), self.chance.choice(flushes)])
        kept = self.images
        for length in range(first, len(self.events) + 1):
            if length < len(self.events) and length != chosen:
                if self.events[length][0] not in ("write", "flush"):
                    continue  # nothing has changed since the cut before
            images = self.check(length)
            if length == chosen:
                kept = images
        return kept


def settle(image: bytearray, waiting: dict[int, bytes], keeps: Callable[[], bool]) -> None:
    for offset, data in waiting.items():
        if keeps():
            image[offset : offset + len(data)] = data
    waiting.clear()
