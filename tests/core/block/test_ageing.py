"""What the keeper does: write-back, ageing, limits, shrinking, reading ahead. In virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.block.ageing import CANNOT, TICK_S, BufferLimit
from headway.core.block.bufio import BufferCache
from headway.core.mm.gfp import Gfp
from headway.core.plan import Plan, Ticket, park
from headway.runtimes.simulator import Simulator
from headway.runtimes.threads import THREADS
from tests.core.block.cache_rig import BLOCK, Disk, Frames, load, make, store
from tests.steps import step


def run(plan: Plan[Any]) -> Any:
    return step(plan).finish()


class Control:
    def __init__(self, scan_count: int) -> None:
        self.scan_count = self.scanned = scan_count
        self.gfp = Gfp.NOIO


def pause(seconds: float) -> Plan[None]:
    yield from park(Ticket("a pause"), seconds)


def lived(cache: BufferCache, sim: Simulator, *steps: Plan[Any]) -> None:
    """With the keeper at work: one step after the other, then the end."""

    def life() -> Plan[None]:
        yield from cache.start()
        for one in steps:
            yield from one

    task = sim.start(life(), "life")
    for _ in range(100_000):
        if task.done or not (options := sim.options()):
            break
        sim.take(options[0])
        cache.check_invariants()
    assert task.done and task.failure is None, task.failure


def plain(effect: Any, *args: Any) -> Plan[None]:
    effect(*args)
    return
    yield


def expect(cache: BufferCache, blocks: list[int]) -> Plan[None]:
    return plain(lambda: sorted(cache.blocks) == blocks or pytest.fail(f"{sorted(cache.blocks)}"))


@pytest.mark.parametrize(("dirty", "due"), [(6, False), (7, True)])
def test_t77_write_back_starts_above_three_dirty_for_each_clean(dirty: int, due: bool) -> None:
    cache, disk, _ = make(Simulator(lambda options: 0), 16)
    cache.keeper.running = True
    for block in range(2):
        run(load(cache, 32 + block))
    for block in range(dirty):
        run(store(cache, 2 * block, 1))
    cache.keeper.look(cache)
    assert cache.keeper._write_due is due  # exactly three for each is not above it
    assert not disk.requests("write"), "nobody was held up"


def test_t77_the_keeper_writes_back() -> None:
    sim = Simulator(lambda options: 0)
    cache, disk, _ = make(sim, 16)
    lived(cache, sim, *(store(cache, 2 * n, n + 1) for n in range(4)), pause(1.0))
    assert [disk.value(2 * n) for n in range(4)] == [1, 2, 3, 4]
    assert cache.stats().dirty == 0


def test_t79_old_clean_buffers_go_down_to_what_is_retained() -> None:
    sim = Simulator(lambda options: 0)
    cache, _, memory = make(sim, 16, keeping={"max_age_s": 100.0, "retain_bytes": 2 * BLOCK})
    lived(
        cache, sim,
        *(load(cache, n) for n in range(6)),
        pause(60.0), load(cache, 0), expect(cache, [0, 1, 2, 3, 4, 5]),
        pause(90.0), expect(cache, [0, 5]),
    )  # fmt: skip
    assert memory.left == 16 - 1 - 2 and sim.clock_s == pytest.approx(150.0)


def test_t79_young_and_dirty_ones_stay_and_nothing_is_written() -> None:
    sim = Simulator(lambda options: 0)
    cache, disk, _ = make(sim, 16, keeping={"max_age_s": 100.0, "retain_bytes": 0})
    lived(cache, sim, load(cache, 0), load(cache, 1), store(cache, 2, 1), pause(TICK_S * 3),
          expect(cache, [0, 1, 2]), pause(TICK_S * 3), expect(cache, [2]))  # fmt: skip
    assert not disk.requests("write")


def test_t79_a_limit_over_two_caches_with_hysteresis() -> None:
    sim = Simulator(lambda options: 0)
    limit = BufferLimit(32 * BLOCK)
    caches = [
        BufferCache(Disk(64), Frames(64), BLOCK, runtime=sim, name=name, keeping={"limit": limit})
        for name in "ab"
    ]
    old, young = caches
    for block in range(20):
        run(load(old, block))
    sim.clock_s = 5.0
    for block in range(10):
        run(load(young, block))
    assert limit.total == 32 * BLOCK and not limit.exceeded  # each has one in reserve
    run(load(young, 10))
    assert limit.exceeded
    limit.shrink()
    assert limit.total == 30 * BLOCK, "down to a sixteenth below"
    assert sorted(old.blocks) == list(range(3, 20)) and len(young.blocks) == 11, "the oldest went"
    run(load(young, 11)), run(load(young, 12))
    assert not limit.exceeded


def test_the_keeper_keeps_the_limit() -> None:
    sim = Simulator(lambda options: 0)
    limit = BufferLimit(16 * BLOCK)
    cache, _, _ = make(sim, 64, keeping={"limit": limit})
    lived(cache, sim, *(load(cache, n) for n in range(40)), pause(1.0))
    assert limit.total <= 16 * BLOCK
    sim.start(cache.close_plan(), "close")
    assert not sim.go() and limit.caches == ()


def test_t71_count_and_scan_never_wait_for_the_guard() -> None:
    cache, _, _ = make(THREADS, 16, keeping={"retain_bytes": 2 * BLOCK})
    for block in range(8):
        THREADS.run(load(cache, block))
    with cache.guard:  # somebody is in a step, and is held up there
        assert cache.keeper.count_objects(Control(0)) == 6
        assert cache.keeper.scan_objects(Control(4)) == CANNOT
    assert cache.keeper.scan_objects(Control(4)) == 4


def test_retained_buffers_are_off_the_count_and_no_scan_takes_them() -> None:
    """The historic bug: with `retain` compared to each scan's rest, every scan freed one."""
    cache, _, _ = make(Simulator(lambda options: 0), 16, keeping={"retain_bytes": 4 * BLOCK})
    for block in range(4):
        run(load(cache, block))
    assert cache.keeper.count_objects(Control(0)) == 0
    for _ in range(8):
        assert cache.keeper.scan_objects(Control(1)) == 0
    assert len(cache.blocks) == 4


