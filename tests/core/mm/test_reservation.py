"""T3.4 and T3.5: admission is yes or wait; clean data lies in what is promised, dirty data never does."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import BackedMempool
from headway.core.mm.reservation import Reservations, Reserve, check_sum
from headway.core.plan import Runtime
from headway.errors import PoolBusy, PoolTimeout, UsageError
from headway.runtimes.simulator import Option, Simulator
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import LOW, MIN, PAGE, PAGES, Memory, cached
from tests.core.mm.slabs import Pages
from tests.steps import step

MOST = PAGES - MIN


def make(runtime: Runtime = THREADS, order: int = 0) -> tuple[Memory, Reservations[memoryview]]:
    memory = Memory(runtime)
    made: Reservations[memoryview] = Reservations(
        memory.path, runtime=runtime, memory=Pages(), order=order, name="r"
    )
    return memory, made


def filled(memory: Memory, **options: Any) -> ShrinkableCache[Any, Any]:
    """A cache with all that clean data may have."""
    cache = cached(memory, **options)
    key = 0
    while memory.zone._room_for_clean() > LOW:
        assert cache.put(key, PAGE)
        key += 1
    return cache


def promised(of: Reservations[memoryview], count: int, **options: Any) -> Reserve[memoryview]:
    node = of.try_reserve(count, **options)
    assert node is not None
    return node


def test_t34_admission_is_yes_or_wait_at_once_and_the_sum_is_exact() -> None:
    memory, of = make()
    memory.fill(PAGES - 20)
    assert of.try_reserve(MOST - 20 + 1) is None
    node = promised(of, MOST - 20)
    assert of.try_reserve(1) is None
    assert promised(of, 0).total == 0
    with pytest.raises(UsageError, match="the zone can promise 112"):
        of.try_reserve(MOST + 1)
    check_sum(of, [node])


def test_t34_what_is_promised_is_nobody_elses() -> None:
    memory, of = make()
    node = promised(of, 50)
    memory.fill(0)
    assert len(memory.held) == PAGES - 50
    views = [node.draw() for _ in range(50)]
    assert len({id(view) for view in views}) == 50
    with pytest.raises(UsageError, match="all 50 buffers that were promised are drawn"):
        node.draw()
    for view in views:
        node.free(view)
    check_sum(of, [node])
    memory.zone.check_invariants()


def test_t34_a_draw_drops_clean_data_and_does_not_take_a_page_of_another_floor() -> None:
    """Pages of the other floor are free in fact, and its own all the same."""
    memory, of = make()
    other = memory.zone.share(1, 2, name="two runs of two pages")
    node = promised(of, 1)
    cache = cached(memory)
    assert cache.put("clean", PAGE)
    memory.fill(0)
    drawn = node.draw()
    assert "clean" not in cache and of.lent_back == 1
    memory.zone.check_invariants()
    runs = [other.alloc(Gfp.NOWAIT) for _ in range(2)]
    assert None not in runs and memory.zone.stats().held_pages == PAGES
    node.free(drawn)


def test_t34_clean_data_lies_in_what_is_promised_and_is_dropped_without_io_at_a_draw() -> None:
    memory, of = make()
    wrote: list[Any] = []
    node = promised(of, 50)
    cache = filled(memory, write_back=lambda key, value: wrote.append(key))
    memory.zone.check_invariants()
    assert memory.zone.stats().clean_pages == PAGES - LOW, "idle promises cost nothing"
    assert memory.share.light(Gfp.NOWAIT) is None
    assert memory.share.alloc(Gfp.NOWAIT) is not None, "nobody else pays for what is lent"
    views = [node.draw() for _ in range(50)]
    assert of.lent_back > 0 and not wrote
    assert memory.zone.stats().free_pages >= 0
    memory.zone.check_invariants()
    check_sum(of, [node])
    for view in views:
        node.free(view)
    cache.close()


def test_t34_dirty_data_is_kept_out_and_written_through() -> None:
    memory, of = make()
    wrote: list[Any] = []
    node = promised(of, MOST - 3)
    cache = cached(memory, write_back=lambda key, value: wrote.append(key))
    kept = [cache.put(key, PAGE, dirty=True) for key in range(10)]
    assert kept == [True] * 3 + [False] * 7
    assert wrote == list(range(3, 10))
    assert memory.zone.stats().dirty_pages == 3
    cache.check_invariants()
    memory.zone.check_invariants()
    memory.fill(MIN)
    for _ in range(MOST - 3):
        node.draw()
    check_sum(of, [node])


def test_t34_dirty_data_that_was_there_first_is_waited_for() -> None:
    memory, of = make()
    cache = cached(memory, write_back=lambda key, value: None)
    for key in range(20):
        assert cache.put(key, PAGE, dirty=True)
    wait = step(of.reserve_plan(MOST - 5, "j", "T", None, None))
    wait.to_park()
    cache.flush()
    wait.answer(True)
    assert isinstance(wait.finish(), Reserve)
    cache.check_invariants()


def test_t34_waiters_are_served_in_order_of_arrival() -> None:
    _, of = make()
    first = promised(of, MOST)
    large = step(of.reserve_plan(60, "large", "L", None, None))
    small = step(of.reserve_plan(1, "small", "S", None, None))
    assert large.to_park() is not small.to_park()
    assert of.try_reserve(0) is None, "newcomers queue"
    first.release()
    ticket = small.to_park()
    small.answer(ticket.woken)
    small.to_park()
    large.answer(True)
    assert large.finish().total == 60
    small.answer(True)
    assert small.finish().total == 1
    assert repr(of) == "<Reservations 'r': 61 x 4KiB promised, 0 drawn, 0 waiting>"


def test_a_cancelled_waiter_lets_the_next_one_pass() -> None:
    _, of = make()
    promised(of, MOST - 5)
    large = step(of.reserve_plan(60, "large", "L", None, None))
    small = step(of.reserve_plan(5, "small", "S", None, None))
    large.to_park()
    ticket = small.to_park()
    with pytest.raises(KeyboardInterrupt):
        large.throw(KeyboardInterrupt())
    assert ticket.woken
    small.answer(True)
    assert small.finish().total == 5


def test_a_wait_ends_at_its_time() -> None:
    _, of = make()
    promised(of, MOST)
    wait = step(of.reserve_plan(2, "late", "T", None, 3.0))
    wait.to_park(now_s=10.0)
    wait.answer(False)
    with pytest.raises(PoolTimeout, match="2 for 'late' were not promised in"):
        wait.answer(13.0)
    assert of.try_reserve(0) is not None, "the line is empty again"


def test_a_tree_promises_the_sum_of_its_parts() -> None:
    _, of = make()
    device = promised(of, 10, name="network")
    sockets = device.child(20, "sockets")
    one = sockets.try_child(5, "one")
    assert one is not None
    assert (device.total, sockets.total, of.share.floor_count) == (35, 25, 35)
    assert device.try_child(MOST - 35 + 1, "too much") is None
    assert device.total == 35, "what was refused is not in the sum"
    view = one.draw()
    with pytest.raises(PoolBusy, match="parts open: 'sockets'"):
        device.release()
    one.release()
    assert (one.total, device.total) == (1, 31), "what is drawn is promised till it comes home"
    one.free(view)
    one.release()
    sockets.release()
    assert (device.total, device.children) == (10, ())
    check_sum(of, [device])
    device.release()
    of.close()


def test_close_needs_all_promises_released() -> None:
    _, of = make()
    node = promised(of, 3)
    with pytest.raises(PoolBusy, match="3 buffers promised"):
        of.close()
    node.release()
    of.close()
    assert of.closed


def test_wrong_frees_are_refused() -> None:
    _, of = make()
    node = promised(of, 1)
    view = node.draw()
    with pytest.raises(UsageError, match="was not drawn from here"):
        node.free(view[1:])
    node.free(view)
    with pytest.raises(UsageError, match="was not drawn from here"):
        node.free(view)


def test_a_mempool_over_a_reserve() -> None:
    memory, of = make(order=1)
    node = promised(of, 4)
    filled(memory)
    pool = BackedMempool[memoryview](node, min_count=2, runtime=THREADS, name="p")
    held = [pool.alloc() for _ in range(4)]
    assert pool.try_alloc() is None
    for view in held:
        pool.free(view)
    pool.close()
    check_sum(of, [node])


def test_t35_what_lies_idle_is_measured_for_both_designs() -> None:
    """A mempool's reserve is held; a reservation's is lent to clean data."""
    memory, of = make()
    promised(of, 40)
    filled(memory)
    lent = memory.zone.stats()
    other = Memory()
    held = [other.share.take(0) for _ in range(40)]
    filled(other)
    pooled = other.zone.stats()
    assert None not in held
    assert (lent.clean_pages, pooled.clean_pages) == (PAGES - LOW, PAGES - LOW - 40)


def test_reservers_and_a_cache_run_together_in_the_simulator() -> None:
    """Every promise is kept, whoever goes first."""
    for seed in range(30):
        state = [seed * 2654435761 % 2**32 or 1]

        def choose(options: list[Option], state: list[int] = state) -> int:
            state[0] = (state[0] * 1103515245 + 12345) % 2**31
            return (state[0] >> 8) % len(options)

        simulator = Simulator(choose)  # type: ignore[arg-type]
        memory, of = make(simulator)
        cache = cached(memory, simulator, write_back=lambda key, value: None)
        done: list[str] = []

        def worker(name: str, count: int, of: Any = of, done: Any = done) -> Any:
            for _ in range(3):
                node = yield from of.reserve_plan(count, name, name)
                views = []
                for _ in range(count):
                    views.append((yield from node.draw_plan(0, name)))
                for view in views:
                    node.free(view)
                node.release()
            done.append(name)

        def dirtier(cache: Any = cache, done: Any = done) -> Any:
            for key in range(60):
                yield from cache.put_plan(key, PAGE, key % 2 == 0, 0, "W")
            yield from cache.flush_plan(0)
            cache._dirtied.stop()
            done.append("W")

        for number, count in enumerate((70, 60, 40)):
            simulator.start(worker(f"T{number}", count), f"T{number}")
        simulator.start(dirtier(), "W")
        assert simulator.go(200_000) == []
        simulator.check_ended()
        assert sorted(done) == ["T0", "T1", "T2", "W"]
        memory.zone.check_invariants()
        check_sum(of, [])
