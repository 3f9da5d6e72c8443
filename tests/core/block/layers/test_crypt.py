"""crypt beyond the conformance of layers: what is on the disk, zeros, discards, the numbers of sectors."""

from __future__ import annotations

import hashlib

import pytest

from headway.core.block.bio import DISCARD, READ, WRITE, ZERO, Bio
from headway.core.block.crypto import Secret
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.cipher import aes_xts
from headway.errors import UsageError
from tests.core.block.rig import BLOCK, Rig, shut, stack_on

PLAIN = "crypt,format=plain,key-file=k,sector=512,buffer=1KiB,reserve=1"


def ask(stack: Stack, bio: Bio, inline: bool) -> Plan[None]:
    if not (inline and stack.submit_now(bio)):
        yield from carry_out(stack.top, bio)
    assert bio.error is None


def on_disk(rig: Rig, offset: int, length: int) -> bytes:
    view = memoryview(bytearray(length))
    rig.disks[0].device.pread_into(view, offset)
    return bytes(view)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_on_the_disk_is_what_the_cipher_makes_of_each_sector_by_its_place(inline, late) -> None:
    rig = Rig()
    stack = stack_on(rig, PLAIN + ",offset=1KiB", late=late)
    data = memoryview(b"top secret " * 512)[
        : 7 * BLOCK
    ]  # more than a buffer, and not to be written
    rig.run(ask(stack, Bio(WRITE, 3 * BLOCK, data), inline))
    key = Secret(hashlib.sha512(b"k").digest())
    wanted = memoryview(bytearray(len(data)))
    aes_xts(key, 512).encrypt(data, wanted, 3)
    assert on_disk(rig, 1024 + 3 * BLOCK, len(data)) == wanted
    assert stack.size == 62 * BLOCK
    view = memoryview(bytearray(len(data)))
    rig.run(ask(stack, Bio(READ, 3 * BLOCK, view), inline))
    assert view == data
    shut(rig, stack)


@pytest.mark.parametrize("inline", [False, True])
def test_zeros_are_zeros_above_and_not_below(inline: bool) -> None:
    rig = Rig()
    stack = stack_on(rig, PLAIN, late=not inline)
    rig.run(ask(stack, Bio(ZERO, BLOCK, length=5 * BLOCK), inline))
    assert len(set(on_disk(rig, BLOCK, 5 * BLOCK))) > 100
    view = memoryview(bytearray(b"x" * 5 * BLOCK))
    rig.run(ask(stack, Bio(READ, BLOCK, view), inline))
    assert not any(view)
    shut(rig, stack)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("passes", ["no", "yes"])
def test_discards_pass_only_when_told(inline: bool, passes: str) -> None:
    rig = Rig()
    disk = rig.disk()
    seen: list[tuple[int, int]] = []
    disk._discard = lambda offset, length: seen.append((offset, length))
    stack = stack_on(rig, f"{PLAIN},offset=2KiB,discards={passes}", bottom=disk)
    rig.run(ask(stack, Bio(DISCARD, BLOCK, length=2 * BLOCK), inline))
    assert seen == ([(2048 + BLOCK, 2 * BLOCK)] if passes == "yes" else [])
    shut(rig, stack)


def test_a_request_that_is_no_whole_sector_is_refused() -> None:
    rig = Rig()
    stack = stack_on(rig, PLAIN)
    for inline in (True, False):
        bio = Bio(READ, 100, memoryview(bytearray(BLOCK)))
        assert not (inline and stack.submit_now(bio))
        rig.run(carry_out(stack.top, bio))
        assert "blocks of 512 bytes" in str(bio.error)
    shut(rig, stack)


def test_a_stack_without_ciphers_says_so() -> None:
    with pytest.raises(UsageError, match="given no ciphers"):
        stack_on(Rig(), PLAIN, crypto=None)
