"""A device behind a host, under a stack: deadlines become errors, and a mirror drops the frozen leg."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.block.bio import READ, WRITE
from headway.core.block.command import Command
from headway.core.block.host import Host
from headway.core.block.hosted import Hosted
from headway.core.block.layers.mirror import Mirror
from headway.core.block.legs import ACTIVE, DROPPED
from headway.core.block.stack import Stack
from headway.core.mm.composite import Callables
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park
from headway.errors import DeviceTimeout
from tests.core.block.rig import BLOCK, Rig

BUFFER = 2 * BLOCK


class Peer:
    """A remote device: a task that answers what it is sent after a while, until it is frozen."""

    def __init__(self, rig: Rig, size: int = 64 * BLOCK) -> None:
        self.rig = rig
        self.memory = bytearray(size)
        self.queue: list[Command] = []
        self.frozen = False
        self.ended = False
        self.bell = Ticket("peer")

    def start(self, command: Command) -> None:
        self.queue.append(command)
        if not self.bell.woken:
            self.bell.wake()

    def abort(self, tag: int) -> bool:
        return False

    def serve(self, host: Host) -> Plan[None]:
        while not self.ended:
            if not self.queue or self.frozen:
                self.bell = Ticket("peer")
                yield from park(self.bell)
                continue
            command = self.queue.pop(0)
            yield from park(Ticket("wire"), 0.01)
            op, offset, length = command.cmd
            if op is READ:
                command.sg[0][:length] = self.memory[offset : offset + length]
            elif op is WRITE:
                self.memory[offset : offset + length] = command.sg[0][:length]
            host.answer(command.tag)

    def thaw(self) -> None:
        self.frozen = False
        if not self.bell.woken:
            self.bell.wake()


def hosted(rig: Rig, peer: Peer, *, count: int = 2, quota: int = 0) -> Hosted:
    def buffer(_: Any) -> memoryview:
        return memoryview(bytearray(BUFFER))

    pool = FixedMempool([buffer(0) for _ in range(count)], runtime=rig.simulator, name="wire")
    host = Host(
        rig.simulator, peer, "peer", timeout_s=1.0,
        replacements=Callables(buffer, lambda buffer: None), quota=quota,
    )  # fmt: skip
    rig.simulator.start(peer.serve(host), "peer")
    return Hosted(host, len(peer.memory), pool, BUFFER, rig.set_of("splits"))


def stack_over(rig: Rig, peer: Peer, *specs: str, **options: Any) -> Stack:
    bottom = hosted(rig, peer, **options)
    stack = Stack(rig.simulator, bottom, specs, opener=lambda *_: rig.disk())
    rig.run(stack.start())
    return stack


@pytest.mark.parametrize("seed", range(5))
def test_bytes_go_there_and_back_in_pieces(seed: int) -> None:
    rig = Rig(seed)
    peer = Peer(rig)
    stack = stack_over(rig, peer, count=1)
    data = bytes(range(256)) * 14
    view = memoryview(bytearray(len(data)))
    rig.run(stack.request(WRITE, 100, memoryview(data), len(data)))
    rig.run(stack.request(READ, 100, view, len(data)))
    assert bytes(view) == data == bytes(peer.memory[100 : 100 + len(data)])
    peer.ended = True
    peer.thaw()
    rig.run(stack.close())


def test_a_frozen_peer_fails_the_request_in_time_and_never_touches_its_memory() -> None:
    rig = Rig()
    peer = Peer(rig)
    stack = stack_over(rig, peer)
    peer.memory[:4] = b"late"
    peer.frozen = True
    view = memoryview(bytearray(4))
    with pytest.raises(DeviceTimeout):
        rig.run(stack.request(READ, 0, view, 4))
    assert rig.simulator.clock_s == 1.0
    view[:] = b"mine"
    peer.thaw()
    rig.run()
    assert bytes(view) == b"mine", "the late answer went into the quarantined buffer"
    assert stack.stats()["peer"]["late"] == 1 and stack.stats()["peer"]["quarantined"] == 0
    peer.ended = True
    peer.thaw()
    rig.run(stack.close())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("quota", [0, 2])
def test_a_mirror_drops_the_leg_whose_peer_freezes_and_fills_it_when_it_is_back(
    seed: int, quota: int
) -> None:
    rig = Rig(seed)
    peer = Peer(rig)
    stack = stack_over(rig, peer, "mirror,leg=x,window=1KiB", quota=quota)
    mirror = stack.top
    assert isinstance(mirror, Mirror)

    def write(offset: int, text: bytes) -> Plan[None]:
        data = memoryview(text * (BLOCK // len(text)))
        yield from stack.request(WRITE, offset, data, len(data))

    rig.run(write(0, b"both"))
    peer.frozen = True
    rig.run(write(BLOCK, b"one!"), write(2 * BLOCK, b"two!"))
    frozen = mirror.legs.all[0]
    assert [leg.state for leg in mirror.legs.all] == [DROPPED, ACTIVE]
    view = memoryview(bytearray(3 * BLOCK))
    rig.run(stack.request(READ, 0, view, len(view)))
    assert bytes(view[::BLOCK]) == b"bot"
    peer.thaw()
    task = rig.simulator.start(mirror.resync.run(frozen), "resync")
    rig.run()
    assert task.result is True
    assert peer.memory[: 3 * BLOCK] == view
    peer.ended = True
    peer.thaw()
    rig.run(stack.close())
    assert frozen.layer._buffers.outstanding == 0
