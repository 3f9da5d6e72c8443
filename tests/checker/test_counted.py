"""Real code by counts: held to plain interleavings of its steps, to the schedules run one by one, and to the rules.

A random model is made into real functions; the check of the code must agree with the brute force over
the model on verdict, number of events of the shortest trace, and smallest safe size.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headway as hw
from headway.checker.counted import counted
from headway.checker.learn import NotPlain
from headway.checker.model import Model, parse
from headway.checker.plain import plain
from headway.checker.target import check
from headway.checker.trial import Settings
from headway.runtimes.scopes import made_for
from tests.checker import gallery
from tests.checker.brute import Brute
from tests.checker.test_gallery import BUGS, TWINS

SETTINGS = Settings(ambient=made_for)
FUZZING = settings.default.max_examples > 1000
SINGLE = st.tuples(st.sampled_from("ab"), st.integers(1, 2))


@st.composite
def rows(draw: Any, length: int) -> list[str]:
    """Requests of one pool each, as code makes them; partial returns; here and there something is kept."""
    held = {"a": 0, "b": 0}
    found = []
    for _ in range(draw(st.integers(1, length))):
        pool, n = draw(SINGLE)
        if held[pool] >= n and draw(st.integers(0, 3)) == 0:
            held[pool] -= n
            found.append(f"-{pool} {n}")
        else:
            held[pool] += n
            found.append(f"+{pool} {n}")
    if draw(st.integers(0, 9)):
        found += [f"-{pool} {n}" for pool, n in held.items() if n]
    return found


def walks(pools: dict[str, Any], *steps: str) -> None:
    """What an actor of a model does, as code: the elements of a step given back are those taken last."""
    held: dict[str, list[Any]] = {name: [] for name in pools}
    for step in steps:
        name, n = step[1], int(step[3:])
        if step[0] == "+":
            held[name] += pools[name].alloc_bulk(n) if n > 1 else [pools[name].alloc()]
        else:
            for _ in range(n):
                pools[name].free(held[name].pop())


def walk(a: Any, b: Any, *steps: str) -> None:
    walks({"a": a, "b": b}, *steps)


def program(model: Model, texts: list[list[str]]) -> Any:
    wake = hw.Wake.FIFO if model.wake == "fifo" else hw.Wake.ANY_FIT
    in_a, in_b = model.capacities
    tasks = tuple(
        tuple(steps)
        for actor, steps in zip(model.actors, texts, strict=True)
        for _ in range(actor.count)
    )

    def main() -> None:
        a = hw.Mempool.of(range(in_a), name="a", wake=wake)
        b = hw.Mempool.of(range(in_b), name="b", wake=wake)
        for steps in tasks:
            hw.spawn(walk, a, b, *steps)

    return main


@pytest.mark.parametrize("counts", [(2,), (1, 1), (3,), (1, 2)], ids=str)
@settings(max_examples=settings.default.max_examples // 4, derandomize=not FUZZING)
@given(data=st.data())
def test_real_code_agrees_with_every_interleaving_of_its_steps(counts: Any, data: Any) -> None:
    texts = [data.draw(rows(4 if sum(counts) < 3 else 3)) for _ in counts]
    sizes = {"a": data.draw(st.integers(1, 4)), "b": data.draw(st.integers(1, 3))}
    for wake in ("fifo", "any-fit"):
        actors = {f"t{i}": {"count": counts[i], "steps": texts[i]} for i in range(len(counts))}
        model = parse({"wake": wake, "pools": sizes, "actors": actors})
        if any(int(t[3:]) > sizes[t[1]] for steps in texts for t in steps if t[0] == "+"):
            continue  # a bulk larger than its pool is refused at once, and never waits
        verdict, shortest, _ = Brute(_one_by_one(model, actors)).explore()
        report = counted(program(model, texts), SETTINGS, sizes=False)
        assert (report.verdict, report.complete) == (verdict, verdict == "ok")
        if verdict == "deadlock":
            assert len(report.trace) == shortest


def _one_by_one(model: Model, actors: dict[str, Any]) -> Model:
    """Code gives back one element at a time."""
    split = {
        name: {
            "count": actor["count"],
            "steps": [
                part
                for step in actor["steps"]
                for part in ([f"-{step[1]}"] * int(step[3:]) if step[0] == "-" else [step])
            ],
        }
        for name, actor in actors.items()
    }
    sizes = dict(zip(model.pools, model.capacities, strict=True))
    return parse({"wake": model.wake, "pools": sizes, "actors": split})


PLAIN = {name for name, *_ in (*BUGS, *TWINS)} - {
    "loop_of_2009_unwinding", "timed_wait", "timeout_as_a_watchdog", "pool_over_pool",
    "shares_a_list", "depends_on_the_element", "leak_on_timeout", "looks_before_it_takes",
    "timeout_that_nobody_catches", "stuck_and_then_raises", "double_free", "raises",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({name for name, *_ in (*BUGS, *TWINS)}))
def test_the_gallery_by_counts_and_by_schedules(name: str) -> None:
    """Whatever can be judged by counts comes out as it does when each schedule is run; the rest is refused."""
    function = getattr(gallery, name)
    if name not in PLAIN:
        with pytest.raises(NotPlain):
            counted(function, SETTINGS)
        return
    by_counts = counted(function, SETTINGS)
    one_by_one = check(function, by_counts=False, max_schedules=2000)
    assert by_counts.verdict == one_by_one.verdict
    assert by_counts.stuck == one_by_one.stuck
    assert len(by_counts.trace) == len(one_by_one.trace)
    assert by_counts.min_reserve == one_by_one.min_reserve


def takes(pool: Any, count: int) -> None:
    taken = [pool.alloc() for _ in range(count)]
    for element in taken:
        pool.free(element)


def crowd(tasks: int, count: int, size: int) -> Any:
    def main() -> None:
        pool = hw.Mempool.of(range(size), name="bio")
        for _ in range(tasks):
            hw.spawn(takes, pool, count)

    return main


@pytest.mark.parametrize(("tasks", "states"), [(8, 45), (64, 2145)])
def test_the_incident_of_2009_with_many_tasks(tasks: int, states: int) -> None:
    edge = tasks * 2 + 1
    safe, stuck = check(crowd(tasks, 3, edge)), check(crowd(tasks, 3, edge - 1))
    assert (safe.verdict, safe.complete, safe.method) == ("ok", True, "sums")
    assert (stuck.verdict, len(stuck.stuck), len(stuck.trace)) == ("deadlock", tasks, 3 * tasks)
    assert safe.min_reserve == stuck.min_reserve == {"bio": edge}
    assert (safe.states, stuck.states) == (0, states)
    assert "no state had to be searched" in safe.text()


def test_each_kind_of_task_is_run_once_however_many_there_are() -> None:
    runs = []

    def noted(pool: Any) -> None:
        print(
            len(runs)
        )  # a closed-over list would be shared: see how often the code runs from outside
        pool.free(pool.alloc())

    def main() -> None:
        pool = hw.Mempool.of(range(1), name="bio")
        for _ in range(100):
            hw.spawn(noted, pool)

    with pytest.raises(NotPlain, match="uses runs, a list"):
        counted(main, SETTINGS)
    assert plain(crowd(100, 2, 1), SETTINGS).model.actors[0].count == 100


def swallows(pool: Any) -> None:
    try:
        pool.free(pool.alloc(timeout_s=1.0))
    except BaseException:
        return


def test_code_that_catches_everything_does_not_hide_why_it_is_not_plain() -> None:
    def main() -> None:
        hw.spawn(swallows, hw.Mempool.of(range(1), name="bio"))

    with pytest.raises(NotPlain, match="swallows-1 asks bio in a way that may come to nothing"):
        counted(main, SETTINGS)


def test_an_allocator_that_works_may_be_what_leads_to_the_deadlock() -> None:
    """Any-fit with two units each, then one: three are safe, four are not, and a working allocator makes four."""

    def two_then_one(pool: Any) -> None:
        pair = pool.alloc_bulk(2)
        pair.append(pool.alloc())
        pool.free_bulk(pair)

    def main() -> None:
        pool = hw.Mempool(alloc=object, min_count=3, name="bio", wake=hw.Wake.ANY_FIT)
        hw.spawn(two_then_one, pool)
        hw.spawn(two_then_one, pool)

    with pytest.raises(NotPlain, match="an allocator that works may lead to a deadlock"):
        counted(main, SETTINGS)
    assert check(main, sizes=False, max_schedules=3000).verdict == "deadlock"


def test_a_partial_is_the_function_with_its_arguments() -> None:
    def main() -> None:
        pool = hw.Mempool.of(range(3), name="bio")
        for count in (2, 2, 1):
            hw.spawn(functools.partial(takes, count=count), pool)

    report = counted(main, SETTINGS)
    assert (report.verdict, report.min_reserve) == ("ok", {"bio": 3})
    assert [actor.count for actor in plain(main, SETTINGS).model.actors] == [2, 1]
