"""Models with known answers: verdicts, reasons, shortest traces, and the sizes of the golden table."""

import pytest

from headway.checker import modelled
from headway.checker.model import parse
from headway.checker.modelled import sizes
from headway.errors import UsageError


def model(pools, wake="fifo", **actors):
    return parse(
        {
            "wake": wake,
            "pools": pools,
            "actors": {
                name: {"count": count, "steps": steps} for name, (count, *steps) in actors.items()
            },
        }
    )


def mappers(tasks, units, size, wake="fifo"):
    steps = ["+bio"] * units + [f"-bio {units}"]
    return model({"bio": size}, wake, mapper=(tasks, *steps))


def vllm(size, wake, together=False):
    a, b = (["+kv 5"], ["+kv 4"]) if together else (["+kv 4", "+kv 1"], ["+kv 3", "+kv 1"])
    return model({"kv": size}, wake, A=(1, *a, "-kv 5"), B=(1, *b, "-kv 4"))


def lines(report):
    return [(e.task, e.op, e.n, e.result) for e in report.trace]


@pytest.mark.parametrize("wake", ["fifo", "any-fit"])
@pytest.mark.parametrize("units", [2, 3, 4])
@pytest.mark.parametrize("tasks", [2, 3, 4, 5])
def test_nested_checkout_is_safe_from_its_law_on(tasks, units, wake):
    edge = tasks * (units - 1) + 1
    found = sizes(mappers(tasks, units, 1, wake), "bio")
    assert found.smallest == edge
    assert found.unsafe == tuple(range(1, edge))
    assert found.safe == tuple(range(edge, 2 * tasks * units + 1))


@pytest.mark.parametrize(
    ("tasks", "units"),
    [(n, k) for n in range(2, 9) for k in (1, 2, 3)] + [(64, 3)],
)
def test_the_incident_of_2009_on_both_sides_of_its_edge(tasks, units):
    edge = tasks * (units - 1) + 1
    safe = modelled.check(mappers(tasks, units, edge), sizes=False)
    assert (safe.verdict, safe.complete) == ("ok", True)
    if units > 1:
        stuck = modelled.check(mappers(tasks, units, edge - 1), sizes=False)
        assert (stuck.verdict, len(stuck.stuck)) == ("deadlock", tasks)
        assert len(stuck.trace) == edge - 1 + tasks  # all is taken, then everybody asks


@pytest.mark.parametrize(
    ("wake", "together", "expected"),
    [
        ("any-fit", False, [5, 6, 8, 9, 10, 11, 12]),
        ("fifo", False, [8, 9, 10, 11, 12]),
        ("any-fit", True, [5, 6, 7, 8, 9, 10, 11, 12]),
        ("fifo", True, [5, 6, 7, 8, 9, 10, 11, 12]),
    ],
)
def test_seven_blocks_are_worse_than_six(wake, together, expected):
    found = sizes(vllm(1, wake, together), "kv", 12)
    assert list(found.safe) == expected
    assert list(found.unsafe) == [n for n in range(1, 13) if n not in expected]
    assert found.smallest == (5 if together else 8)


def test_the_trace_is_the_shortest_and_plays_again():
    report = modelled.check(mappers(2, 2, 2), target="m.toml")
    assert lines(report) == [
        ("mapper-1", "alloc", 1, "granted"),
        ("mapper-2", "alloc", 1, "granted"),
        ("mapper-1", "alloc", 1, "waits"),
        ("mapper-2", "alloc", 1, "waits"),
    ]
    assert report.replay == "1.2.1.2"
    assert report.stuck == ("mapper-1", "mapper-2")
    assert report.min_reserve == {"bio": 3}
    assert report.release == ("one bio given back by mapper-1 or mapper-2 frees mapper-1",)
    assert "each of mapper-1, mapper-2 holds 1 of bio and waits for 1 more of bio" in report.reason
    again = modelled.replay(mappers(2, 2, 2), report.replay)
    assert (again.verdict, again.reason, again.trace) == ("deadlock", report.reason, report.trace)


def test_crossed_pools():
    crossed = model({"a": 1, "b": 1}, left=(1, "+a", "+b", "-a -b"), right=(1, "+b", "+a", "-a -b"))
    report = modelled.check(crossed)
    assert (report.verdict, len(report.trace)) == ("deadlock", 4)
    assert report.min_reserve == {"a": 2, "b": 2}
    at_once = model({"a": 1, "b": 1}, left=(1, "+a +b", "-a -b"), right=(1, "+b +a", "-a -b"))
    assert modelled.check(at_once).verdict == "ok"


def test_a_request_larger_than_its_pool():
    report = modelled.check(model({"a": 2}, x=(1, "+a 3", "-a 3"), y=(3, "+a", "-a")))
    assert (report.verdict, report.stuck) == ("deadlock", ("x",))
    assert "x waits for 3 of a, which is larger than the pool: it has 2" in report.reason
    assert lines(report) == [("x", "alloc", 3, "waits")]
    assert report.min_reserve == {"a": 3}


