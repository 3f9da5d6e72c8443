"""ebs: any bytes on whole blocks; writes of parts of a block never lose one another."""

from __future__ import annotations

import random

import pytest

import headway as hw
from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.limits import Limits
from headway.core.block.line import carry_out
from headway.core.block.ranges import Claim, Ranges
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.errors import BlockError
from tests.core.block.rig import BLOCK, Rig, Struck, shut, stack_on

SIZE = 16 * BLOCK


def on(rig: Rig, starve: bool = False) -> Stack:
    bottom = rig.disk(
        SIZE, limits=Limits(alignment=BLOCK, max_length=4 * BLOCK), splits=rig.set_of()
    )
    return stack_on(rig, bottom=bottom, starve=starve, any_bytes=True)


@pytest.mark.parametrize("seed", range(12))
def test_parts_of_one_block_written_at_once_are_all_there(seed: int) -> None:
    """Four users, each with its own bytes of the same blocks; every reserve at its minimum half of the time."""
    rig = Rig(seed, fine=True)
    stack = on(rig, starve=seed % 2 == 0)
    assert stack.limits.alignment == 1
    model = bytearray(SIZE)
    chance = random.Random(seed)

    def user(number: int) -> Plan[None]:
        for _ in range(8):
            at = chance.randrange(0, 4 * BLOCK, 128) + 32 * number
            op = chance.choice([WRITE, WRITE, ZERO, READ])
            view = memoryview(bytearray(chance.randbytes(32))) if op is not ZERO else None
            bio = Bio(op, at, view, length=32, fua=chance.random() < 0.2)
            yield from carry_out(stack.top, bio)
            assert bio.error is None
            if op is READ:
                assert view == model[at : at + 32]
            else:
                model[at : at + 32] = bytes(32) if view is None else view

    assert not [task for task in rig.run(*map(user, range(4))) if task.name.startswith("task")]
    view = memoryview(bytearray(SIZE))
    rig.run(carry_out(stack.top, Bio(READ, 0, view)))
    assert view == model
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_write_and_a_part_at_once_end_as_one_after_the_other(seed: int) -> None:
    """An answered write of the whole block is never undone by the part that was read before it."""
    rig = Rig(seed, fine=True)
    stack = on(rig, starve=seed % 2 == 0)
    whole = Bio(WRITE, 0, memoryview(bytearray(b"w" * 2 * BLOCK)))
    part = Bio(WRITE, 100, memoryview(bytearray(b"p" * 10)))
    rig.run(carry_out(stack.top, part), carry_out(stack.top, whole))
    view = memoryview(bytearray(2 * BLOCK))
    rig.run(carry_out(stack.top, Bio(READ, 0, view)))
    both = b"w" * 100 + b"p" * 10 + b"w" * (2 * BLOCK - 110)
    assert bytes(view) in (both, b"w" * 2 * BLOCK)
    shut(rig, stack)


def test_an_interrupted_write_keeps_nobody_waiting() -> None:
    rig = Rig()
    limits = Limits(alignment=BLOCK, max_length=4 * BLOCK)
    struck = Struck(rig.disk(SIZE, late=False, limits=limits, splits=rig.set_of()))
    stack = stack_on(rig, bottom=struck, any_bytes=True)
    struck.strikes = True
    with pytest.raises(KeyboardInterrupt):
        stack.submit_now(Bio(WRITE, 0, memoryview(bytearray(BLOCK))))
    struck.strikes = False
    part = Bio(WRITE, 100, memoryview(bytearray(b"p" * 10)))
    rig.run(carry_out(stack.top, part))
    assert stack.top.stats() == {"block": BLOCK, "parts": 1, "waits": 0}
    shut(rig, stack)


@pytest.mark.parametrize("starve", [False, True])
def test_any_range_against_a_bytearray(starve: bool) -> None:
    rig, chance = Rig(), random.Random(5)
    stack = on(rig, starve)
    model = bytearray(SIZE)
    for _ in range(150):
        op = chance.choice([READ, WRITE, WRITE, ZERO, DISCARD, FLUSH])
        at = 0 if op is FLUSH else chance.randrange(SIZE)
        length = 0 if op is FLUSH else chance.randrange(min(3 * BLOCK, SIZE - at))
        view = memoryview(bytearray(chance.randbytes(length))) if op in (READ, WRITE) else None
        bio = Bio(op, at, view, length=length)
        rig.run(carry_out(stack.top, bio))
        assert bio.error is None
        if op is READ:
            assert view == model[at : at + length]
        elif op in (WRITE, ZERO):  # a discard does nothing to this disk
            model[at : at + length] = bytes(length) if view is None else view
    shut(rig, stack)


def test_who_waits_is_not_overtaken_by_hand() -> None:
    rig = Rig()
    ranges = Ranges(rig.simulator.guard())
    bio, later = Bio(), Bio()
    whole = ranges.enter(Claim(0, 1024, True), bio)
    assert whole is not None
    assert ranges.enter(Claim(512, 1024, False), bio) is None
    assert ranges.enter(Claim(512, 1024, True), later) is None  # the part came first
    assert ranges.enter_now(Claim(0, 512, True)) is not None  # whole beside whole
    [(part, given)] = ranges.leave(whole)
    assert given is bio
    [(_, given)] = ranges.leave(part)
    assert given is later and ranges.waits == 2


def test_a_part_whose_block_cannot_be_read_fails_and_lets_the_others_go_on() -> None:
    rig = Rig()
    stack = on(rig)
    [disk] = stack.top.below
    works = disk._read  # type: ignore[attr-defined]

    def fails(view: memoryview, offset: int) -> None:
        raise BlockError(5, "a bad spot")

    disk._read = fails  # type: ignore[attr-defined]
    for _ in range(2):
        bio = Bio(WRITE, 7, memoryview(bytearray(3)))
        rig.run(carry_out(stack.top, bio))
        assert "bad spot" in str(bio.error)
    disk._read = works  # type: ignore[attr-defined]
    bio = Bio(WRITE, 7, memoryview(bytearray(3)))
    rig.run(carry_out(stack.top, bio))
    assert bio.error is None
    shut(rig, stack)


def test_a_client_that_writes_512_bytes_to_sectors_of_4096_is_served(tmp_path) -> None:
    from headway.exports import open_exports
    from headway.server import serve
    from tests.nbd_client import connect

    key, disk = tmp_path / "key", tmp_path / "disk"
    key.write_bytes(random.Random(1).randbytes(64))
    key.chmod(0o600)
    disk.write_bytes(bytes(1 << 20))
    layer = f"crypt,format=plain,key-file={key},sector=4096"
    exports = open_exports([str(disk)], read_only=False, layers=[layer], memory=8 << 20)
    with serve(exports, listen=f"unix:{tmp_path}/s", memory="8MiB"):
        client = connect(tmp_path / "s")
        client.write(0, b"." * 8192)
        client.write(512, b"a" * 512)
        client.write(4000, b"b" * 200)
        held = b"." * 512 + b"a" * 512 + b"." * 2976 + b"b" * 200 + b"." * 3992
        assert client.read(0, 8192) == held and client.read(4090, 20) == b"b" * 20
        client.close()
    with hw.open_stack(str(disk), [layer]) as device:
        view = memoryview(bytearray(8192))
        device.pread_into(view, 0)
        assert view == held
