"""What each of the small layers is for, beyond passing bytes through."""

from __future__ import annotations

import pytest

from headway.core.block.bio import FLUSH, READ, WRITE, Bio
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.errors import BlockError, UsageError
from tests.core.block.rig import BLOCK, Rig, read, shut, stack_on


def write(stack: Stack, offset: int, data: bytes) -> Plan[Bio]:
    bio = Bio(WRITE, offset, memoryview(bytearray(data)))
    yield from carry_out(stack.top, bio)
    return bio


def result(rig: Rig, plan: Plan[Bio]) -> Bio:
    task = rig.simulator.start(plan, "user")
    rig.run()
    assert task.done
    return task.result


def test_linear_is_a_window() -> None:
    rig = Rig()
    stack = stack_on(rig, "linear,offset=1KiB,size=2KiB")
    assert stack.size == 2048
    result(rig, write(stack, 512, b"x"))
    view = memoryview(bytearray(1))
    rig.disks[0].device.pread_into(view, 1536)
    assert bytes(view) == b"x"
    shut(rig, stack)
    with pytest.raises(UsageError, match="choose a window inside"):
        stack_on(Rig(), "linear,offset=32KiB,size=1KiB")


def test_delay_holds_back_by_kind_and_in_the_order_of_time() -> None:
    rig = Rig()
    stack = stack_on(rig, "delay,read=2,write=0.5,flush=0")
    assert stack.submit_now(Bio(FLUSH))
    ended: list[tuple[float, str]] = []

    def one(op, name: str) -> Plan[None]:
        bio = Bio(op, 0, memoryview(bytearray(BLOCK)))
        yield from carry_out(stack.top, bio)
        ended.append((rig.simulator.clock_s, name))

    rig.run(one(READ, "read"), one(WRITE, "write"))
    assert ended == [(0.5, "write"), (2.0, "read")]
    shut(rig, stack)


@pytest.mark.parametrize("ops", ["reads", "writes", "all"])
def test_error_fails_what_touches_its_range(ops: str) -> None:
    rig = Rig()
    stack = stack_on(rig, f"error,offset=512,size=512,ops={ops}")
    for offset, hit in ((0, False), (1, True), (512, True), (1023, True), (1024, False)):
        for op in (READ, WRITE):
            touched = hit and (ops == "all" or ops[:-1] == op.value)
            for inline in (True, False):
                bio = Bio(op, offset, memoryview(bytearray(BLOCK)))
                if inline:
                    stack.submit_now(bio)
                if not inline or bio.error is None:
                    rig.run(carry_out(stack.top, bio))
                assert (bio.error is not None) == touched, (op, offset, inline)
    shut(rig, stack)


def test_flaky_fails_in_its_down_phase() -> None:
    rig = Rig()
    stack = stack_on(rig, "flaky,up=3,down=2,ops=reads", late=False)
    failed = [result(rig, read(stack.top, 0, BLOCK)).error is not None for _ in range(10)]
    assert failed == [False] * 3 + [True] * 2 + [False] * 3 + [True] * 2
    assert result(rig, write(stack, 0, b"x")).error is None
    assert stack.stats()[stack.name] == {"hits": 4}
    shut(rig, stack)


def test_flaky_in_drop_mode_lies_about_writes() -> None:
    rig = Rig()
    stack = stack_on(rig, "flaky,up=1,down=1,ops=writes,mode=drop", late=False)
    assert result(rig, write(stack, 0, b"kept")).error is None
    assert result(rig, write(stack, 0, b"lost")).error is None
    assert bytes(result(rig, read(stack.top, 0, 4)).view or b"") == b"kept"
    shut(rig, stack)


def test_stripe_spreads_chunks_and_flushes_every_leg() -> None:
    rig = Rig()
    stack = stack_on(rig, "stripe,with=a,with=b,chunk=512", late=False)
    assert stack.size == 3 * 64 * BLOCK and stack.limits.boundary == 512
    result(rig, write(stack, 0, b"".join(bytes([n]) * BLOCK for n in range(6))))
    for leg in range(3):
        view = memoryview(bytearray(2 * BLOCK))
        rig.disks[leg].device.pread_into(view, 0)
        assert bytes(view) == bytes([leg]) * BLOCK + bytes([leg + 3]) * BLOCK
    flushed: list[int] = []
    for leg in range(3):
        rig.disks[leg].device.flush = lambda leg=leg: flushed.append(leg)  # type: ignore[attr-defined]
    rig.run(stack.request(FLUSH, 0, None, 0))
    assert sorted(flushed) == [0, 1, 2]
    shut(rig, stack)


@pytest.mark.parametrize("spec", ["stripe", "stripe,with=a,chunk=0", "stripe,with=a,chunk=x"])
def test_a_stripe_that_makes_no_sense_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        stack_on(Rig(), spec)


def test_bounce_shows_the_device_only_its_own_memory() -> None:
    rig = Rig()
    bottom = rig.disk(late=False)
    seen: list[memoryview] = []
    real = bottom._write
    bottom._write = lambda view, offset: (seen.append(view), real(view, offset))  # type: ignore[assignment]
    stack = stack_on(rig, "bounce,buffer=1KiB,reserve=1", bottom=bottom, starve=True)
    data = memoryview(bytearray(b"secret" * 512))
    rig.run(stack.request(WRITE, 0, data, len(data)))
    assert len(seen) == 3 and {view.nbytes for view in seen} == {1024}
    assert all(view.obj is seen[0].obj and view.obj is not data.obj for view in seen)
    shut(rig, stack)


def test_a_failed_read_leaves_no_bytes_of_the_buffer() -> None:
    rig = Rig()
    stack = stack_on(rig, "error,ops=reads", "bounce,buffer=1KiB")
    bio = Bio(READ, 0, memoryview(bytearray(b"mine" * 128)))
    rig.run(carry_out(stack.top, bio))
    assert isinstance(bio.error, BlockError) and bytes(bio.view or b"") == b"mine" * 128
    shut(rig, stack)
