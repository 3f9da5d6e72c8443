"""The buffer cache on threads, tasks and the simulator: the same plans, the same outcome."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.block.buffer import Buffer
from headway.core.plan import Plan, offload
from headway.errors import BlockError
from tests.core.block.cache_rig import BLOCK, load, make, store
from tests.runtimes.conformance import Driver
from tests.runtimes.test_simulator_conformance import OnSimulator
from tests.runtimes.test_tasks import OnTasks
from tests.runtimes.test_threads import OnThreads

pytestmark = pytest.mark.parametrize("offloads", [False, True])


@pytest.fixture(params=[OnThreads, OnTasks, OnSimulator])
def driver(request: pytest.FixtureRequest) -> Driver:
    found: Driver = request.param()
    return found


def turn() -> Plan[None]:
    """Let others go on: on a loop, a worker comes and goes."""
    yield from offload(int)


def caught(plan: Plan[Any]) -> Plan[Any]:
    try:
        return (yield from plan)
    except BlockError as error:
        return error


def test_t72_the_order_of_tries(driver: Driver, offloads: bool) -> None:
    cache, _, _ = make(driver.runtime, 1, offloads=offloads)
    said: list[str] = []
    cache.attempt = said.append

    def plan() -> Plan[None]:
        yield from load(cache, 0)
        yield from store(cache, 1, 5)
        yield from load(cache, 2)

    driver.run(plan())
    first = ["nowait", "noio", "reserve"]
    assert said == [*first, *first, "clean", *first, "clean", "dirty"]


def test_t74_who_misses_at_once_shares_one_buffer(driver: Driver, offloads: bool) -> None:
    cache, disk, memory = make(driver.runtime, 8, offloads=offloads)
    disk.fill(3, 4)
    assert driver.run(*(load(cache, 3) for _ in range(6))) == [4] * 6
    assert len(disk.requests("read")) == 1 and memory.left == 8 - 2
    cache.check_invariants()


def test_t75_get_never_waits_for_a_read(driver: Driver, offloads: bool) -> None:
    cache, disk, _ = make(driver.runtime, 8, offloads=offloads)
    disk.held = []
    seen: list[Buffer | None] = []

    def other() -> Plan[None]:
        while not disk.held:
            yield from turn()
        seen.append(cache.get(3))
        disk.let_go()

    driver.run(load(cache, 3), other())
    assert seen == [None] and cache.get(3) is not None


def test_t711_an_error_is_returned_once(driver: Driver, offloads: bool) -> None:
    cache, disk, _ = make(driver.runtime, 8, offloads=offloads)
    disk.bad = lambda bio: bio.op.value == "write"

    def plan() -> Plan[list[Any]]:
        yield from store(cache, 1, 5)
        first = yield from caught(cache.write_dirty_plan())
        second = yield from caught(cache.write_dirty_plan())
        return [first, second]

    ((first, second),) = driver.run(plan())
    assert isinstance(first, BlockError) and second is None


def test_t712_a_reserve_of_one_and_many_tasks(driver: Driver, offloads: bool) -> None:
    cache, disk, memory = make(driver.runtime, 1, offloads=offloads)
    memory.fails = True

    def user(me: int) -> Plan[None]:
        for turns in range(6):
            buffer = yield from cache.read_plan(me)
            assert buffer.view[0] == turns
            yield from turn()
            buffer.view[:] = bytes([turns + 1]) * BLOCK
            buffer.mark_dirty()
            buffer.release()

    driver.run(*(user(me) for me in range(7)))
    driver.run(cache.write_dirty_plan())
    assert [disk.value(me) for me in range(7)] == [6] * 7
    driver.run(cache.close_plan())
    assert memory.left == 1


def test_a_wait_for_memory_that_is_cancelled_passes_on(driver: Driver, offloads: bool) -> None:
    cache, _, memory = make(driver.runtime, 1, offloads=offloads)
    memory.fails = True
    (held,) = driver.run(cache.read_plan(0))
    ended = driver.cancel(load(cache, 1), lambda: cache.stats().waiting == 1)
    assert isinstance(ended, driver.cancelled)
    assert cache.stats().waiting == 0 and not cache.supply.queue
    held.release()
    assert driver.run(load(cache, 1), load(cache, 2)) == [0, 0]
