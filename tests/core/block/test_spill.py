"""Swap, and values larger than memory: everything comes back, whatever memory does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from headway.core.block.spill import Spill
from headway.core.block.swap import Swap
from headway.core.mm.gfp import Gfp, Scope
from headway.core.plan import Plan
from headway.errors import BlockError, NoMemory, UsageError
from headway.runtimes import scopes
from headway.runtimes.simulator import Option, Simulator
from tests.core.block.cache_rig import BLOCK, Disk, Frames
from tests.steps import step


def build(
    frames: int, slots: int, seed: int | None = None
) -> tuple[Spill, Disk, Frames, Swap, Simulator]:
    chance = random.Random(seed)

    def choose(options: Sequence[Option]) -> int:
        return 0 if seed is None else chance.randrange(len(options))

    sim = Simulator(choose)
    disk, memory = Disk(slots), Frames(frames)
    swap = Swap(disk, BLOCK, runtime=sim, in_flight=1)
    return Spill(swap, memory, runtime=sim, name="store"), disk, memory, swap, sim


def run(plan: Plan[Any]) -> Any:
    return step(plan).finish()


def value(number: int, length: int = 5000) -> memoryview:
    return memoryview(random.Random(number).randbytes(length))


def test_a_mapping_of_four_times_the_zone_with_the_allocator_failing_in_write_out() -> None:
    store, _, memory, swap, _ = build(frames=16, slots=200)
    pages = 0
    for number in range(40):
        memory.fails = number >= 4  # nothing but the store's own frames from now on
        run(store.put_plan(number, value(number, 1 + 397 * number)))
        pages += -(-(1 + 397 * number) // BLOCK)
        store.check_invariants()
    memory.masks.clear()
    assert pages > 4 * 16 and store.stats().spilled > 3 * 16
    for number in random.Random(1).sample(range(40), 40):
        assert bytes(run(store.get_plan(number))) == bytes(value(number, 1 + 397 * number))
        store.check_invariants()
    assert not memory.masks or all(not mask & (Gfp.IO | Gfp.FS) for mask in memory.masks)
    store.close()
    assert memory.left == 16 and swap.used == 0
    swap.close()


def test_one_frame_of_reserve_is_enough_for_a_value_of_any_size() -> None:
    store, _, memory, _, _ = build(frames=1, slots=64)
    memory.fails = True
    run(store.put_plan("big", value(1, 50 * BLOCK + 17)))
    assert bytes(run(store.get_plan("big"))) == bytes(value(1, 50 * BLOCK + 17))


def test_writing_out_takes_no_memory_and_no_bio_but_the_swaps_own() -> None:
    store, disk, memory, swap, sim = build(frames=2, slots=8)
    run(store.put_plan(1, value(1, 2 * BLOCK)))
    memory.fails = True
    memory.masks.clear()
    seen: list[int] = []
    disk.bad = lambda bio: bool(seen.append(scopes.current()))
    assert sim.run(store.spill_plan(2)) == 2
    assert memory.masks == [], "nothing was asked for on the way out"
    assert memory.left == 1, "the other frame is the reserve's"
    assert seen == [int(Scope.NOIO)] * 2
    assert len(swap._bios.pool.at_hand) == 1


def test_a_full_device_refuses_at_once_and_loses_nothing() -> None:
    store, _, memory, swap, _ = build(frames=2, slots=3)
    memory.fails = True
    run(store.put_plan("a", value(1, 2 * BLOCK)))
    with pytest.raises(NoMemory, match="2 of 3 slots of 4KiB are used"):
        run(store.put_plan("b", value(2, 9 * BLOCK)))
    with pytest.raises(NoMemory):
        run(store.put_plan("a", value(3, 9 * BLOCK)))
    assert bytes(run(store.get_plan("a"))) == bytes(value(1, 2 * BLOCK))
    store.check_invariants()
    run(store.put_plan("b", value(2, BLOCK)))
    assert swap.stats().refused > 0


def test_a_page_read_back_and_not_changed_is_not_written_again() -> None:
    store, disk, memory, _, _ = build(frames=1, slots=64)
    memory.fails = True
    for number in range(3):
        run(store.put_plan(number, value(number, BLOCK)))
    run(store.get_plan(0)), run(store.get_plan(1))
    written = len(disk.requests("write"))
    for number in (0, 1, 2, 0, 1):
        assert bytes(run(store.get_plan(number))) == bytes(value(number, BLOCK))
    assert len(disk.requests("write")) == written


def test_slots_of_pages_in_memory_are_given_up_when_they_are_scarce() -> None:
    store, _, memory, _, _ = build(frames=2, slots=4)
    memory.fails = True
    for number in range(4):  # one in its frame, three in slots; the fourth slot is for loading
        run(store.put_plan(number, value(number, BLOCK)))
        for again in range(number + 1):
            assert bytes(run(store.get_plan(again))) == bytes(value(again, BLOCK))
    store.check_invariants()


def test_an_error_is_heard_by_who_asked_and_nothing_is_lost() -> None:
    store, disk, memory, _, _ = build(frames=2, slots=16)
    memory.fails = True
    run(store.put_plan(1, value(1, BLOCK)))
    disk.bad = lambda bio: bio.op.value == "write"
    with pytest.raises(BlockError):
        run(store.put_plan(2, value(2, 3 * BLOCK)))
    disk.bad = lambda bio: False
    assert bytes(run(store.get_plan(1))) == bytes(value(1, BLOCK))
    run(store.put_plan(2, value(2, 3 * BLOCK)))
    disk.bad = lambda bio: bio.op.value == "read"
    with pytest.raises(BlockError):
        run(store.get_plan(2))
    disk.bad = lambda bio: False
    assert bytes(run(store.get_plan(2))) == bytes(value(2, 3 * BLOCK))
    store.check_invariants()


def test_who_is_cancelled_leaves_frame_and_slot_to_the_device() -> None:
    """Given back at once, others would write into a frame that the device still writes to, or from."""
    store, disk, memory, swap, _ = build(frames=2, slots=8)
    for number in (1, 2):
        run(store.put_plan(number, value(number, BLOCK)))
    disk.held = []
    putting = step(store.put_plan(3, value(3, BLOCK)))
    putting.to_park()
    with pytest.raises(KeyboardInterrupt):
        putting.throw(KeyboardInterrupt())
    assert swap.used == 1 and not store.supply.reserve
    disk.let_go()
    store.check_invariants()
    for number in (1, 2):
        assert bytes(run(store.get_plan(number))) == bytes(value(number, BLOCK))
    run(store.put_plan(4, value(4, 3 * BLOCK)))
    disk.held = []
    getting = step(store.get_plan(1))
    getting.to_park()
    with pytest.raises(KeyboardInterrupt):
        getting.throw(KeyboardInterrupt())
    disk.let_go()
    store.check_invariants()
    for number, length in ((1, BLOCK), (2, BLOCK), (4, 3 * BLOCK)):
        assert bytes(run(store.get_plan(number))) == bytes(value(number, length))
    store.close()
    assert memory.left == 2 and swap.used == 0


@pytest.mark.parametrize("seed", range(40))
def test_users_beside_each_other_in_every_order(seed: int) -> None:
    """Each has keys of its own, and all read one that is replaced; with cancellations of none."""
    store, _, memory, swap, sim = build(3, 60, seed)
    memory.fails = True
    run_from = {"shared": value(0, 2 * BLOCK)}
    sim.run(store.put_plan("shared", run_from["shared"]))
    shared = {bytes(value(n, 2 * BLOCK)) for n in range(4)}

    def user(me: int) -> Plan[None]:
        for turn in range(3):
            yield from store.put_plan((me, turn), value(10 * me + turn, 1 + turn * BLOCK))
            found = yield from store.get_plan("shared")
            assert bytes(found) in shared, "pages of two values were mixed"
            yield from store.put_plan("shared", value(me, 2 * BLOCK))
        for turn in range(3):
            found = yield from store.get_plan((me, turn))
            assert bytes(found) == bytes(value(10 * me + turn, 1 + turn * BLOCK))
            store.delete((me, turn))

    def shrink() -> Plan[None]:
        for _ in range(4):
            yield from store.spill_plan(2)

    tasks = [sim.start(user(me), f"user {me}") for me in range(1, 4)] + [
        sim.start(shrink(), "shrink")
    ]
    sim.go()
    for task in tasks:
        assert task.done, f"{task} hangs"
        assert task.failure is None, task.failure
    store.check_invariants()
    store.close()
    assert memory.left == 3 and swap.used == 0


@pytest.mark.parametrize("seed", range(15))
def test_loads_through_the_last_slot_go_one_after_the_other(seed: int) -> None:
    """One frame, and all slots but one used: each page that comes in sends another out."""
    store, _, memory, swap, sim = build(1, 6, seed)
    memory.fails = True
    for number in range(6):
        sim.run(store.put_plan(number, value(number, BLOCK)))
    assert swap.stats().used == 5
    tasks = [sim.start(store.get_plan(number), f"load {number}") for number in (*range(6), 2, 3)]
    sim.go()
    for task, number in zip(tasks, (*range(6), 2, 3), strict=True):
        assert task.failure is None and bytes(task.result) == bytes(value(number, BLOCK))
    store.check_invariants()


def test_what_makes_no_swap_is_refused() -> None:
    for size in (0, 65 * BLOCK):
        with pytest.raises(UsageError):
            Swap(Disk(64), size, runtime=Simulator(lambda options: 0))
    swap = Swap(Disk(2), BLOCK, runtime=Simulator(lambda options: 0))
    first, second = swap.alloc(), swap.alloc()
    with pytest.raises(BlockError, match="is full"):
        swap.alloc()
    swap.free(first)
    assert swap.alloc() == first and second != first and "2 of 2 slots" in repr(swap)