def test_a_choice_is_made_blindly():
    """One alternative would always fit; the other is explored all the same."""
    report = modelled.check(model({"a": 1, "b": 1}, x=(1, "+a", "+b | +a", "-a")))
    assert (report.verdict, report.stuck) == ("deadlock", ("x",))
    assert report.replay == "1.1/2"


def test_units_that_never_come_home():
    report = modelled.check(model({"a": 3}, x=(2, "+a"), y=(1, "+a", "-a")))
    assert (report.verdict, report.complete, report.stuck) == ("leak", True, ())
    assert "2 of a; last held by x-1, x-2" in report.reason
    again = modelled.replay(model({"a": 3}, x=(2, "+a"), y=(1, "+a", "-a")), report.replay)
    assert (again.verdict, again.reason) == ("leak", report.reason)
    short = modelled.check(model({"a": 2}, x=(2, "+a"), y=(1, "+a", "-a")))
    assert (short.verdict, short.stuck) == ("deadlock", ("y",))
    assert sizes(model({"a": 2}, x=(2, "+a"), y=(1, "+a", "-a")), "a").smallest == 3


def test_a_head_that_holds_nothing_blocks_who_would_fit():
    """T4: two units are enough if whatever fits is granted; in order of arrival it takes three."""
    actors = {"big": (1, "+a 2", "-a 2"), "two": (1, "+a", "+a", "-a 2")}
    report = modelled.check(model({"a": 2}, "fifo", **actors))
    assert (report.verdict, report.stuck) == ("deadlock", ("big", "two"))
    assert "which would fit, behind a request that does not" in report.reason
    assert report.min_reserve == {"a": 3}
    assert modelled.check(model({"a": 2}, "any-fit", **actors)).verdict == "ok"


def test_raising_a_reserve_can_create_a_deadlock():
    """T3: two tasks that take two and then one are safe on three, and not on four."""
    found = sizes(model({"a": 1}, "any-fit", x=(2, "+a 2", "+a", "-a 3")), "a")
    assert (found.unsafe, found.smallest) == ((1, 2, 4), 5)


@pytest.mark.parametrize(("gate", "edge"), [(1, 3), (2, 5), (4, 9)])
def test_a_gate_stands_for_the_number_of_tasks(gate, edge):
    """T8: a semaphore outside the collecting loop."""
    steps = ["+gate", "+bio", "+bio", "+bio", "-bio 3", "-gate"]
    found = sizes(model({"bio": 1, "gate": gate}, mapper=(8, *steps)), "bio", 12)
    assert (found.smallest, found.unsafe) == (edge, tuple(range(1, edge)))


def test_no_size_is_safe_if_another_pool_hangs():
    crossed = model(
        {"a": 1, "b": 1, "c": 1},
        left=(1, "+a", "+b", "+c", "-a -b -c"),
        right=(1, "+b", "+a", "-a -b"),
    )
    found = sizes(crossed, "c", 4)
    assert (found.smallest, found.safe, found.unsafe) == (None, (), (1, 2, 3, 4))
    assert modelled.check(crossed).min_reserve == {"a": 2, "b": 2, "c": 1}


def test_not_all_seen_is_said():
    report = modelled.check(mappers(8, 3, 17), max_states=10)
    assert (report.verdict, report.complete, report.states) == ("ok", False, 10)
    assert report.min_reserve == {"bio": 17}  # added up, not searched
    gated = model({"bio": 9, "gate": 4}, mapper=(8, "+gate", "+bio", "+bio", "-bio 2", "-gate"))
    report = modelled.check(gated, max_states=3)
    assert (report.complete, report.min_reserve) == (False, {"bio": None, "gate": None})
    assert report.json()["min_reserve"] == {}
    with pytest.raises(UsageError, match="least is 1"):
        modelled.check(mappers(2, 2, 2), max_states=0)
    with pytest.raises(UsageError, match="no pool 'disk'"):
        sizes(mappers(2, 2, 2), "disk")


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("1.x", "'x' is not a choice"),
        ("3", "no task 3; the model has 2"),
        ("0", "no task 0"),
        ("1/2", "mapper-1 has no alternative 2 at its step 1"),
        ("1.2.1.1", "mapper-1 still waits after 3 steps"),
        ("1*0", "out of range"),
    ],
)
def test_schedules_that_are_refused(schedule, says):
    with pytest.raises(UsageError, match=says):
        modelled.replay(mappers(2, 2, 2), schedule)


def test_a_replay_that_hangs_nobody():
    assert modelled.replay(mappers(2, 2, 3), "1*3.2*3").reason == "this schedule ends well"
    assert modelled.replay(mappers(2, 2, 3), "1.2").reason == "this schedule stops half-way"
    waits = modelled.replay(mappers(2, 2, 2), "1*2.2.1.2*2")
    assert waits.verdict == "ok"
    assert [e.result for e in waits.trace if e.task == "mapper-2"][:2] == ["waits", "granted"]
