"""Known bugs are found, shortest first, and their correct twins pass, with the whole space seen."""

from __future__ import annotations

import pytest

from headway.checker.explore import Search
from headway.checker.report import Report
from headway.checker.target import check, replay
from headway.checker.trial import Settings
from headway.runtimes.scopes import made_for
from tests.checker import gallery

# function, verdict, words of the reason, operations in the trace, smallest safe sizes
BUGS = [
    ("loop_of_2009", "deadlock", "2 tasks wait for ever", 4, {"bio": 3}),
    ("nested_checkout", "deadlock", "1 task waits for ever", 2, {"connections": 2}),
    ("crossed_order", "deadlock", "takes_both-2 holds 1 of b and waits for 1 more of a", 4,
     {"a": 2, "b": 2}),
    ("over_an_allocator", "deadlock", "2 tasks wait for ever", 4, {"bio": 3}),
    ("async_loop_of_2009", "deadlock", "2 tasks wait for ever", 4, {"bio": 3}),
    ("partial", "deadlock", "takes_two-1 holds 1 of bio", 4, {"bio": 3, "other": 1}),
    ("leak", "leak", "1 of bio; last held by forgets-1", 1, {}),
    ("leak_of_what_is_in_flight", "leak", "handed over, and never completed", 2, {}),
    ("shares_a_list", "leak", "last held by appends", 5, {}),
    ("depends_on_the_element", "leak", "last held by keeps_if_it_is_the_first-1", 5, {}),
    ("leak_on_timeout", "leak", "1 of other; last held by gives_up_untidily-1", 4, {}),
    ("looks_before_it_takes", "leak", "last held by looks_first-1", 3, {}),
    ("timeout_that_nobody_catches", "error", "times_out-1 raised PoolTimeout: ", 3, {}),
    ("stuck_and_then_raises", "deadlock", "cleans_up_with_an_error-1 waits for 1 more of bio", 3,
     {}),
    ("double_free", "error", "freed twice", 2, {}),
    ("raises", "error", "raises raised KeyError: 'gone' at line", 0, {}),
]  # fmt: skip

TWINS = [
    ("loop_of_2009_sized", {"bio": 3}),
    ("loop_of_2009_submitting", {"bio": 1}),
    ("loop_of_2009_in_bulk", {"bio": 2}),
    ("loop_of_2009_unwinding", {"bio": 1}),
    ("nested_checkout_of_two_pools", {"outer": 1, "inner": 1}),
    ("one_order", {"a": 1, "b": 1}),
    ("three_in_line", {"bio": 1}),
    ("no_leak", {"bio": 1}),
    ("over_an_allocator_sized", {"bio": 3}),
    ("pool_over_pool", {"inner": 1, "outer": 1}),
    ("timed_wait", {"bio": 1}),
    ("timeout_as_a_watchdog", {"bio": 1}),
    ("two_pools_of_one_name", {"pool": 1, "pool-2": 1}),
    ("spawns_methods", {"bio": 2}),
    ("async_loop_of_2009_sized", {"bio": 3}),
]


def checked(name: str, **options: object) -> Report:
    return check(getattr(gallery, name), ambient=made_for, max_schedules=2000, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "verdict", "words", "operations", "sizes"), BUGS)
def test_a_known_bug_is_found(
    name: str, verdict: str, words: str, operations: int, sizes: dict[str, int]
) -> None:
    report = checked(name)
    assert report.verdict == verdict
    assert words in report.reason
    assert len(report.trace) == operations
    assert report.json()["min_reserve"] == sizes
    assert not report.complete


@pytest.mark.parametrize(("name", "sizes"), TWINS)
def test_a_correct_twin_passes_and_all_was_seen(name: str, sizes: dict[str, int]) -> None:
    report = checked(name)
    assert (report.verdict, report.complete, report.trace) == ("ok", True, ())
    assert report.min_reserve == sizes


@pytest.mark.parametrize("name", [name for name, *_ in BUGS])
def test_the_replay_line_leads_to_the_same_finding(name: str) -> None:
    report = checked(name, sizes=False)
    assert report.replay is not None
    again = replay(getattr(gallery, name), report.replay, ambient=made_for)
    assert (again.verdict, again.reason, again.trace) == (
        report.verdict,
        report.reason,
        report.trace,
    )
    assert again.stuck == report.stuck


def test_a_trace_says_who_took_who_waits_and_what_would_free_them() -> None:
    report = checked("loop_of_2009")
    rows = [(row["task"], row["op"], row["n"], row["result"]) for row in report.json()["trace"]]
    assert rows == [
        ("takes_two-1", "alloc", 1, "granted"),
        ("takes_two-2", "alloc", 1, "granted"),
        ("takes_two-1", "alloc", 1, "waits"),
        ("takes_two-2", "alloc", 1, "waits"),
    ]
    assert report.stuck == ("takes_two-1", "takes_two-2")
    assert report.release == ("one bio given back by takes_two-1 or takes_two-2 frees takes_two-1",)


def test_a_partial_deadlock_is_found_beside_a_task_that_never_ends() -> None:
    report = checked("partial_beside_an_endless_loop", sizes=False)
    assert report.verdict == "deadlock"
    assert report.stuck == ("takes_two-1", "takes_two-2")
    assert "others run on" in report.reason
    assert len(report.trace) == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("shares_a_list", "appends is given an object that others may have too"),
        ("depends_on_the_element", "two states with the same history went on to different ends"),
        ("looks_before_it_takes", "looks_first looks at reserve_count at line"),
    ],
)
def test_states_are_not_merged_where_tasks_share_more_than_pools(name: str, why: str) -> None:
    assert checked(name).notes[0].startswith(f"states are not merged: {why}")
    assert checked("three_in_line").notes == ()


def test_code_that_does_not_repeat_itself_is_an_error() -> None:
    report = checked("by_chance")
    assert report.verdict == "error"
    assert "the function does not repeat itself" in report.reason


@pytest.mark.parametrize(
    "name", ["three_in_line", "crossed_order", "over_an_allocator", "loop_of_2009_unwinding"]
)
def test_merging_reaches_the_same_verdict_as_not_merging(name: str) -> None:
    found = []
    for merging in (True, False):
        settings = Settings(ambient=made_for, merging=merging)
        found.append(Search(getattr(gallery, name), settings, 20_000).run())
    merged, whole = found
    assert (merged.finding, merged.complete) == (whole.finding, whole.complete)
    assert len(merged.schedule) == len(whole.schedule)
    assert whole.states > merged.states


def test_a_check_is_the_same_each_time_and_without_greenlet() -> None:
    assert checked("crossed_order") == checked("crossed_order")
    assert checked("crossed_order", threads=True) == checked("crossed_order")


def test_runs_at_random_are_the_seeds() -> None:
    def notes(seed: int | None) -> tuple[str, ...]:
        report = check(gallery.timed_wait, by_counts=False, max_schedules=6, seed=seed)
        assert (report.verdict, report.complete) == ("ok", False)
        return report.notes

    assert notes(7) == notes(7)
    assert notes(None) != notes(None)