def test_a_shrinker_frees_clean_ones_now_and_dirty_ones_soon() -> None:
    sim = Simulator(lambda options: 0)
    cache, disk, memory = make(sim, 16, keeping={"retain_bytes": 0})
    said: list[int] = []
    lived(
        cache, sim,
        *(load(cache, 20 + n) for n in range(3)), *(store(cache, 2 * n, 9) for n in range(4)),
        plain(lambda: said.append(cache.keeper.scan_objects(Control(5)))),
        plain(lambda: said.append(len(disk.requests("write")))),
        pause(1.0),
    )  # fmt: skip
    assert said == [3, 0], "it tells the truth, and does no I/O itself"
    assert len(cache.blocks) == 2 and memory.left == 16 - 1 - 2


def test_t72_prefetched_blocks_are_read_by_the_keeper() -> None:
    sim = Simulator(lambda options: 0)
    cache, disk, _ = make(sim, 16)
    lived(cache, sim, cache.prefetch_plan(4, 4), pause(1.0), cache.prefetch_plan(4, 4), pause(1.0))
    assert len(disk.requests("read")) == 4
    buffer = cache.get(5)
    assert buffer is not None and buffer.held == 1


def test_a_prefetch_that_fails_is_forgotten() -> None:
    sim = Simulator(lambda options: 0)
    cache, disk, memory = make(sim, 16)
    disk.bad = lambda bio: True
    lived(cache, sim, cache.prefetch_plan(4, 2), pause(1.0))
    assert not cache.blocks and memory.left == 15
