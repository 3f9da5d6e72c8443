"""The simulator does what the oracle picks, in virtual time, and proves who is stuck."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from headway.core.plan import Call, Offload, Plan, Ticket, call, now, offload, park, spawn, unpark
from headway.core.waitqueue import WaitQueue
from headway.errors import Deadlock, UsageError
from headway.runtimes.simulator import Cancelled, Failure, Kind, Option, Simulator


def first(options: Sequence[Option]) -> int:
    return 0


class Slots:
    """The smallest pool there is: a count, a queue, hand-over; cancelled waiters hand on."""

    def __init__(self, count: int, *, hands_on: bool = True) -> None:
        self.free_count = count
        self.queue = WaitQueue()
        self.hands_on = hands_on

    def alloc(self, who: str) -> Plan[None]:
        yield from call(lambda: None)
        if self.free_count and not len(self.queue):
            self.free_count -= 1
            return
        ticket = Ticket(who)
        self.queue.join(ticket)
        try:
            yield from park(ticket)
        except BaseException:
            if self.queue.leave(ticket) is not None and self.hands_on:
                woken = self._give()
                if woken is not None:
                    woken.wake()
            raise

    def free(self) -> Plan[None]:
        woken = self._give()
        if woken is not None:
            yield from unpark(woken)

    def _give(self) -> Ticket | None:
        ticket = self.queue.first()
        if ticket is None:
            self.free_count += 1
            return None
        self.queue.give(ticket, ["slot"])
        return ticket


def taker(slots: Slots, who: str, log: list[str]) -> Plan[None]:
    yield from slots.alloc(who)
    log.append(who)
    yield from call(int)  # others may come while it holds
    yield from slots.free()


def test_requests_are_carried_out_in_virtual_time() -> None:
    log: list[object] = []

    def plan() -> Plan[str]:
        log.append((yield from now()))
        log.append((yield from park(Ticket("nobody"), 2.5)))
        log.append((yield from now()))
        log.append((yield from offload(len, "abc")))
        yield from spawn(other(), "other")
        return "end"

    def other() -> Plan[None]:
        log.append((yield from call(max, 1, 2)))

    simulator = Simulator(first)
    assert simulator.run(plan()) == "end"
    assert simulator.go() == []
    assert log == [0.0, False, 2.5, 3, 2]


def test_the_clock_stands_while_anybody_can_run() -> None:
    ticket = Ticket("late")

    def waits() -> Plan[tuple[bool, float]]:
        return (yield from park(ticket, 1.0)), (yield from now())

    def wakes() -> Plan[None]:
        for _ in range(5):
            yield from call(int)
        yield from unpark(ticket)

    simulator = Simulator(first)
    task = simulator.start(waits(), "waits")
    simulator.start(wakes(), "wakes")
    assert simulator.go() == []
    assert task.result == (True, 0.0)


def test_a_deadlock_names_who_is_stuck_on_what() -> None:
    slots = Slots(0)
    simulator = Simulator(first)
    simulator.start(taker(slots, "slot of worker", []), "worker")
    assert [task.name for task in simulator.go()] == ["worker"]
    with pytest.raises(
        Deadlock, match="1 of 1 tasks wait for ever: worker on slot of worker"
    ) as caught:
        simulator.check_ended()
    assert caught.value.stuck == ("worker on slot of worker",)


def test_a_run_that_does_not_end_is_said_so() -> None:
    def endless() -> Plan[None]:
        while True:
            yield from call(int)

    simulator = Simulator(first)
    simulator.start(endless(), "endless")
    with pytest.raises(UsageError, match="not ended after 50 steps"):
        simulator.go(max_steps=50)
    simulator.close()
    assert simulator.stuck() == []


def test_what_an_effect_raises_is_raised_in_the_plan() -> None:
    def plan() -> Plan[str]:
        try:
            yield from call(int, "x")
        except ValueError as error:
            return str(error)
        return "nothing"

    assert "invalid literal" in Simulator(first).run(plan())


def test_an_effect_fails_where_the_oracle_says_so() -> None:
    def fails(request: Call | Offload) -> Failure | None:
        return Failure() if request.effect is len else Failure(error=OSError(28, "full"))

    def plan() -> Plan[list[object]]:
        seen: list[object] = [(yield from call(len, "abc"))]
        try:
            seen.append((yield from call(max, 1, 2)))
        except OSError as error:
            seen.append(error.errno)
        return seen

    def picks(mark: Kind) -> list[object]:
        def choose(options: Sequence[Option]) -> int:
            return next((i for i, option in enumerate(options) if option.kind is mark), 0)

        return Simulator(choose, may_fail=fails).run(plan())

    assert picks(Kind.STEP) == [3, 2]
    assert picks(Kind.FAIL) == [None, 28]


def every_run(build: object, **options: object) -> list[tuple[str, list[str]]]:
    """All schedules of a tiny program, depth first: (schedule, names of stuck tasks)."""
    found = []
    prefix: list[int] = []
    while True:
        widths: list[int] = []
        taken: list[int] = []
        marks: list[str] = []

        def choose(
            choices: Sequence[Option],
            prefix: list[int] = prefix,
            widths: list[int] = widths,
            taken: list[int] = taken,
            marks: list[str] = marks,
        ) -> int:
            index = prefix[len(taken)] if len(taken) < len(prefix) else 0
            taken.append(index)
            widths.append(len(choices))
            marks.append(str(choices[index]))
            return index

        simulator = Simulator(choose, **options)  # type: ignore[arg-type]
        build(simulator)  # type: ignore[operator]
        stuck = [task.name for task in simulator.go()]
        found.append((".".join(marks), stuck))
        simulator.close()
        while taken and taken[-1] + 1 == widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return found
        prefix = [*taken[:-1], taken[-1] + 1]


@pytest.mark.parametrize("hands_on", [True, False])
def test_cancel_against_wake_loses_a_wake_up_only_without_the_hand_on(hands_on: bool) -> None:
    def build(simulator: Simulator) -> None:
        slots = Slots(1, hands_on=hands_on)
        for number in range(3):
            simulator.start(taker(slots, str(number), []), f"taker {number}")

    runs = every_run(build, cancels=1)
    assert len(runs) > 30
    assert any("x" in schedule for schedule, _ in runs)
    assert any(stuck for _, stuck in runs) is not hands_on


def test_no_wake_up_is_lost_between_the_look_and_the_park() -> None:
    def build(simulator: Simulator) -> None:
        slots = Slots(1)
        for number in range(2):
            simulator.start(taker(slots, str(number), []), f"taker {number}")

    runs = every_run(build)
    assert len(runs) > 10
    assert all(not stuck for _, stuck in runs)


def seeded(seed: int | None) -> tuple[str, ...]:
    chance = random.Random(seed)
    log: list[str] = []
    simulator = Simulator(lambda options: chance.randrange(len(options)))
    slots = Slots(1)
    for number in range(8):
        simulator.start(taker(slots, str(number), log), f"taker {number}")
    assert simulator.go() == []
    return tuple(log)


def test_one_seed_is_one_run() -> None:
    assert {seeded(7) for _ in range(5)} == {seeded(7)}


def test_without_a_seed_runs_differ() -> None:
    assert len({seeded(None) for _ in range(20)}) > 1


def test_a_cancelled_offload_undoes_what_comes_home() -> None:
    home: list[str] = []

    def plan() -> Plan[str]:
        return (yield from offload(str.upper, "abc", undo=home.append))

    simulator = Simulator(lambda options: len(options) - 1, cancels=1)
    task = simulator.start(plan(), "opener")
    simulator.take(Option(1))
    simulator.take(Option(1, Kind.CANCEL))
    assert home == ["ABC"]
    assert isinstance(task.failure, Cancelled)


def test_a_guard_held_across_a_request_is_caught() -> None:
    simulator = Simulator(first)
    guard = simulator.guard()

    def plan() -> Plan[None]:
        with guard:
            yield from call(int)

    simulator.start(plan(), "wrong")
    with pytest.raises(AssertionError, match="wrong gave way inside a guarded step"):
        simulator.go()


def test_options_are_in_the_order_of_tasks() -> None:
    simulator = Simulator(first, cancels=1)
    for name in "ab":
        simulator.start(iter_once(), name)
    assert [str(option) for option in simulator.options()] == ["1", "2"]
    simulator.take(Option(2))
    assert [str(option) for option in simulator.options()] == ["1", "2x"]


def iter_once() -> Plan[None]:
    yield from park(Ticket("once"), 1.0)


def test_a_time_limit_runs_out_early_only_where_that_is_asked_for() -> None:
    def waits() -> Plan[tuple[bool, float]]:
        return (yield from park(Ticket("late"), 3.0)), (yield from now())

    for expires in (False, True):
        simulator = Simulator(first, fine=False, expires=expires)
        task = simulator.start(waits(), "waits")
        simulator.start(iter_once(), "other")
        simulator.take(Option(1))
        early = Option(1, Kind.EXPIRE)
        assert (early in simulator.options()) is expires
        if expires:
            simulator.take(early)
            assert task.result == (False, 3.0)
