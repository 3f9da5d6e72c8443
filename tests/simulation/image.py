"""A read-only image of a simulated machine, behind a hash tree: who reads it, and who copies it to the stack.

It is made once, before the machine is: its blocks have known values, and sometimes a bit is flipped
afterwards, in its data or its hashes. Then whoever reads that block hears of it, and nobody is given a byte
that was not there when the root was told.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.copier import Line, Shares
from headway.core.block.copier import Sequence as Pieces
from headway.core.block.device import Extent
from headway.core.block.layer import Layer
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack, room
from headway.core.block.treemaking import Making
from headway.core.plan import Plan, Ticket, park
from headway.runtimes.simulator import Cancelled, Simulator
from tests.core.block.rig import Keys
from tests.simulation.disks import BLOCK, Disk
from tests.simulation.layers import kind_of, opened_again, some_layers
from tests.simulation.users import MOST, ROUNDS, Held, flush, lease, rounds

if TYPE_CHECKING:
    from tests.simulation.world import World

BLOCKS = 24  # 16 digests in a block: two levels of hashes


def some_specs(chance: random.Random) -> list[str]:
    """Layers below a hash tree, and above it; such as need no header of their own."""
    below = some_layers(chance, chance.choice([1, 2]))
    below = [spec for spec in below if not kind_of(spec).stops and "create=" not in spec]
    above = [spec for spec in some_layers(chance, 1) if spec.startswith(_SEE_THROUGH)]
    return [*below, f"verity,hash=hashes,block={BLOCK},cache={chance.choice([0, 1, 64])}", *above]


_SEE_THROUGH = ("bounce", "delay", "flaky")


class Image:
    """Made in its constructor, on disks of its own; opened in the machine by `open`."""

    def __init__(self, world: World) -> None:
        self.world = world
        chance = world.chance
        self.values = [chance.randrange(1, 256) for _ in range(BLOCKS)]
        self.specs = world.setting.image_specs
        at = next(n for n, spec in enumerate(self.specs) if spec.startswith("verity"))
        tame = opened_again(self.specs[:at]), opened_again(self.specs[at + 1 :])
        size = room(tame[0], BLOCKS * BLOCK) + 32 * BLOCK  # stripes round down
        self.devices: list[Disk] = []

        def opener(*_: Any) -> Layer:
            self.devices.append(Disk(size, chance, 0.0))
            return Bottom(self.devices[-1])

        simulator = Simulator(lambda options: 0, fine=False)
        making = [*tame[0], f"linear,size={BLOCKS * BLOCK}", f"{self.specs[at]},create=yes"]
        stack = Stack(simulator, opener(), making, opener=opener, crypto=Keys())
        simulator.run(stack.start())
        data = b"".join(bytes([value]) * BLOCK for value in self.values)
        simulator.run(stack.request(WRITE, 0, memoryview(bytearray(data)), len(data)))
        simulator.run(stack.request(FLUSH, 0, None, 0))
        assert isinstance(stack.top, Making)
        root = stack.top.root.hex()
        simulator.run(stack.close())
        self.opened = [
            *self.specs[:at], f"linear,size={BLOCKS * BLOCK}", f"{self.specs[at]},root={root}",
            *self.specs[at + 1 :],
        ]  # fmt: skip
        self.flipped = chance.random() < 0.3
        if self.flipped:
            disk = chance.choice(self.devices)
            view = memoryview(bytearray(1))
            offset = chance.randrange(BLOCK, disk.size)  # not in the header
            disk.pread_into(view, offset)
            view[0] ^= 1 << chance.randrange(8)
            disk.pwrite(view, offset)

    def open(self) -> None:
        """Once for each try to make the machine."""
        devices = iter(self.devices)

        def opener(what: str, *_: Any) -> Layer:
            bottom = self.world.attach(next(devices))
            return self.world.slow(bottom) if what != "hashes" else bottom

        self.stack = self.world.make_stack(self.opened, opener)

    @property
    def may_fail(self) -> bool:
        setting = self.world.setting
        return self.flipped or setting.io_fails > 0 or any("flaky" in spec for spec in self.specs)

    def read(self, first: int, held: Held) -> Plan[bool]:
        """Some blocks of it; False if that failed. Raises: AssertionError if they are others."""
        bio = Bio(READ, first * BLOCK, held.view, home=held)
        try:
            yield from carry_out(self.stack.top, bio)
        except Cancelled:
            yield from held.gone()
            raise
        if bio.error is not None:
            assert self.may_fail, bio.error
            return False
        count = len(held.view) // BLOCK
        right = b"".join(bytes([value]) * BLOCK for value in self.values[first : first + count])
        assert held.view == right, f"{count} blocks of the image from {first} on are others"
        return True

    def read_once_more(self) -> Plan[None]:
        """Just before it is closed: what reads ahead is under way then."""
        held = Held(memoryview(bytearray(BLOCK)))
        yield from self.read(self.world.chance.randrange(BLOCKS), held)
        held.free()


def reader(world: World) -> Plan[None]:
    chance = world.chance

    def one() -> Plan[None]:
        first = chance.randrange(BLOCKS)
        held = yield from lease(world, "reader", min(chance.randrange(1, MOST + 1), BLOCKS - first))
        yield from world.image.read(first, held)
        held.free()

    yield from rounds(world, ROUNDS, one)


# -- copying ---------------------------------------------------------------------------------------------


class Copy:
    """One pass of `core.block.copier` over the first blocks of the image, in the machine's frames.

    Two movers read and write, a hasher sees the pieces in order; whoever is last gives the frame back.
    """

    def __init__(self, world: World, who: str, blocks: Sequence[int]) -> None:
        self.world, self.who, self.blocks = world, who, blocks
        self.count = min(len(blocks), BLOCKS)
        size = self.count * BLOCK
        request = world.chance.choice([1, 2, MOST]) * BLOCK
        self.pieces = Pieces(size, request, lambda offset: Extent(size, False), keep_holes=False)
        self.line: Line[Any] = Line()
        self.hashed: list[int] = []
        self.failed = False
        self.movers = 0
        self.over = Ticket(who)

    def run(self) -> Plan[None]:
        self.movers = 2
        for number in range(2):
            self.world.simulator.start(self.mover(), f"user mover {number} of {self.who}")
        while self.movers:
            try:
                yield from park(self.over)
            except Cancelled:  # as the command does: the movers end after their pieces
                self.failed = True
                self.world.cancelled += 1
                self.over = Ticket(self.who)
        for _, held, shares in self.line.drain():
            if shares.leave():
                held.free()
        if not self.failed:
            assert self.hashed == self.world.image.values[: self.count]

    def mover(self) -> Plan[None]:
        while not self.failed:
            held = yield from lease(self.world, self.who, MOST)  # frame first, piece second
            piece = self.pieces.take()
            if piece is None:
                held.free()
                break
            yield from self.move(piece, held)
        self.movers -= 1
        if not self.movers:
            self.over.wake()

    def move(self, piece: Any, frame: Held) -> Plan[None]:
        shares = Shares(2)
        part = Held(frame.view[: piece.length])
        if not (yield from self.world.image.read(piece.offset // BLOCK, part)):
            self.failed = True
            frame.free()
            return
        for item in self.line.enter(piece.number, (piece, frame, shares)):
            self.hash(*item)
        yield from self.write(piece, part)
        part.free()
        if shares.leave():
            frame.free()

    def write(self, piece: Any, part: Held) -> Plan[None]:
        first = self.blocks[0] + piece.offset // BLOCK
        blocks = self.world.blocks[first : first + piece.length // BLOCK]
        written = [block.write(part.view[n * BLOCK]) for n, block in enumerate(blocks)]
        bio = Bio(WRITE, first * BLOCK, part.view)
        yield from carry_out(self.world.stack.top, bio)
        if bio.error is not None:
            self.failed = True
            return
        for block, version in zip(blocks, written, strict=True):
            block.acked = version

    def hash(self, piece: Any, frame: Held, shares: Shares) -> None:
        self.hashed += [frame.view[n * BLOCK] for n in range(piece.length // BLOCK)]
        if shares.leave():
            frame.free()


def copier(world: World, who: str, blocks: Sequence[int]) -> Plan[None]:
    """Copies the image to its blocks, a few times; the last copy that worked is durable."""
    for _ in range(2):
        copy = Copy(world, who, blocks)
        yield from copy.run()
        if not copy.failed:
            try:
                yield from flush(world, blocks)
            except Cancelled:
                world.cancelled += 1
