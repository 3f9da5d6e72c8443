"""Code that uses budgets can be checked: known deadlocks are found, their remedies pass under every schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import headway as hw
from headway.checker.report import Report
from headway.checker.target import check, replay
from headway.runtimes.scopes import made_for


def takes_one_by_one() -> None:
    slots = hw.Budget(2, name="slots")

    def user() -> None:
        slots.alloc(1)
        slots.alloc(1)
        slots.free(2)

    hw.spawn(user)
    hw.spawn(user)


def takes_with_the_reserve() -> None:
    """The second unit is what gives the first back: one of the reserve is enough for both."""
    slots = hw.Budget(3, reserve=1, name="slots")

    def user() -> None:
        slots.alloc(1)
        with hw.noreclaim():
            slots.alloc(1)
        slots.free(2)

    hw.spawn(user)
    hw.spawn(user)


def opposite_orders() -> None:
    a, b = hw.Budget(1, name="a"), hw.Budget(1, name="b")

    def user(first: hw.Budget, second: hw.Budget) -> None:
        with first.lease(1), second.lease(1):
            pass

    hw.spawn(user, a, b)
    hw.spawn(user, b, a)


def both_at_once() -> None:
    a, b = hw.Budget(1, name="a"), hw.Budget(1, name="b")

    def user(first: hw.Budget, second: hw.Budget) -> None:
        with hw.Together((first, 1), (second, 1)).lease():
            pass

    hw.spawn(user, a, b)
    hw.spawn(user, b, a)


def levels_and_any_fit() -> None:
    root = hw.Budget(3, name="root", wake=hw.Wake.ANY_FIT)
    child = hw.Budget(2, parent=root, name="child")

    def user(budget: hw.Budget, units: int) -> None:
        with budget.lease(units):
            pass

    hw.spawn(user, root, 2)
    hw.spawn(user, child, 2)


def through_a_queue() -> None:
    items: hw.BudgetQueue[int] = hw.BudgetQueue(2, cost=lambda item: 1 + item % 2)

    def producer() -> None:
        for item in range(2):
            items.put(item)
        items.close()

    def consumer() -> None:
        assert list(items) == [0, 1]

    hw.spawn(producer)
    hw.spawn(consumer)


def decodes() -> None:
    """Input and output of a decoder from one budget, one after the other."""
    memory = hw.Budget("48MiB", name="decode")

    def decode() -> None:
        with memory.lease(16 << 20), memory.lease(32 << 20):
            pass

    hw.spawn(decode)
    hw.spawn(decode)


def decodes_in_a_tree() -> None:
    """Each has room in its own part; the whole has too little for both."""
    host = hw.Budget("48MiB", name="host")
    parts = [hw.Budget("48MiB", parent=host, name=f"part{n}") for n in range(2)]

    def decode(part: hw.Budget) -> None:
        with part.lease(16 << 20), part.lease(32 << 20):
            pass

    for part in parts:
        hw.spawn(decode, part)


def takes_and_tries() -> None:
    slots = hw.Budget(2, name="slots")

    def user() -> None:
        with slots.lease(1), slots.lease(1, hw.Gfp.NOWAIT) as had:
            assert had in (True, False)

    hw.spawn(user)
    hw.spawn(user)


def in_flight() -> None:
    """What is handed over comes home by another task: nobody leaks, nobody waits for ever."""
    slots = hw.Budget(2, name="slots")

    def done() -> None:
        slots.free(2)

    def user() -> None:
        slots.alloc(2)
        slots.hand_over(2)
        hw.spawn(done)

    hw.spawn(user)
    hw.spawn(user)


def keeps_one() -> None:
    slots = hw.Budget(3, name="slots")
    slots.alloc(2)
    slots.free(1)


def frees_too_much() -> None:
    slots = hw.Budget(3, name="slots")
    slots.alloc(2)
    slots.free(3)


def spins_beside_a_pair() -> None:
    """Two are stuck while a third goes on: found without waiting for the end of everything."""
    slots, other = hw.Budget(2, name="slots"), hw.Budget(1, name="other")

    def user() -> None:
        slots.alloc(1)
        slots.alloc(1)
        slots.free(2)

    def spins() -> None:
        for _ in range(400):
            with other.lease(1):
                pass

    hw.spawn(user)
    hw.spawn(user)
    hw.spawn(spins)


def many_one_by_one() -> None:
    slots = hw.Budget(5, name="slots")

    def user() -> None:
        with slots.lease(1), slots.lease(1):
            pass

    for _ in range(4):
        hw.spawn(user)


def judged(function: Callable[[], None], most: int = 4000) -> Report:
    return check(function, ambient=made_for, max_schedules=most)


def test_a_nested_budget_is_named_and_sized_and_the_trace_says_who_has_what() -> None:
    report = judged(takes_one_by_one)
    assert (report.verdict, report.min_reserve, report.counts) == (
        "deadlock",
        {"slots": 3},
        {"slots": 2},
    )
    assert report.reason == (
        "2 tasks wait for ever: user-1 holds 1 of slots and waits for 1 more of slots; "
        "user-2 holds 1 of slots and waits for 1 more of slots"
    )
    assert [(e.task, e.op, e.result) for e in report.trace] == [
        ("user-1", "alloc", "granted"), ("user-2", "alloc", "granted"),
        ("user-1", "alloc", "waits"), ("user-2", "alloc", "waits"),
    ]  # fmt: skip
    assert report.release == ("one unit of slots given back by user-1 or user-2 frees user-1",)
    assert replay(takes_one_by_one, report.replay or "").verdict == "deadlock"


def test_bytes_are_told_and_sized_in_steps_of_what_is_asked_for() -> None:
    report = judged(decodes)
    assert (report.verdict, report.min_reserve) == ("deadlock", {"decode": 64 << 20})
    assert "decode-1 holds 16MiB of decode and waits for 32MiB more of decode" in report.reason
    assert "takes 16MiB of decode" in report.text()


def test_what_waits_at_the_level_above_is_found_there_and_sized_there() -> None:
    report = judged(decodes_in_a_tree)
    assert (report.verdict, report.stuck) == ("deadlock", ("decode-1", "decode-2"))
    assert report.min_reserve["host"] == 64 << 20


@pytest.mark.parametrize("function", [takes_and_tries, in_flight])
def test_a_correct_one_is_ok_complete_and_sized(function: Callable[[], None]) -> None:
    report = judged(function)
    assert (report.verdict, report.complete) == ("ok", True), report.reason
    assert report.min_reserve == {"slots": 2 if function is in_flight else 1}


def test_a_leak_and_a_double_free_are_told_in_units() -> None:
    assert judged(keeps_one).reason.startswith(
        "every task ended, and units never came home: 1 of slots"
    )
    report = judged(frees_too_much)
    assert (report.verdict, "3 were freed while 2 were out" in report.reason) == ("error", True)


def test_a_pair_is_stuck_though_a_third_goes_on() -> None:
    report = check(spins_beside_a_pair, ambient=made_for, max_schedules=600, sizes=False)
    assert (report.verdict, report.stuck) == ("deadlock", ("user-1", "user-2"))


def test_equal_tasks_are_one_so_four_of_them_are_seen_to_the_end() -> None:
    report = judged(many_one_by_one)
    assert (report.verdict, report.complete, report.min_reserve) == ("ok", True, {"slots": 5})
    assert report.states < 150


@pytest.mark.parametrize("function", [takes_one_by_one, opposite_orders])
def test_a_deadlock_is_found(function: Callable[[], None]) -> None:
    assert check(function, ambient=made_for, max_schedules=2000).verdict == "deadlock"


@pytest.mark.parametrize(
    "function", [takes_with_the_reserve, both_at_once, levels_and_any_fit, through_a_queue]
)
def test_its_remedy_passes_under_every_schedule(function: Callable[[], None]) -> None:
    report = check(function, ambient=made_for, max_schedules=6000)
    assert (report.verdict, report.complete) == ("ok", True), report.reason


def test_who_waits_for_a_budget_does_not_wait_for_himself() -> None:
    assert "holds 1 of slots and waits for 1 more of slots" in check(takes_one_by_one).reason
