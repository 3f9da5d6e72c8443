"""Code that uses budgets can be checked: known deadlocks are found, their remedies pass under every schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import headway as hw
from headway.checker.target import check
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
    assert "waits for units of a budget" in check(takes_one_by_one).reason
