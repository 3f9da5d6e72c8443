"""Mapping a scatter list with bounces: the deadlock of 2009, and both remedies."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.mapping import Mapper, Remedy, worst_case
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Plan, Ticket, park
from headway.errors import NoMemory, UsageError
from tests.core.block.rig import BLOCK, Rig
from tests.core.mm.pools import Shelf
from tests.steps import step


class Pages(Shelf):
    """A backend of bounce buffers; writes down in which order they come back."""

    def __init__(self) -> None:
        super().__init__()
        self.freed: list[Any] = []

    def _take(self) -> Any:
        return None if super()._take() is None else memoryview(bytearray(BLOCK))

    def free(self, element: Any) -> None:
        self.freed.append(element)
        super().free(element)


def pool_of(rig: Rig, size: int) -> BackedMempool[memoryview]:
    """A full reserve over an allocator that gives nothing more."""
    pages = Pages()
    pool: BackedMempool[memoryview] = BackedMempool(
        pages, min_count=size, runtime=rig.simulator, name="bounce"
    )
    pages.shut()
    return pool


def mapper(rig: Rig, size: int, most: int, *, mappers: int = 1, **options: Any) -> Mapper:
    """Everything is bounced; bios and buffers have `size` each."""
    return Mapper(
        rig.set_of("mapped", min_count=size),
        pool_of(rig, size),
        reaches=options.pop("reaches", lambda view: False),
        buffer_size=BLOCK,
        most=most,
        mappers=mappers,
        **options,
    )


def sg(count: int, fill: int = 0) -> list[memoryview]:
    return [memoryview(bytearray([fill + n]) * BLOCK) for n in range(count)]


def execute(its: Mapper, disk: Any, op: Any, offset: int, views: list[memoryview]) -> Plan[Bio]:
    head = Bio(op, offset, length=sum(map(len, views)))
    ticket = Ticket("request")
    line = Line()
    mapped = yield from its.map(op, offset, views, head)
    head.push(lambda bio: None)
    head.hooks.insert(0, (lambda bio: ticket.wake(), 0, 0, None, None))
    its.submit(mapped, disk, line)
    yield from line.run()
    yield from park(ticket)
    return head


def stuck(rig: Rig, *plans: Plan[Any]) -> list[str]:
    return [task.name for task in rig.run(*plans) if task.name.startswith("task")]


def test_t51_one_task_that_needs_three_of_two_waits_for_what_it_holds() -> None:
    rig = Rig()
    its = mapper(rig, 2, 1)
    its.most = 3  # broken: it was sized for one piece
    assert stuck(rig, execute(its, rig.disk(), WRITE, 0, sg(3))) == ["task 0"]


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("needs", [2, 3, 4])
def test_t52_progress_with_the_worst_case_and_deadlock_with_one_less(
    tasks: int, needs: int
) -> None:
    enough = worst_case(tasks, needs)
    for seed in range(10):
        rig = Rig(seed)
        its = mapper(rig, enough, needs, mappers=tasks)
        disk = rig.disk()
        plans = [execute(its, disk, WRITE, n * 8 * BLOCK, sg(needs)) for n in range(tasks)]
        assert stuck(rig, *plans) == []

    def hangs(seed: int) -> bool:
        rig = Rig(seed)
        its = mapper(rig, enough - 1, 1)
        its.most = needs
        disk = rig.disk()
        return bool(stuck(rig, *(execute(its, disk, WRITE, 0, sg(needs)) for _ in range(tasks))))

    assert any(hangs(seed) for seed in range(200)), "each can hold one less than it needs"


def test_t53_unwinding_frees_in_reverse_and_restores_the_reserves_exactly() -> None:
    rig = Rig()
    its = mapper(rig, 2, 3, remedy=Remedy.UNWIND)
    bios, buffers = its._bios.pool, its._buffers
    order: list[Any] = []
    buffers.watch(lambda event: order.append((event.kind, event.element)))
    plan = its.map(WRITE, 0, sg(3), Bio(WRITE))
    with pytest.raises(NoMemory, match="nothing is held"):
        step(plan).finish()
    assert (bios.reserve_count, buffers.reserve_count) == (2, 2)
    granted = [element for kind, element in order if kind == "grant"]
    assert [element for kind, element in order if kind == "release"] == granted[::-1]


@pytest.mark.parametrize("seed", range(20))
def test_t51_with_unwinding_two_tasks_end_with_their_data_or_an_error(seed: int) -> None:
    rig = Rig(seed)
    its = mapper(rig, 2, 2, remedy=Remedy.UNWIND)
    disk = rig.disk()
    ended: list[Any] = []

    def task(offset: int) -> Plan[None]:
        try:
            ended.append((yield from execute(its, disk, WRITE, offset, sg(2, offset >> 9))))
        except NoMemory as error:
            ended.append(error)

    assert stuck(rig, task(0), task(4 * BLOCK)) == []
    assert len(ended) == 2 and its._buffers.outstanding == its._bios.pool.outstanding == 0


def test_t57_a_bio_of_256_pages_and_a_bounce_pool_of_64() -> None:
    """The kernel's own sizes: the mapper refuses them for CAPACITY, and they hang if forced."""
    rig = Rig(fine=False)
    with pytest.raises(UsageError, match="give it 256"):
        mapper(rig, 64, 256)
    its = mapper(rig, 64, 64)
    its.most = 256
    assert stuck(rig, execute(its, rig.disk(size=256 * BLOCK), WRITE, 0, sg(256))) == ["task 0"]
    unwinding = mapper(rig, 64, 256, remedy=Remedy.UNWIND)
    with pytest.raises(NoMemory):
        step(unwinding.map(WRITE, 0, sg(256), Bio(WRITE))).finish()
    assert unwinding._buffers.reserve_count == 64


@pytest.mark.parametrize("bounced", [False, True])
def test_the_bytes_arrive_bounced_or_not_across_limits(bounced: bool) -> None:
    rig = Rig()
    limits = Limits(BLOCK, BLOCK)
    its = mapper(rig, 8, 8, reaches=lambda view: not bounced, limits=limits)
    disk = rig.disk(limits=limits)
    rig.run(execute(its, disk, WRITE, BLOCK, [memoryview(bytes(range(256)) * 4), *sg(1, 7)]))
    back = [memoryview(bytearray(BLOCK)), memoryview(bytearray(2 * BLOCK))]
    rig.run(execute(its, disk, READ, BLOCK, back))
    assert bytes(back[0]) == bytes(range(256)) * 2
    assert bytes(back[1]) == bytes(range(256)) * 2 + bytes([7]) * BLOCK
    assert its._buffers.stats().alloc_count == (6 if bounced else 0)
    its._bios.close()


def test_more_pieces_than_a_mapper_was_made_for_are_refused() -> None:
    rig = Rig()
    with pytest.raises(UsageError, match="3 pieces"):
        step(mapper(rig, 2, 2).map(WRITE, 0, sg(3), Bio())).finish()
    with pytest.raises(UsageError, match="no whole blocks"):
        mapper(rig, 2, 2, limits=Limits(4096))
