"""Allocating under pressure does the same on threads, on tasks and in the simulator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.oom import Oom
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import ScanControl
from headway.core.plan import Plan, Ticket, call, park, unpark
from headway.errors import NoMemory
from headway.runtimes import scopes
from tests.core.mm.memory import LOW, Cached, Memory
from tests.runtimes.conformance import Driver
from tests.runtimes.test_simulator_conformance import OnSimulator
from tests.runtimes.test_tasks import OnTasks
from tests.runtimes.test_threads import OnThreads

KERNEL = Gfp.KERNEL


@pytest.fixture(params=[OnThreads, OnTasks, OnSimulator])
def driver(request: pytest.FixtureRequest) -> Driver:
    make: Callable[[], Driver] = request.param
    return make()


@pytest.fixture
def memory(driver: Driver) -> Iterator[Memory]:
    memory = Memory(driver.runtime)
    yield memory
    memory.kswapd.stop()
    for thread in threading.enumerate():
        if thread.name == "kswapd of z":
            thread.join(30)
            assert not thread.is_alive(), "stop did not end it"
    assert not memory.kswapd.running or isinstance(driver, OnSimulator)
    assert not memory.zone._waiting
    assert memory.path.reclaim.deepest <= 1
    memory.zone.check_invariants()


def test_many_users_of_a_zone_full_of_cache_all_get_theirs(driver: Driver, memory: Memory) -> None:
    cache = Cached(memory.zone.share(0, name="cache"), 100)
    memory.path.reclaim.shrinkers.register(cache, batch=8)

    def user(who: str) -> Plan[int]:
        for number in range(60):
            run = yield from memory.path.alloc(memory.share, KERNEL, 0, who)
            assert run is not None, "there was cache to drop"
            yield from call(memory.share.free, run)
            if number % 2:
                cached = cache.share.take(LOW)
                if cached is not None:
                    cache.runs.append(cached)
        return 60

    assert driver.run(*(user(f"user {n}") for n in range(4))) == [60] * 4
    assert memory.zone.stats().held_pages == len(cache.runs)


def test_what_may_not_fail_waits_for_what_another_gives_back(
    driver: Driver, memory: Memory
) -> None:
    memory.fill(leave=0)
    begun = Ticket("begun")

    def stubborn() -> Plan[PageRun | None]:
        yield from unpark(begun)
        return (yield from memory.path.alloc(memory.share, KERNEL | Gfp.NOFAIL, 0, "stubborn"))

    def holder() -> Plan[None]:
        yield from park(begun, 60.0)
        for _ in range(20):
            yield from call(memory.release)

    got, _ = driver.run(stubborn(), holder())
    assert isinstance(got, PageRun)


def test_a_cancelled_request_loses_nothing(driver: Driver, memory: Memory) -> None:
    memory.fill(leave=0)
    asked = memory.path.alloc(memory.share, KERNEL | Gfp.NOFAIL, 0, "a")
    ended = driver.cancel(asked, lambda: memory.path.oom_count > 2)  # type: ignore[arg-type]
    assert isinstance(ended, driver.cancelled)
    memory.release(30)
    assert memory.zone.stats().held_pages == len(memory.held)


def test_a_shrinker_and_a_victim_run_under_their_requesters_scope(
    driver: Driver, memory: Memory
) -> None:
    seen: list[tuple[str, Gfp]] = []

    class Looks:
        def count_objects(self, control: ScanControl) -> int:
            return 10

        def scan_objects(self, control: ScanControl) -> int:
            seen.append(("shrinker", scopes.effective()))
            return 0

    def victim(info: object) -> bool:
        seen.append(("victim", scopes.effective()))
        return False

    memory.path.oom = victim
    memory.path.reclaim.background = None
    memory.path.reclaim.shrinkers.register(Looks())
    memory.fill(leave=0)
    with pytest.raises(NoMemory):
        driver.run(memory.path.alloc(memory.share, KERNEL, 0, "a"))
    without_reclaim = KERNEL & ~Gfp.DIRECT_RECLAIM
    assert set(seen) == {("shrinker", without_reclaim), ("victim", without_reclaim)}
    memory.path.oom = Oom.RAISE
    seen.clear()
    with pytest.raises(NoMemory):
        driver.run(memory.path.alloc(memory.share, KERNEL, int(Scope.NOIO), "a"))
    assert set(seen) == {("shrinker", Gfp.KSWAPD_RECLAIM)}


def test_caches_and_requests_share_a_zone(driver: Driver, memory: Memory) -> None:
    stored: dict[int, int] = {}
    cache: ShrinkableCache[int, int] = ShrinkableCache(
        memory.path, runtime=driver.runtime, cost=lambda value: 4096, name="c", seeks=2,
        max_bytes=None, write_back=stored.__setitem__,
    )  # fmt: skip

    def keeper(who: str, first: int) -> Plan[int]:
        for number in range(first, first + 60):
            yield from cache.put_plan(number, number, number % 4 == 0, 0, who)
            assert cache.get(number) in (None, number)
        return 60

    def user(who: str) -> Plan[int]:
        held = []
        for _ in range(30):
            run = yield from memory.path.alloc(memory.share, KERNEL, 0, who)
            assert run is not None, "there was cache to drop"
            held.append(run)
        for run in held:
            yield from call(memory.share.free, run)
        return 30

    plans = [keeper("k0", 0), keeper("k1", 100), user("u0"), user("u1")]
    assert driver.run(*plans) == [60, 60, 30, 30]
    driver.run(cache._dirtied.write_all(0))
    assert [key for key in (*range(0, 60, 4), *range(100, 160, 4)) if key not in stored] == []
    cache.check_invariants()
    cache._dirtied.stop()
    for thread in threading.enumerate():
        if thread.name == "write-back of c":
            thread.join(30)
            assert not thread.is_alive()
