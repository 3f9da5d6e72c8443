"""A host with one spare: every request ends exactly once, whatever the allocator does."""

from __future__ import annotations

import pytest

from headway.core.block.bio import Op
from headway.core.block.host import SENSE_SIZE, Host
from headway.core.mm.composite import Callables
from headway.errors import BlockError, NoMemory, UsageError
from headway.runtimes.threads import THREADS
from tests.core.block.hosts import Bench, Wire
from tests.core.block.rig import Rig
from tests.core.mm.pools import Shelf


@pytest.mark.parametrize("part", [0, 1, 2])
def test_t61_whichever_part_fails_the_spare_is_used_and_nothing_leaks(part: int) -> None:
    bench = Bench(Rig())
    bench.shelves[part].shut()
    bench.execute("a")
    assert bench.host.stats().spare_uses == 1 and not bench.host.stats().spare
    assert [shelf.out for shelf in bench.shelves] == [1, 1, 1], "other parts went back"
    bench.answer_all()
    assert bench.names() == ["a"] and bench.host.stats().spare
    bench.host.close()
    assert [shelf.out for shelf in bench.shelves] == [0, 0, 0]


def once(size: int) -> Callables:
    """A backend with one part in it."""
    stock = [bytearray(size)]
    return Callables(lambda gfp: stock.pop() if stock else None, stock.append)


def test_t62_the_spare_keeps_its_parts_when_it_is_used_again() -> None:
    rig = Rig()
    host = Host(rig.simulator, wire := Wire(), parts=[once(16), once(SENSE_SIZE)])
    slots = []
    for number in range(3):
        host.execute(number, (), lambda completion: None)
        parts = wire.out.pop().parts
        assert parts is not None and parts[0] == bytes(16), "the command is cleared"
        parts[0][:] = b"x" * 16
        slots.append(parts)
        host.answer(wire.started[-1], sense=b"what went wrong")
        assert parts[1][:15] == b"what went wrong"
    assert all(its[0] is slots[0][0] and its[1] is slots[0][1] for its in slots)
    assert host.stats().spare_uses == 3


def test_t63_a_request_without_a_slot_waits_and_starts_when_one_comes_back() -> None:
    bench = Bench(Rig())
    bench.shelves[1].shut()
    first, second = bench.execute("first"), bench.execute("second")
    assert bench.wire.started == [first] and bench.host.stats().waiting == 1
    bench.host.answer(first)
    assert bench.wire.started == [first, second]


def test_t64_with_one_spare_all_requests_end_in_order_one_at_a_time() -> None:
    bench = Bench(Rig())
    for shelf in bench.shelves:
        shelf.shut()
    for number in range(50):
        bench.execute(str(number))
    while bench.wire.out:
        assert bench.host.stats().in_flight == 1
        bench.host.answer(bench.wire.out.pop().tag)
    assert bench.names() == [str(number) for number in range(50)]


def test_t64_an_answer_inside_start_costs_no_stack() -> None:
    bench = Bench(Rig())
    bench.wire.start = lambda command: bench.host.answer(command.tag)  # type: ignore[method-assign]
    bench.host._pumping = True  # as if one were being started: all the others queue up
    for number in range(3_000):
        bench.execute(str(number))
    bench.host._pumping = False
    bench.execute("last")
    assert len(bench.ended) == 3_001


def test_t65_a_slot_that_comes_back_is_the_spare_first() -> None:
    bench = Bench(Rig(), parts=2)
    bench.execute("ordinary")
    bench.shelves[0].shut()
    bench.execute("spare")
    bench.host.answer(bench.wire.out.pop(0).tag)
    assert bench.host.stats().spare and bench.shelves[0].out == 2
    bench.answer_all()
    assert bench.shelves[0].out == 1


def test_no_memory_for_the_spare_is_an_error_at_once() -> None:
    with pytest.raises(NoMemory):
        Host(THREADS, Wire(), parts=[Shelf(), Shelf(0)])


def test_a_transport_that_cannot_start_fails_the_request_with_its_error() -> None:
    bench = Bench(Rig(), parts=2)
    bench.wire.error = BlockError(19, "unplugged")
    bench.execute("a")
    assert bench.ended[0][1].error is bench.wire.error and bench.host.stats().in_flight == 0


def test_closing_fails_what_is_under_way() -> None:
    rig = Rig()
    bench = Bench(rig, parts=2)
    bench.execute("a")
    bench.host.close()
    assert rig.run() == [] and bench.ended[0][1].error is not None
    with pytest.raises(BlockError, match="closed"):
        bench.execute("b")


def test_completions_run_on_a_work_queue_if_there_is_one() -> None:
    rig = Rig()
    bench = Bench(rig, parts=2, workers=rig.workers())
    bench.execute(Op.READ.value)
    bench.answer_all()
    assert bench.ended == []
    rig.run()
    assert bench.names() == ["read"]


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_a_deadline_that_makes_no_sense_is_refused(timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        Host(THREADS, Wire(), timeout_s=timeout_s)
    with pytest.raises(UsageError, match="None for none"):
        Bench(Rig()).execute("a", timeout_s=timeout_s)
