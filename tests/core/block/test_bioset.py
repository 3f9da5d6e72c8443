"""A set never fails; with a rescuer it does not wait for what its own caller has queued."""

from __future__ import annotations

import pytest

from headway.core.block.bio import READ, Bio
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.errors import PoolBusy, UsageError
from tests.core.block.rig import BLOCK, Log, Rig, Splitter, read
from tests.steps import step


def test_t54_e_rescue_hangs_without_a_rescuer() -> None:
    """One driver that cuts a bio in three, a set of two: the third waits for what it has queued."""
    rig = Rig()
    stuck = rig.run(read(Splitter(rig.disk(), rig.set_of("B")), 0, 3 * BLOCK))
    assert [task.ticket.who for task in stuck if task.name == "task 0"] == ["task 0"]


@pytest.mark.parametrize("seed", range(25))
def test_t54_e_rescue_ends_with_a_rescuer(seed: int) -> None:
    """Many tasks, many cuts, two bios, and the work queue of the rescuer at its smallest."""
    rig = Rig(seed)
    rescuer = rig.workers("rescue", limit=1, rescuer=True)
    bios = rig.set_of("B", rescuer=rescuer)
    top = Splitter(rig.disk(), bios)
    stuck = rig.run(*(read(top, n * BLOCK, 4 * BLOCK) for n in range(4)))
    assert not any(task.name.startswith("task") for task in stuck)
    assert bios.punted > 0
    bios.close()


@pytest.mark.parametrize("seed", range(15))
def test_t54_levels_with_a_set_each_never_wait_for_each_other(seed: int) -> None:
    """Splitters above splitters, every reserve at one bio, allocators that give nothing more."""
    rig = Rig(seed)
    top: Layer = rig.disk()
    sets = []
    for level in range(4):
        rescuer = rig.workers(f"rescue {level}", limit=1, rescuer=True)
        sets.append(rig.set_of(f"B{level}", min_count=1, rescuer=rescuer))
        top = Splitter(top, sets[-1], f"S{level}")
    stuck = rig.run(*(read(top, n * BLOCK, 4 * BLOCK) for n in range(3)))
    assert not any(task.name.startswith("task") for task in stuck)
    for bios in sets:
        bios.close()


def test_t54_only_bios_of_the_same_set_are_punted_in_their_order() -> None:
    rig = Rig()
    rescuer = rig.workers("rescue", rescuer=True)
    mine, other = rig.set_of("mine", min_count=3, rescuer=rescuer), rig.set_of("other")
    log: list[str] = []
    low = Log("low", rig.disk(late=False), log)
    line = Line()
    bios = [step(its.alloc()).finish() for its in (mine, other, mine, mine)]
    for number, bio in enumerate(bios):
        view = memoryview(bytearray(BLOCK))
        line.send(bio.aim(READ, number * BLOCK, view, BLOCK), low)
        bio.push(lambda bio: bio.home.free(bio) or True)
    plan = step(mine.alloc(line))
    plan.to_park()
    assert len(line) == 1 and line.take_from(other) == [(low, bios[1])]
    assert mine.punted == 3
    rig.run()
    assert log == ["low 0", "low 2", "low 3"]
    assert plan.finish() is bios[0]


def test_several_at_once_are_all_or_nothing() -> None:
    rig = Rig()
    bios = rig.set_of(min_count=2)
    one = step(bios.alloc()).finish()
    pair = step(bios.alloc_many(2))
    pair.to_park()
    assert bios.pool.reserve_count == 1, "nothing is held while it waits"
    bios.free(one)
    assert len(pair.finish()) == 2
    with pytest.raises(UsageError):
        step(bios.alloc_many(3))


def test_extra_bios_are_used_before_the_reserve_and_are_bounded() -> None:
    rig = Rig()
    bios = rig.set_of(min_count=2, extra=3)
    taken = [bios.try_alloc() for _ in range(6)]
    assert [bio is not None for bio in taken] == [True] * 5 + [False]
    for bio in taken[:5]:
        bios.free(bio)
    assert bios.pool.reserve_count == 2
    bios.pool.inject(lambda: True)
    assert [bios.try_alloc() is not None for _ in range(3)] == [True, True, False]
    with pytest.raises(PoolBusy):
        bios.close()


def test_a_bio_of_another_set_is_refused() -> None:
    rig = Rig()
    with pytest.raises(AssertionError, match="is not of"):
        rig.set_of("a").free(Bio(home=rig.set_of("b")))
