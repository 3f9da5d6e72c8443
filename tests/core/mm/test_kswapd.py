"""Background reclaim: from low to high, ends by itself, gives up, and is waited for within bounds (T8.4, T8.9)."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from headway.core.mm.gfp import Gfp
from headway.core.mm.kswapd import LINGER_S, MAX_FRUITLESS, NOFS_WAIT_S
from headway.core.mm.oom import Oom
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.plan import Park, Plan, Spawn, Ticket, Unpark, call, park
from headway.runtimes.simulator import Option, Simulator
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import HIGH, LOW, MIN, Cached, Memory
from tests.core.mm.test_shrinker import Things
from tests.steps import Stepper, step

KERNEL = Gfp.KERNEL


def spawned(asked: Stepper[Any]) -> Stepper[Any]:
    """The background plan that a request wants started beside it."""
    assert isinstance(asked.request, Spawn)
    plan = step(asked.request.plan)
    asked.answer()
    return plan


def test_it_is_woken_below_low_works_until_high_and_ends_after_a_second_without_work() -> None:
    memory = Memory()
    cache = Cached(memory.zone.share(0), 60)
    memory.path.reclaim.shrinkers.register(cache, batch=4)
    memory.fill(leave=LOW)
    asked = step(memory.path.alloc(memory.share, KERNEL, 0, "a"))
    background = spawned(asked)
    assert asked.result is not None and memory.kswapd.running
    assert memory.events == ["try 20", "wake", "try 16"]
    idle = background.to_park()
    assert HIGH <= memory.zone.room() < HIGH + 20, "up to high, and not much further"
    assert isinstance(background.request, Park) and background.request.timeout_s == LINGER_S
    memory.fill(leave=LOW)
    again = step(memory.path.alloc(memory.share, KERNEL, 0, "a"))
    assert isinstance(again.request, Unpark) and again.request.ticket is idle, "not spawned again"
    background.answer(True)
    background.to_park()
    assert memory.zone.room() >= HIGH
    background.answer(False)
    assert background.done and not memory.kswapd.running


def test_the_whole_mask_is_its_own_whoever_woke_it() -> None:
    memory = Memory()
    cache = Cached(memory.zone.share(0), 60)
    memory.path.reclaim.shrinkers.register(cache, needs=Gfp.FS)
    memory.fill(leave=LOW)
    asked = step(memory.path.alloc(memory.share, Gfp.NOIO, 0, "a"))
    spawned(asked).to_park()
    assert {control.gfp for control in cache.calls} == {KERNEL}
    assert memory.zone.room() >= HIGH


def test_nothing_to_ask_and_it_is_not_started() -> None:
    memory = Memory()
    memory.fill(leave=LOW)
    assert step(memory.kswapd.wake()).result is False


def test_sixteen_fruitless_runs_and_it_gives_up_until_somebody_has_freed_something() -> None:
    memory = Memory()
    things = Things(100)
    things.answer = STOP
    memory.path.reclaim.shrinkers.register(things)
    memory.fill(leave=MIN)
    for run in range(MAX_FRUITLESS):
        waking = step(memory.kswapd.wake())
        background = spawned(waking)
        background.to_park()
        background.answer(False)
        assert background.done and memory.kswapd.runs == run + 1
    assert memory.kswapd.hopeless
    assert step(memory.kswapd.wake()).result is False
    assert step(memory.kswapd.wait("a", KERNEL)).result is True, "nobody waits for the hopeless"
    things.answer = None
    assert THREADS.run(memory.path.reclaim.direct(KERNEL, 0, "a", 1)) > 0
    assert not memory.kswapd.hopeless and repr(memory.kswapd) == (
        "<Kswapd of 'z': asleep, 16 runs>"
    )


def stuck_background(memory: Memory) -> tuple[Stepper[Any], Ticket]:
    """It runs, and waits inside a shrinker for the ticket."""
    ticket = Ticket("disk")

    class Slow:
        pages: list[PageRun]

        def count_objects(self, control: ScanControl) -> int:
            return 128 if control.who == "kswapd" else 0

        def scan(self, control: ScanControl) -> Plan[int]:
            yield from park(ticket)
            memory.release(20)
            control.scanned = 1000
            return 20

    memory.path.reclaim.shrinkers.register(Slow())
    background = spawned(step(memory.kswapd.wake()))
    assert background.to_park() is ticket
    return background, ticket


@pytest.mark.parametrize(("gfp", "limit"), [(KERNEL, None), (Gfp.NOFS, NOFS_WAIT_S)])
def test_t8_9_in_an_emergency_fs_callers_wait_for_it_and_others_a_second_at_most(
    gfp: Gfp, limit: float | None
) -> None:
    memory = Memory(oom=Oom.FAIL)
    memory.fill(leave=MIN // 2)
    background, disk = stuck_background(memory)
    asked = step(memory.path.alloc(memory.share, gfp, 0, "a"))
    while not isinstance(asked.request, Park):
        asked.effect()
    throttle = asked.request
    assert throttle.timeout_s == limit and memory.events[-1] == "throttle"
    disk.wake()
    background.answer(True)
    background.to_park()
    assert throttle.ticket.woken
    asked.finish()
    assert asked.result is not None and memory.path.throttled == 1


def test_t8_9_above_half_of_min_nobody_is_throttled() -> None:
    memory = Memory()
    memory.fill(leave=MIN // 2 + 1)
    stuck_background(memory)
    asked = step(memory.path.alloc(memory.share, KERNEL | Gfp.NORETRY, 0, "a"))
    asked.finish()
    assert "throttle" not in memory.events and asked.result is None


def test_nobody_waits_for_one_that_is_idle_or_was_stopped() -> None:
    """Between waking it and waiting for it, it may have done all it could."""
    memory = Memory()
    memory.fill(leave=MIN // 2)
    background, disk = stuck_background(memory)
    disk.wake()
    background.answer(True)
    background.to_park()
    assert step(memory.kswapd.wait("a", KERNEL)).result is True, "no run is under way"
    memory.fill(leave=MIN // 2)
    assert step(memory.kswapd.wake()).finish() is True
    late = step(memory.kswapd.wait("a", KERNEL))
    ticket = late.to_park()
    memory.kswapd.stop()
    background.answer(True)
    background.finish()
    assert ticket.woken and background.done and not memory.kswapd.running


@pytest.mark.parametrize("seed", range(40))
def test_t8_4_the_throttled_are_all_released_in_every_order(seed: int) -> None:
    """Requesters in an emergency, and a background that comes and goes: nobody is forgotten."""
    chance = random.Random(seed)
    simulator = Simulator(lambda options: chance.randrange(len(options)), fine=True)
    memory = Memory(simulator)
    memory.fill(leave=MIN // 2)
    cache = Cached(memory.zone.share(0, name="cache"))
    memory.path.reclaim.shrinkers.register(cache, batch=1)

    def user(number: int) -> Plan[None]:
        for _ in range(6):
            yield from memory.path.alloc(memory.share, KERNEL | Gfp.NORETRY, 0, f"user {number}")
            if memory.held and chance.random() < 0.5:
                cached = cache.share.take(0)
                if cached is not None:
                    cache.runs.append(cached)

    for number in range(4):
        simulator.start(user(number), f"user {number}")
    assert simulator.go(100_000) == [], "somebody waits for ever"
    simulator.check_ended()
    assert not memory.kswapd.running and not memory.kswapd._sleepers


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_background_that_dies_wakes_who_waits_for_it_and_can_be_started_again(how: str) -> None:
    memory = Memory()
    memory.fill(leave=MIN // 2)
    background, _ = stuck_background(memory)
    waiting = step(memory.kswapd.wait("a", KERNEL))
    ticket = waiting.to_park()
    if how == "closed":
        background.plan.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            background.throw(KeyboardInterrupt())
    assert ticket.woken and not memory.kswapd.running
    assert isinstance(step(memory.kswapd.wake()).request, Spawn)


def test_a_cancelled_waiter_leaves_no_trace_and_a_failed_spawn_is_no_run() -> None:
    memory = Memory()
    memory.path.reclaim.shrinkers.register(Things(1))
    waking = step(memory.kswapd.wake())
    waiting = step(memory.kswapd.wait("a", KERNEL))
    with pytest.raises(KeyboardInterrupt):
        waiting.throw(KeyboardInterrupt())
    assert not memory.kswapd._sleepers
    with pytest.raises(RuntimeError):
        waking.throw(RuntimeError("can't start new thread"))
    assert not memory.kswapd.running


def test_on_threads_it_is_a_thread_and_stop_ends_it() -> None:
    memory = Memory()
    cache = Cached(memory.zone.share(0), 60)
    memory.path.reclaim.shrinkers.register(cache)
    memory.fill(leave=LOW)
    before = set(threading.enumerate())
    assert THREADS.run(memory.path.alloc(memory.share, KERNEL, 0, "a")) is not None
    started = [
        thread for thread in set(threading.enumerate()) - before if thread.name == "kswapd of z"
    ]
    memory.kswapd.stop()
    for thread in started:
        thread.join(30)
        assert not thread.is_alive()
    assert step(memory.kswapd.wake()).result is False, "and it never starts again"


@pytest.mark.parametrize("seed", range(40))
def test_t8_4_every_wait_ends_in_every_order(seed: int) -> None:
    """Five requesters of all kinds on a zone of cache, in virtual time: all end, no page is lost."""
    chance = random.Random(seed)

    def choose(options: Sequence[Option]) -> int:
        return chance.randrange(len(options))

    simulator = Simulator(choose, fine=True, expires=True)
    memory = Memory(simulator, oom=Oom.FAIL)
    cache = Cached(memory.zone.share(0, name="cache"))
    memory.path.reclaim.shrinkers.register(cache, batch=4)
    masks = [KERNEL, Gfp.NOFS, Gfp.ATOMIC, KERNEL | Gfp.NORETRY, KERNEL | Gfp.RETRY_MAYFAIL,
             KERNEL | Gfp.NOFAIL]  # fmt: skip

    def user(number: int) -> Plan[int]:
        got = []
        for _ in range(40):
            gfp = masks[chance.randrange(len(masks))]
            run = yield from memory.path.alloc(memory.share, gfp, 0, f"user {number}")
            assert run is not None or not gfp & Gfp.NOFAIL
            if run is not None:
                got.append(run)
                cached = cache.share.take(LOW)
                if cached is not None:
                    cache.runs.append(cached)
            if len(got) > 15:
                yield from call(memory.share.free, got.pop(0))
        for run in got:
            memory.share.free(run)
        return 40

    tasks = [simulator.start(user(number), f"user {number}") for number in range(6)]
    assert simulator.go(200_000) == []
    simulator.check_ended()
    assert [task.result for task in tasks] == [40] * 6
    assert not memory.kswapd.running and not memory.zone._waiting
    assert memory.path.reclaim.deepest <= 1
    assert memory.zone.stats().held_pages == len(cache.runs)
    memory.zone.check_invariants()
