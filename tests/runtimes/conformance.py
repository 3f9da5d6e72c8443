"""What every driver must do with a plan: one suite, and an adapter of a few lines for each driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytest

from headway.core.block.copier import Capped
from headway.core.mm.composite import Callables, Composite
from headway.core.mm.gfp import Scope
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.core.plan import (
    Offload,
    Plan,
    Runtime,
    Ticket,
    call,
    now,
    offload,
    park,
    spawn,
    unpark,
)
from headway.runtimes import scopes
from headway.threaded import Mempool


class Driver(ABC):
    """How a test runs plans on one driver; made anew for each test."""

    runtime: Runtime  # what pools are made for
    cancelled: type[BaseException]  # what a cancellation is here

    @abstractmethod
    def run(self, *plans: Plan[Any]) -> list[Any]:
        """Run plans beside each other to their ends; their results. Raises what one raised."""

    @abstractmethod
    def cancel(
        self, plan: Plan[Any], when: Callable[[], bool], *others: Plan[Any]
    ) -> BaseException:
        """Run them all, and cancel the first plan once `when()` is true; what it ended with."""


class Conformance:
    """Subclass it as ``TestX`` and define `make`."""

    @staticmethod
    def make() -> Driver:
        raise NotImplementedError

    @pytest.fixture
    def driver(self) -> Driver:
        return self.make()

    def test_call_and_offload_give_their_results(self, driver: Driver) -> None:
        def plan() -> Plan[tuple[int, int]]:
            return (yield from call(max, 1, 2)), (yield from offload(len, "abc"))

        assert driver.run(plan()) == [(2, 3)]

    @pytest.mark.parametrize("ask", [call, offload])
    def test_what_an_effect_raises_arrives_at_its_request(self, driver: Driver, ask: Any) -> None:
        def plan() -> Plan[str]:
            try:
                yield from ask(int, "x")
            except ValueError:
                return (yield from ask(str, "caught"))
            return "not raised"

        assert driver.run(plan()) == ["caught"]
        with pytest.raises(ZeroDivisionError):
            driver.run(ask(divmod, 1, 0))

    def test_a_stop_iteration_of_an_effect_does_not_end_the_plan(self, driver: Driver) -> None:
        for ask in (call, offload):
            with pytest.raises(RuntimeError):
                driver.run(ask(next, iter(())))

    def test_the_clock_does_not_run_backwards(self, driver: Driver) -> None:
        def plan() -> Plan[list[float]]:
            first = yield from now()
            yield from park(Ticket("nobody"), 0.001)
            return [first, (yield from now())]

        ((first, last),) = driver.run(plan())
        assert last >= first + 0.0005

    def test_a_park_ends_with_its_time(self, driver: Driver) -> None:
        assert driver.run(park(Ticket("nobody"), 0.0)) == [False]
        assert driver.run(park(Ticket("nobody"), 0.001)) == [False]

    def test_a_wake_up_before_the_park_is_not_lost(self, driver: Driver) -> None:
        ticket = Ticket("early")
        assert ticket.wake()
        assert driver.run(park(ticket)) == [True]
        late = Ticket("early, with a limit")
        late.wake()
        assert driver.run(park(late, 60.0)) == [True]

    def test_plans_wake_each_other(self, driver: Driver) -> None:
        ping, pong = (
            [Ticket(f"ping {n}") for n in range(50)],
            [Ticket(f"pong {n}") for n in range(50)],
        )

        def one(mine: list[Ticket], theirs: list[Ticket], begins: bool) -> Plan[int]:
            woken = 0
            for my, their in zip(mine, theirs, strict=True):
                if begins:
                    yield from unpark(their)
                woken += yield from park(my, 60.0)
                if not begins:
                    yield from unpark(their)
            return woken

        assert driver.run(one(ping, pong, True), one(pong, ping, False)) == [50, 50]

    def test_a_spawned_plan_runs_beside(self, driver: Driver) -> None:
        ticket, seen = Ticket("parent"), []

        def child() -> Plan[None]:
            seen.append((yield from call(str, "child")))
            yield from unpark(ticket)

        def parent() -> Plan[bool]:
            yield from spawn(child(), "child")
            return (yield from park(ticket, 60.0))

        assert driver.run(parent()) == [True] and seen == ["child"]

    @pytest.mark.parametrize("ask", [call, offload])
    def test_an_effect_runs_under_its_requesters_scope(self, driver: Driver, ask: Any) -> None:
        def plan() -> Plan[list[int]]:
            inside = yield from ask(scopes.current, scope=Scope.NOIO)
            both = yield from ask(carried)
            return [inside, both, (yield from ask(scopes.current))]

        with scopes.nofs():
            carried = scopes.carry(scopes.current)
        assert driver.run(plan()) == [[Scope.NOIO, Scope.NOFS, 0]]
        assert scopes.current() == 0

    def test_a_cancellation_arrives_where_the_plan_parks(self, driver: Driver) -> None:
        ticket, seen = Ticket("for ever"), []

        def plan() -> Plan[None]:
            try:
                seen.append("parks")
                yield from park(ticket)
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

        ended = driver.cancel(plan(), lambda: ticket._waker is not None)
        assert isinstance(ended, driver.cancelled) and seen == ["parks", driver.cancelled.__name__]

    def test_a_cancelled_waiter_hands_on(self, driver: Driver) -> None:
        pool = Mempool.of("x", runtime=driver.runtime)
        (held,) = driver.run(pool.alloc_plan(scopes.Gfp.KERNEL, 0, "holder", 1, None))
        given = Ticket("given")

        def first() -> Plan[None]:
            yield from pool.alloc_plan(scopes.Gfp.KERNEL, 0, "first", 1, None)

        def second() -> Plan[list[str] | None]:
            yield from park(given, 60.0)
            got = yield from pool.alloc_plan(scopes.Gfp.KERNEL, 0, "second", 1, None)
            pool.free_bulk(got or [])
            return got

        def waits() -> bool:
            queue = list(pool._queue)
            return bool(queue) and queue[0]._waker is not None

        assert isinstance(driver.cancel(first(), waits), driver.cancelled)
        pool.free_bulk(held)
        given.wake()
        assert driver.run(second()) == [["x"]]
        assert (pool.reserve_count, pool.waiters, pool.outstanding) == (1, 0, 0)

    def test_a_few_elements_serve_many_plans(self, driver: Driver) -> None:
        pool = Mempool.of("xy", runtime=driver.runtime)
        out: list[str] = []

        def user(who: str, count: int) -> Plan[int]:
            for _ in range(20):
                got = yield from pool.alloc_plan(scopes.Gfp.KERNEL, 0, who, count, None)
                assert got is not None and not set(got) & set(out)
                out.extend(got)
                yield from call(int)
                for element in got:
                    out.remove(element)
                pool.free_bulk(got)
            return 20

        assert driver.run(*(user(f"user {n}", 1 + n % 2) for n in range(5))) == [20] * 5
        assert (pool.reserve_count, pool.waiters) == (2, 0)
        pool.check_invariants()

    @pytest.mark.parametrize("over", ["zone", "pool", "composite", "cap"])
    def test_a_pool_hears_what_a_neighbour_gives_back_to_what_both_stand_on(
        self, driver: Driver, over: str
    ) -> None:
        def below() -> Any:
            match over:
                case "zone":
                    return zone.share(0)
                case "pool":
                    return fixed
                case "composite":
                    return Composite(zone.share(0), Callables(lambda gfp: "beside", bool))
            return Capped(zone.share(0), 9)

        runtime = driver.runtime
        zone = Zone(4, Watermarks(0, 0, 0), runtime=runtime)
        fixed = Mempool.of("wxyz", runtime=runtime)
        ours, theirs = (Mempool[Any](below(), min_count=0, runtime=runtime) for _ in range(2))

        def neighbour() -> Plan[None]:
            held: list[Any] = []
            for _ in range(4):
                held += (yield from theirs.alloc_plan(scopes.Gfp.KERNEL, 0, "b", 1, None)) or ()
            full.wake()
            while not ours.waiters:
                yield from park(Ticket("looks again"), 0.001)
            theirs.free(held.pop())
            yield from park(done)
            theirs.free_bulk(held)

        def waiter() -> Plan[bool]:
            yield from park(full)
            got = yield from ours.alloc_plan(scopes.Gfp.KERNEL, 0, "a", 1, 60.0)
            ours.free_bulk(got or ())
            done.wake()
            return bool(got)

        full, done = Ticket("all are out"), Ticket("one was had")
        assert driver.run(neighbour(), waiter()) == [None, True]
        for pool in (ours, theirs):
            pool.close()
            pool.check_invariants()

    def test_a_time_limit_in_a_pool(self, driver: Driver) -> None:
        pool = Mempool.of("x", runtime=driver.runtime)
        driver.run(pool.alloc_plan(scopes.Gfp.KERNEL, 0, "holder", 1, None))
        with pytest.raises(TimeoutError, match="for 1 of 1 elements"):
            driver.run(pool.alloc_plan(scopes.Gfp.KERNEL, 0, "late", 1, 0.001))
        assert pool.waiters == 0

    def test_undo_is_not_called_when_the_result_arrived(self, driver: Driver) -> None:
        undone: list[object] = []

        def plan() -> Plan[str]:
            answer: str = yield Offload(str, ("x",), 0, undone.append)
            return answer

        assert driver.run(plan()) == ["x"] and undone == []
