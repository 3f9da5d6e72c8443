"""The buffer cache: the order of tries, who gets what, and what an error does; stepped and simulated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from headway.core.block import attempts
from headway.core.block.bufio import BufferCache
from headway.core.mm.gfp import Gfp
from headway.core.plan import Call, Offload, Plan, Ticket, park
from headway.errors import BlockError, PoolBusy, PoolClosed, UsageError
from headway.runtimes.simulator import Option, Simulator
from tests.core.block.cache_rig import BLOCK, Disk, Frames, load, make, store
from tests.steps import step


def simulator(seed: int | None = None) -> Simulator:
    chance = random.Random(seed)

    def choose(options: Sequence[Option]) -> int:
        return 0 if seed is None else chance.randrange(len(options))

    return Simulator(choose)


def run(plan: Plan[Any]) -> Any:
    """A plan that waits for nobody."""
    return step(plan).finish()


def together(sim: Simulator, *plans: Plan[Any]) -> list[Any]:
    """Run plans beside each other; their results, or what they raised."""
    tasks = [sim.start(plan, f"task {number}") for number, plan in enumerate(plans)]
    sim.go()
    assert all(task.done for task in tasks), [task for task in tasks if not task.done]
    return [task.failure or task.result for task in tasks]


def hold(cache: Any, block: int, turns: int = 1) -> Plan[int]:
    """Read a block, hold it while others go on, and give its value."""
    buffer = yield from cache.read_plan(block)
    for _ in range(turns):
        ticket = Ticket("a turn")
        ticket.wake()
        yield from park(ticket)
    value = buffer.view[0]
    cache.release(buffer)
    return int(value)


# -- T7.2, T7.3: the order of tries ---------------------------------------------------------------------


def test_t72_the_order_is_nowait_noio_reserve_clean_dirty_wait() -> None:
    cache, disk, _ = make(simulator(), 3)
    held = [run(cache.read_plan(n)) for n in range(2)]  # two frames; the reserve has the third
    said: list[str] = []
    cache.attempt = said.append
    held.append(run(cache.read_plan(2)))
    assert said == ["nowait", "noio", "reserve"] and cache.stats().reserve_lacking == 1
    cache.release(held.pop())
    said.clear()
    assert run(load(cache, 3)) == 0
    assert said == ["nowait", "noio", "reserve", "clean"]
    run(store(cache, 3, 7))
    said.clear()
    assert run(load(cache, 4)) == 0
    assert said == ["nowait", "noio", "reserve", "clean", "dirty"]
    assert disk.value(3) == 7
    held.append(run(cache.read_plan(4)))
    said.clear()
    waiting = step(cache.read_plan(5))
    waiting.to_park()
    assert said == ["nowait", "noio", "reserve", "clean", "dirty", "wait"]
    cache.release(held.pop())
    assert waiting.finish().block == 5


def test_t72_what_each_try_may_do_and_that_no_guard_is_held() -> None:
    cache, _, memory = make(simulator(), 1)
    memory.masks.clear()
    memory.before = lambda door: cache.guard.held and pytest.fail(f"{door} under the guard")
    plan = step(cache.read_plan(0))
    light, heavy = memory.light, memory.alloc
    assert isinstance(plan.request, Call) and plan.request.effect == light
    plan.effect()
    assert isinstance(plan.request, Offload) and plan.request.effect == heavy
    plan.effect()
    extra = Gfp.NORETRY | Gfp.NOMEMALLOC | Gfp.NOWARN
    assert memory.masks == [Gfp.KSWAPD_RECLAIM | extra, Gfp.NOIO | extra]
    cache.release(plan.finish())


def test_t72_a_prefetch_stops_after_nowait() -> None:
    cache, disk, _ = make(simulator(), 3)
    said: list[str] = []
    cache.attempt = said.append
    run(cache.prefetch_plan(0, 8))
    assert said == ["nowait"] * 3 and cache.stats().reserve == 1
    assert cache.get(0) is None and not disk.log, "it is read by the keeper, or by whoever needs it"
    assert run(load(cache, 0)) == 0 and len(disk.log) == 1


def test_t73_no_second_noio_try_and_the_released_buffer_is_received() -> None:
    cache, _, memory = make(simulator(), 1)
    first = run(cache.read_plan(0))
    frame = first.frame
    waiters = [step(cache.read_plan(n)) for n in (1, 2)]
    for waiter in waiters:
        waiter.to_park()
    memory.masks.clear()
    memory.left = 1  # there is memory now, and nobody asks for it
    cache.release(first)
    newcomer = step(cache.read_plan(3))
    newcomer.answer(None)  # nor does the newcomer find what was released
    newcomer.answer(None)
    newcomer.to_park()
    got = waiters[0].finish()
    assert got.block == 1 and got.frame is frame and memory.masks == []
    cache.release(got)
    second = waiters[1].finish()
    assert second.frame is frame, "in order of arrival"
    cache.release(second)
    assert newcomer.finish().block == 3


def test_memory_that_comes_back_is_asked_for_by_the_first_in_line() -> None:
    cache, _, memory = make(simulator(), 1)
    held = run(cache.read_plan(0))
    waiters = [step(cache.read_plan(n)) for n in (1, 2)]
    for waiter in waiters:
        waiter.to_park()
    cache.supply.kick()
    waiters[0].answer(True)
    waiters[0].to_park()  # in vain; it has kept its place
    memory.left = 1
    cache.supply.kick()
    got = waiters[0].finish()
    cache.release(got)
    cache.release(waiters[1].finish())
    cache.release(held)


def test_a_waiter_that_is_cancelled_hands_on_what_it_was_given() -> None:
    cache, _, _ = make(simulator(), 1)
    held = run(cache.read_plan(0))
    first, second = step(cache.read_plan(1)), step(cache.read_plan(2))
    first.to_park(), second.to_park()
    cache.release(held)
    with pytest.raises(KeyboardInterrupt):
        first.throw(KeyboardInterrupt())
    cache.release(second.finish())
    assert cache.stats().waiting == 0


# -- T7.4, T7.5 --------------------------------------------------------------------------------------------


def test_t74_two_threads_miss_and_one_buffer_survives() -> None:
    cache, disk, memory = make(simulator(), 4)
    one, two = (
        step(cache.read_plan(7)),
        step(cache.read_plan(7)),
    )  # both have looked, and ask for memory
    first = one.finish()
    left = memory.left
    second = two.finish()
    assert first is second and first.held == 2
    assert memory.left == left, "the memory that came too late went back"
    assert disk.requests("read") == [("read", 7 * BLOCK, BLOCK)]


@pytest.mark.parametrize("seed", range(30))
def test_t74_in_every_order(seed: int) -> None:
    sim = simulator(seed)
    cache, disk, _ = make(sim, 4)
    disk.fill(7, 9)
    assert together(sim, *(load(cache, 7) for _ in range(4))) == [9] * 4
    assert len(cache.blocks) == 1 and len(disk.requests("read")) == 1
    cache.check_invariants()


def test_t75_get_during_a_read_gives_none() -> None:
    cache, disk, _ = make(simulator(), 4)
    disk.held = []
    reader = step(cache.read_plan(3))
    reader.to_park()
    assert cache.get(3) is None and 3 in cache.blocks
    disk.let_go()
    reader.finish()
    found = cache.get(3)
    assert found is not None and found.held == 2
    assert cache.get(4) is None


def test_a_reader_that_is_cancelled_leaves_a_block_that_others_get() -> None:
    cache, disk, _ = make(simulator(), 4)
    disk.fill(3, 8)
    disk.held = []
    reader, other = step(cache.read_plan(3)), step(load(cache, 3))
    reader.to_park(), other.to_park()
    with pytest.raises(KeyboardInterrupt):
        reader.throw(KeyboardInterrupt())
    disk.let_go()
    assert other.finish() == 8


# -- T7.6, T7.7: dirty -------------------------------------------------------------------------------------


def test_t76_the_dirty_range_is_a_hull_and_writes_are_aligned() -> None:
    sim = simulator()
    disk = Disk(4)
    cache = BufferCache(disk, Frames(4, 4 * BLOCK), 4 * BLOCK, runtime=sim)
    buffer = run(cache.read_plan(0))
    buffer.mark_dirty(5000, 5001)
    assert (buffer.dirty_start, buffer.dirty_end) == (5000, 5001)
    buffer.mark_dirty(9000, 9100)
    assert (buffer.dirty_start, buffer.dirty_end) == (5000, 9100)
    buffer.mark_dirty(6000, 6001)
    assert (buffer.dirty_start, buffer.dirty_end) == (5000, 9100)
    run(cache.write_dirty_plan())
    assert disk.requests("write") == [("write", 4096, 8192)]
    buffer.mark_dirty(0, 1)
    run(cache.write_dirty_plan())
    assert disk.requests("write")[1:] == [("write", 0, 4096)]
    for start, end in ((-1, 4), (4, 4), (0, 4 * BLOCK + 1)):
        with pytest.raises(UsageError):
            buffer.mark_dirty(start, end)
    cache.release(buffer)
    with pytest.raises(UsageError, match="does not hold"):
        buffer.mark_dirty()


def test_the_last_block_may_be_short() -> None:
    disk = Disk(size=BLOCK + 1000)
    disk.device.pwrite(memoryview(b"x" * 1000), BLOCK)
    cache, _, _ = make(simulator(), 4, disk)
    buffer = run(cache.read_plan(1))
    assert bytes(buffer.view) == b"x" * 1000 + bytes(BLOCK - 1000)
    buffer.view[999:1001] = b"yz"
    buffer.mark_dirty(999, 1001)
    run(cache.write_dirty_plan())
    assert disk.requests("write") == [("write", BLOCK, 1000)]
    with pytest.raises(UsageError, match="2 blocks"):
        run(cache.read_plan(2))


def test_a_block_dirtied_while_it_is_written_is_written_again() -> None:
    cache, disk, _ = make(simulator(), 4)
    disk.held = []
    buffer = run(cache.read_plan(0, fresh=True))
    buffer.view[:] = b"a" * BLOCK
    buffer.mark_dirty()
    first = step(cache.write_dirty_plan())
    first.to_park()
    buffer.view[:] = b"b" * BLOCK
    buffer.mark_dirty(0, 10)
    assert buffer.writing and buffer.dirty
    second = step(cache.write_dirty_plan())
    second.to_park()
    assert len(disk.held) == 1, "never two writes of one buffer"
    disk.let_go()
    first.finish(), second.finish()
    assert disk.value(0) == ord("b") and not buffer.dirty and buffer in cache.clean_clock


# -- T7.11, T7.12: errors, progress --------------------------------------------------------------------------


def test_t711_a_write_error_is_stored_and_returned_once() -> None:
    cache, disk, _ = make(simulator(), 4)
    disk.bad = lambda bio: bio.op.value == "write"
    run(store(cache, 1, 5))
    with pytest.raises(BlockError, match="the rig let it fail"):
        run(cache.write_dirty_plan())
    run(cache.write_dirty_plan())
    assert 1 not in cache.blocks, "what could not be written is not kept as if it were"
    assert run(load(cache, 1)) == 0
    disk.bad = lambda bio: bio.op.value == "flush"
    with pytest.raises(BlockError):
        run(cache.flush_plan())


def test_t711_an_error_of_eviction_is_heard_by_write_dirty() -> None:
    cache, disk, _ = make(simulator(), 1)
    disk.bad = lambda bio: bio.op.value == "write"
    run(store(cache, 1, 5))
    assert run(load(cache, 2)) == 0, "the reader of another block gets its memory"
    with pytest.raises(BlockError):
        run(cache.write_dirty_plan())
    run(cache.write_dirty_plan())


def test_t711_a_read_error_goes_to_all_who_wait_and_to_nobody_after() -> None:
    sim = simulator(3)
    cache, disk, memory = make(sim, 4)
    disk.bad = lambda bio: len(disk.log) == 1
    ends = together(sim, *(load(cache, 5) for _ in range(3)))
    assert any(isinstance(end, BlockError) for end in ends)
    assert run(load(cache, 5)) == 0
    assert memory.left == 2 and len(cache.blocks) == 1


def test_a_held_block_that_could_not_be_written_goes_with_its_last_holder() -> None:
    cache, disk, _ = make(simulator(), 4)
    disk.bad = lambda bio: bio.op.value == "write"
    buffer = run(cache.read_plan(1, fresh=True))
    buffer.view[:] = b"z" * BLOCK
    buffer.mark_dirty()
    with pytest.raises(BlockError):
        run(cache.write_dirty_plan())
    assert cache.get(1) is buffer, "its holders still share it"
    cache.release(buffer)
    buffer.mark_dirty()
    disk.bad = lambda bio: False
    run(cache.write_dirty_plan())
    assert disk.value(1) == ord("z"), "marked again, it is tried again"
    cache.release(buffer)


@pytest.mark.parametrize("seed", range(20))
def test_t712_a_reserve_of_one_and_n_tasks_with_one_buffer_each_all_progress(seed: int) -> None:
    sim = simulator(seed)
    cache, disk, memory = make(sim, 1)
    memory.fails = True
    for block in range(8):
        disk.fill(block, block + 1)
    plans = [hold(cache, n % 8) for n in range(12)] + [
        store(cache, n, 50 + n) for n in range(8, 12)
    ]
    ends = together(sim, *plans)
    assert ends[:12] == [n % 8 + 1 for n in range(12)]
    run(cache.write_dirty_plan())
    assert [disk.value(n) for n in range(8, 12)] == [58, 59, 60, 61]
    cache.check_invariants()
    together(sim, cache.close_plan())
    assert memory.left == 1


def test_r3_a_second_buffer_while_the_first_is_held_waits_for_itself() -> None:
    """The absence of the promise: who breaks the rule hangs."""
    cache, _, _ = make(simulator(), 1)
    run(cache.read_plan(0))
    step(cache.read_plan(1)).to_park()


# -- the rest ---------------------------------------------------------------------------------------------------


def test_forget_drops_only_what_is_unheld_clean_and_idle() -> None:
    cache, disk, _ = make(simulator(), 8)
    held = run(cache.read_plan(0))
    run(load(cache, 1)), run(store(cache, 2, 3))
    cache.forget(0, 4)
    assert sorted(cache.blocks) == [0, 2]
    cache.release(held)
    cache.forget(0)
    assert sorted(cache.blocks) == [2]
    assert len(disk.log) == 2


def test_closing_writes_everything_and_gives_all_memory_back() -> None:
    cache, disk, memory = make(simulator(), 4)
    run(store(cache, 1, 5)), run(load(cache, 2))
    run(cache.close_plan())
    assert disk.value(1) == 5 and memory.left == 4
    run(cache.close_plan())
    with pytest.raises(PoolClosed):
        run(cache.read_plan(1))


def test_closing_with_held_buffers_says_so_and_wakes_who_waits() -> None:
    cache, _, _ = make(simulator(), 1)
    held = run(cache.read_plan(1))
    waiting = step(cache.read_plan(2))
    waiting.to_park()
    with pytest.raises(PoolBusy, match="1 buffers held"):
        run(cache.close_plan())
    with pytest.raises(PoolClosed):
        waiting.finish()
    cache.release(held)
    with pytest.raises(UsageError, match="more often"):
        cache.release(held)


def test_attempts_are_told_only_if_somebody_asked() -> None:
    cache, _, _ = make(simulator(), 2)
    assert cache.attempt is None
    frame = run(attempts.take(cache))
    cache.supply.put(frame)
