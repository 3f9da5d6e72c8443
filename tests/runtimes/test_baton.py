"""Plain functions stand still at each request, in greenlets and in threads alike."""

from __future__ import annotations

import contextvars
import threading

import pytest

from headway.core.plan import Plan, Ticket, call, now, park, unpark
from headway.runtimes.baton import BatonRuntime, ThreadBody, body_of
from headway.runtimes.simulator import Simulator

WAYS = [False, True]


class Bench:
    """A simulator and a runtime for the functions of one test."""

    def __init__(self, threads: bool, picks: list[int] | None = None) -> None:
        self.picks = picks or []
        self.simulator = Simulator(
            lambda options: self.picks.pop(0) if self.picks else 0, fine=False
        )
        self.threads = threads
        self.runtime = BatonRuntime(
            self.simulator,
            current=lambda: self.simulator.current and self.simulator.current.body,
            start=self.simulator.start,
            threads=threads,
        )


@pytest.mark.parametrize("threads", WAYS)
def test_a_function_runs_plans_and_returns(threads: bool) -> None:
    bench = Bench(threads)

    def plan(x: int) -> Plan[int]:
        yield from now()
        return (yield from call(max, x, 3))

    def main(x: int) -> int:
        return bench.runtime.run(plan(x)) + bench.runtime.run(plan(10))

    task = bench.simulator.start(body_of(main, (1,), threads=threads), "main")
    assert bench.simulator.go() == []
    assert task.result == 13


@pytest.mark.parametrize("threads", WAYS)
def test_tasks_take_turns_as_the_oracle_says(threads: bool) -> None:
    bench = Bench(threads, [1, 0, 1, 0])
    log: list[str] = []

    def worker(name: str) -> None:
        for turn in range(2):
            log.append(f"{name}{turn}")
            bench.runtime.point(name)

    for name in "ab":
        bench.runtime.spawn(worker, name)
    assert bench.simulator.go() == []
    assert log == ["b0", "a0", "b1", "a1"]


@pytest.mark.parametrize("threads", WAYS)
def test_a_parked_function_goes_on_when_woken(threads: bool) -> None:
    bench = Bench(threads)
    ticket = Ticket("gate")

    def waits() -> bool:
        return bench.runtime.run(park(ticket))

    def opens() -> None:
        bench.runtime.run(unpark(ticket))

    task = bench.runtime.spawn(waits)
    bench.runtime.spawn(opens)
    assert bench.simulator.go() == []
    assert task.result is True


@pytest.mark.parametrize("threads", WAYS)
def test_an_exception_in_a_function_ends_its_task_only(threads: bool) -> None:
    bench = Bench(threads)

    def bad() -> None:
        raise KeyError("gone")

    def good() -> int:
        return 1

    tasks = [bench.runtime.spawn(fn) for fn in (bad, good)]
    assert bench.simulator.go() == []
    assert repr(tasks[0].failure) == "KeyError('gone')"
    assert tasks[1].result == 1


@pytest.mark.parametrize("threads", WAYS)
def test_a_dropped_function_is_unwound_and_cannot_go_on(threads: bool) -> None:
    bench = Bench(threads)
    log: list[str] = []

    def stuck() -> None:
        try:
            bench.runtime.run(park(Ticket("never")))
        finally:
            log.append("unwound")
            bench.runtime.point("again")
            log.append("went on")

    bench.runtime.spawn(stuck)
    before = threading.active_count()
    assert len(bench.simulator.go()) == 1
    bench.simulator.close()
    assert log == ["unwound"]
    assert threading.active_count() <= before


@pytest.mark.parametrize("threads", WAYS)
def test_context_variables_are_a_tasks_own(threads: bool) -> None:
    bench = Bench(threads)
    mark = contextvars.ContextVar("mark", default="none")
    mark.set("ambient")
    seen: list[str] = []

    def worker(name: str) -> None:
        seen.append(mark.get())
        mark.set(name)
        bench.runtime.point(name)
        seen.append(mark.get())

    for name in "ab":
        bench.runtime.spawn(worker, name)
    bench.simulator.go()
    assert seen[0] == "ambient"
    assert sorted(seen) == ["a", "ambient", "ambient", "b"]
    assert mark.get() == "ambient"


def test_a_coroutine_is_a_task_too() -> None:
    import asyncio

    bench = Bench(False)
    log: list[str] = []

    async def worker(name: str) -> str:
        for turn in range(2):
            log.append(f"{name}{turn}")
            await asyncio.sleep(0)
        return name

    bench.picks = [1, 0, 1, 0]
    tasks = [bench.runtime.spawn(worker, name) for name in "ab"]
    assert bench.simulator.go() == []
    assert log == ["b0", "a0", "b1", "a1"]
    assert [task.result for task in tasks] == ["a", "b"]


def test_where_names_the_callers_line() -> None:
    bench = Bench(False)
    assert bench.runtime.where()[0].endswith("test_where_names_the_callers_line")


def test_threads_are_the_way_without_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.runtimes.baton.greenlet", None)
    assert isinstance(body_of(len, ("",)), ThreadBody)
