"""Every layer, held to both doors: the same bytes through each, and a door that was shut changed nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio, Op
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer, each
from headway.core.block.layers import LAYERS
from headway.core.block.line import Line, carry_out
from headway.core.block.spec import Recipe
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError
from headway.runtimes import tasks
from headway.runtimes.threads import THREADS
from tests.core.block.rig import BLOCK, Keys, Rig, shut, stack_on

# Each layer as it passes everything through. A layer of headway that is not here fails the first test.
SPECS = {
    "bounce": "bounce,buffer=1KiB",
    "crypt": "crypt,format=plain,key-file=k,sector=512,buffer=1KiB",
    "delay": "delay,seconds=0.001",
    "ebs": "ebs",
    "error": "error,offset=32256,size=512,ops=writes",
    "flaky": "flaky,up=1000000",
    "integrity": "integrity,create=yes,block=512,section=4",
    "linear": "linear,offset=1KiB",
    "mirror": "mirror,leg=x",
    "stripe": "stripe,with=x,chunk=1KiB",
    "thin": "thin,create=yes,extent=1KiB,block=512",
    "verity": "verity,hash=x,create=yes,block=512",  # reading it has its own test
    "writecache": "writecache,cache=x,block=512,section=5,buffer=1KiB",
}
STACK = [
    "linear,offset=512",
    "stripe,with=x,chunk=2KiB",
    "mirror,leg=y",
    "bounce,buffer=1536",
    "linear",
]
CRYPT_STACK = ["linear,offset=1KiB", SPECS["crypt"], "mirror,leg=y", SPECS["crypt"]]
EBS_STACK = ["linear,offset=1KiB", SPECS["crypt"], "ebs"]
EACH = [[spec] for spec in SPECS.values()] + [
    ["delay,seconds=0"],
    ["mirror,leg=x", "bounce,reads=no,buffer=1KiB"],
    STACK,
    CRYPT_STACK,
    EBS_STACK,
]
SIZE = 32 * BLOCK  # what every stack here has at least, without the bad spot of `error`


def test_every_layer_is_held_to_this() -> None:
    assert sorted([*SPECS, "qcow2"]) == sorted(
        LAYERS
    )  # that one cannot be written: its own test reads it


class Shut(Layer):
    """Its inline door opens only when `open` says so; it counts how often it was asked."""

    keeps_zeros = True

    def __init__(self, below: Layer, opens: Callable[[int], bool]) -> None:
        self.name, self.size, self.below = "shut", below.size, (below,)
        self.opens = opens
        self.asked = 0

    def submit_now(self, bio: Bio) -> bool:
        self.asked += 1
        return self.opens(self.asked) and self.below[0].submit_now(bio)

    def submit(self, bio: Bio, line: Line) -> None:
        line.send(bio, self.below[0])


def requests(seed: int, grain: int, count: int = 40) -> list[tuple[Op, int, int, bytes]]:
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        op = chance.choice([READ, READ, WRITE, WRITE, WRITE, ZERO, DISCARD, FLUSH])
        offset = chance.randrange(0, SIZE, grain)
        most = min(SIZE - offset, 6 * BLOCK)
        length = 0 if op is FLUSH else chance.randrange(grain, most + 1, grain)
        made.append((op, offset, length, chance.randbytes(length) if op is WRITE else b""))
    return made


def serve(stack: Stack, opens: Callable[[], bool], seed: int) -> Plan[bytes]:
    """Random requests against a bytearray; what the device holds in the end."""
    model, known = bytearray(SIZE), bytearray(b"\1") * SIZE
    carry = two_doors(stack, opens)
    if not all(layer.keeps_zeros for layer in each(stack.top)):
        yield from carry(Bio(ZERO, 0, length=SIZE))
    for op, offset, length, data in [*requests(seed, stack.limits.alignment), (READ, 0, SIZE, b"")]:
        view = memoryview(bytearray(data or length)) if op in (READ, WRITE) else None
        bio = Bio(op, offset, view, length=length)
        yield from carry(bio)
        assert bio.error is None
        if op is WRITE:
            model[offset : offset + length] = data
        elif op is ZERO:
            model[offset : offset + length] = bytes(length)
        elif op is READ:
            assert view is not None
            for at in range(length):  # what was discarded may be anything
                if known[offset + at]:
                    assert view[at] == model[offset + at], (offset, length, at)
        if op is not READ:
            known[offset : offset + length] = bytes([op is not DISCARD]) * length
    return bytes(model)


def two_doors(stack: Stack, opens: Callable[[], bool]) -> Callable[[Bio], Plan[None]]:
    """The inline door if it opens, the plan if not; a door that was shut must have changed nothing."""

    def carry(bio: Bio) -> Plan[None]:
        before, bytes_before = bio.fields(), bytes(bio.view or b"")
        if opens():
            if stack.submit_now(bio):
                assert not bio.hooks and bio.join is None
                return
            assert bio.fields() == before
            assert bio.op is READ or bytes(bio.view or b"") == bytes_before
        yield from carry_out(stack.top, bio)

    return carry


@pytest.mark.parametrize("specs", EACH, ids="+".join)
def test_both_doors_give_the_same_bytes(specs: list[str]) -> None:
    ended = []
    for opens in (lambda: True, lambda: False):
        rig = Rig(fine=False)
        stack = stack_on(rig, *specs)
        task = rig.simulator.start(serve(stack, opens, 1), "user")
        rig.run()
        ended.append(task.result)
        shut(rig, stack)
    assert ended[0] == ended[1]


@pytest.mark.parametrize("specs", EACH, ids="+".join)
@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_door_that_is_shut_below_leaves_the_bio_as_it_was(specs: list[str], every: int) -> None:
    """Forced at each depth in turn: below the lowest layer, then between all of them."""
    for depth in range(len(specs)):
        rig = Rig(fine=False)
        layers = {
            **LAYERS,
            "shut": Recipe(lambda below, options, site: Shut(below, lambda n: n % every > 0)),
        }
        stack = stack_on(rig, *specs[:depth], "shut", *specs[depth:], late=False, layers=layers)
        task = rig.simulator.start(serve(stack, lambda: True, every), "user")
        rig.run()
        assert task.done
        shut(rig, stack)


@pytest.mark.parametrize("specs", EACH, ids="+".join)
@pytest.mark.parametrize("seed", range(6))
def test_starved_of_all_memory_every_request_completes(specs: list[str], seed: int) -> None:
    """Every reserve at its documented minimum, every allocator always failing, many users at once."""
    rig = Rig(seed, fine=seed % 2 == 0)
    stack = stack_on(rig, *specs, starve=True)
    done: list[int] = []

    def user(number: int) -> Plan[None]:
        size = SIZE // 4
        view = memoryview(bytearray([number + 1]) * size)
        for op in (WRITE, FLUSH, READ):
            data = None if op is FLUSH else view
            yield from stack.request(op, number * size, data, 0 if data is None else size)
        assert view == bytearray([number + 1]) * size
        done.append(number)

    rig.run(*(user(number) for number in range(4)))
    assert sorted(done) == list(range(4))
    shut(rig, stack)


@pytest.mark.parametrize("specs", EACH, ids="+".join)
@pytest.mark.parametrize("seed", range(8))
def test_io_errors_end_in_clean_errors_and_all_comes_home(specs: list[str], seed: int) -> None:
    rig = Rig(seed, fail=0.2, fine=False)
    rig.fail = 0.0  # it starts well
    stack = stack_on(rig, *specs, starve=bool(seed % 2))
    rig.fail = 0.2
    ended: list[str] = []

    def user(number: int) -> Plan[None]:
        for op in (WRITE, READ, FLUSH, READ):
            view = memoryview(bytearray(4 * BLOCK))
            data = None if op is FLUSH else view
            try:
                yield from stack.request(op, number * BLOCK, data, 0 if data is None else len(view))
                ended.append("done")
            except BlockError as error:
                assert error.errno == 5
                ended.append("failed")

    rig.run(*(user(number) for number in range(5)))
    assert len(ended) == 20
    try:
        shut(rig, stack)
    except BlockError as error:  # told, and all else is closed: what a cache could not write back
        assert error.errno == 5 and "writecache" in stack.name
    left = [task.name for task in rig.simulator.stuck() if not task.name.startswith("disk")]
    assert not left


def on_threads(plan: Plan[Any]) -> Any:
    return THREADS.run(plan)


def on_tasks(plan: Plan[Any]) -> Any:
    return asyncio.run(tasks.run(plan))


@pytest.mark.parametrize("specs", EACH, ids="+".join)
@pytest.mark.parametrize("run", [on_threads, on_tasks])
def test_on_real_drivers(specs: list[str], run: Callable[[Plan[Any]], Any]) -> None:
    def main() -> Plan[Any]:
        stack = Stack(
            THREADS,
            Bottom(MemoryDevice(2 * SIZE)),
            specs,
            opener=lambda *_: Bottom(MemoryDevice(2 * SIZE)),
            crypto=Keys(),
        )
        yield from stack.start()
        yield from serve(stack, lambda: False, 2)
        yield from stack.close()

    run(main())
