"""Code that uses budgets can be checked: known deadlocks are found, their remedies pass under every schedule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def three_of_bytes() -> None:
    memory = hw.Budget("3MiB", name="decode")

    def decode() -> None:
        memory.alloc(1 << 20)
        memory.alloc(512 << 10)
        memory.free(3 << 19)

    for _ in range(3):
        hw.spawn(decode)


def test_sizes_of_bytes_are_told_as_bytes_however_they_were_found() -> None:
    for by_counts in (True, False):
        report = check(three_of_bytes, by_counts=by_counts)
        assert report.min_reserve == {"decode": 7 << 19}
        assert "smallest safe size of decode: 3.5MiB (it has 3MiB)" in report.text()


@st.composite
def flat(draw: st.DrawFn) -> Callable[[], None]:
    """Two or three tasks that take from one or two budgets, in steps, and give all back."""
    grain = draw(st.sampled_from([1, 4096]))
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=2))
    wake = draw(st.sampled_from([hw.Wake.FIFO, hw.Wake.ANY_FIT]))
    which = st.integers(0, len(sizes) - 1)
    act = st.tuples(which, st.integers(1, 2))
    kinds = draw(st.lists(st.lists(act, min_size=1, max_size=3), min_size=1, max_size=2))
    counts = [draw(st.integers(1, 3 - len(kinds))) for _ in kinds]
    early = draw(st.booleans())

    def main() -> None:
        budgets = [hw.Budget(n * grain, name=f"b{i}", wake=wake) for i, n in enumerate(sizes)]

        def user(steps: tuple[tuple[int, int], ...]) -> None:
            for index, n in steps:
                budgets[index].alloc(n * grain)
                if early:
                    budgets[index].free(n * grain)
            for index, n in () if early else steps:
                budgets[index].free(n * grain)

        for steps, count in zip(kinds, counts, strict=True):
            for _ in range(count):
                hw.spawn(user, tuple(steps))

    return main


@given(flat())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_flat_budgets_by_counts_and_schedule_by_schedule_agree(program: Callable[[], None]) -> None:
    quick, slow = check(program), check(program, by_counts=False)
    assert (quick.verdict, len(quick.trace), quick.min_reserve) == (
        slow.verdict, len(slow.trace), slow.min_reserve,
    )  # fmt: skip
    assert slow.method == "schedules"


def test_a_flat_budget_of_bytes_with_many_tasks_is_learned() -> None:
    def main() -> None:
        memory = hw.Budget("64MiB", name="memory")

        def user() -> None:
            with memory.lease(1 << 20), memory.lease(1 << 20):
                pass

        for _ in range(64):
            hw.spawn(user)

    report = check(main)
    assert (report.verdict, report.method, len(report.stuck)) == ("deadlock", "counts", 64)
    assert report.min_reserve == {"memory": 65 << 20}


def test_a_budget_that_is_resized_or_has_more_than_a_limit_is_run_schedule_by_schedule() -> None:
    def resizes() -> None:
        budget = hw.Budget(2, name="slots")
        budget.alloc(2)
        budget.resize(3)
        budget.free(2)

    for program in (resizes, takes_with_the_reserve, levels_and_any_fit, both_at_once):
        report = check(program)
        assert (report.verdict, report.method) == ("ok", "schedules"), report.text()
