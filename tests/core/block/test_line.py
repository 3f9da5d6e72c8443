"""Submission inside submission is queued: lower first, then the rest, then what was there; no stack."""

from __future__ import annotations

import errno

import pytest

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line, carry_out, submit
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError
from tests.core.block.rig import BLOCK, Log, Rig, read
from tests.steps import step


class Cut(Layer):
    """Sends a front down and the rest to itself, as the line does for a layer with limits."""

    def __init__(self, below: Layer, log: list[str]) -> None:
        self.name, self.size, self.below, self.log = "cut", below.size, (below,), log

    def submit(self, bio: Bio, line: Line) -> None:
        self.log.append(f"cut {bio.offset // BLOCK}")
        if bio.length > BLOCK:
            front = bio.split_to(Bio(), BLOCK)
            line.send(bio, self)
            line.send(front, self.below[0])
        else:
            line.send(bio, self.below[0])


class Two(Layer):
    """Sends three blocks to one layer and what follows to another."""

    def __init__(self, first: Layer, then: Layer) -> None:
        self.name, self.size, self.below = "two", first.size, (first, then)

    def submit(self, bio: Bio, line: Line) -> None:
        line.send(bio.split_to(Bio(), 3 * BLOCK), self.below[0])
        line.send(bio, self.below[1])


def test_t54_lower_layers_come_first_then_the_rest_then_what_was_queued_before() -> None:
    log: list[str] = []
    rig = Rig(fine=False)
    disk = rig.disk(late=False)
    low, other = Log("low", disk, log), Log("other", disk, log)
    rig.run(read(Two(Cut(low, log), other), 0, 4 * BLOCK))
    assert log == ["cut 0", "low 0", "cut 1", "low 1", "cut 2", "low 2", "other 3"]


def test_depth_costs_no_stack() -> None:
    """T5.4: five thousand layers, where a call for each would end in RecursionError."""
    rig = Rig(fine=False)
    top: Layer = rig.disk(late=False)
    log: list[str] = []
    for number in range(5_000):
        top = Log(str(number), top, log)
    assert rig.run(read(top, BLOCK, BLOCK)) == []
    assert len(log) == 5_000


def test_a_bio_too_long_for_a_layer_is_split_before_it_enters() -> None:
    rig = Rig()
    splits = rig.set_of("splits", min_count=1)
    disk = rig.disk(limits=Limits(BLOCK, 2 * BLOCK, 4 * BLOCK), splits=splits)
    data = bytes(range(256)) * 12
    disk.device.pwrite(memoryview(data), 0)
    bio = Bio(READ, 3 * BLOCK, view := memoryview(bytearray(3 * BLOCK)))
    assert rig.run(carry_out(disk, bio)) == [] or True
    assert bio.error is None and bytes(view) == data[3 * BLOCK :]
    assert splits.pool.stats().alloc_count == 1, "cut once, where the boundary is"
    splits.close()


def test_a_bio_that_is_not_aligned_is_refused_with_its_numbers() -> None:
    rig = Rig(fine=False)
    disk = rig.disk(late=False, limits=Limits(BLOCK), splits=rig.set_of())
    bio = Bio(READ, 7, memoryview(bytearray(BLOCK)))
    rig.run(carry_out(disk, bio))
    assert isinstance(bio.error, BlockError) and bio.error.errno == errno.EINVAL
    assert "512 bytes at offset 7" in str(bio.error) and "blocks of 512" in str(bio.error)


def test_what_a_layer_raises_is_the_error_of_its_bio_and_the_line_goes_on() -> None:
    rig = Rig(fine=False)

    class Broken(Layer):
        name = "broken"

        def submit(self, bio: Bio, line: Line) -> Plan[None]:
            raise BlockError(5, "broken")
            yield

    ends: list[str] = []
    bio = Bio(READ, 0, memoryview(bytearray(4 * BLOCK)))
    bio.push(lambda bio: ends.append(str(bio.error)))
    log: list[str] = []
    rig.run(submit(Two(Broken(), Log("other", rig.disk(late=False), log)), bio))
    assert log == ["other 3"] and ends == ["[Errno 5] broken"]


def test_a_cancelled_submission_completes_what_was_not_passed_on() -> None:
    class Waits(Layer):
        name = "waits"

        def submit(self, bio: Bio, line: Line) -> Plan[None]:
            yield from park(Ticket("for ever"))

    ends: list[BaseException | None] = []
    bio = Bio(WRITE, 0, memoryview(bytearray(4 * BLOCK)))
    bio.push(lambda bio: ends.append(bio.error))
    plan = step(submit(Two(Waits(), Waits()), bio))
    plan.to_park()
    with pytest.raises(KeyboardInterrupt):
        plan.throw(KeyboardInterrupt())
    [error] = ends
    assert isinstance(error, BlockError) and error.errno == errno.ECANCELED


def test_a_cancelled_wait_leaves_the_bio_to_come_home_by_itself() -> None:
    rig = Rig(fine=False)
    home = rig.set_of(min_count=1)
    held: list[Bio] = []

    class Holds(Layer):
        name = "holds"

        def submit(self, bio: Bio, line: Line) -> None:
            held.append(bio)

    bio = home.try_alloc() or Bio()
    plan = step(carry_out(Holds(), bio.aim(READ, 0, memoryview(bytearray(8)), 8)))
    plan.to_park()
    with pytest.raises(KeyboardInterrupt):
        plan.throw(KeyboardInterrupt())
    assert home.pool.outstanding == 1, "the device may still write to its memory"
    held[0].complete()
    home.close()
