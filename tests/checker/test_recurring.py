"""Models whose actors come round again: livelock and starvation are found, shown, and replayed."""

from __future__ import annotations

from typing import Any

import pytest

from headway.checker import check, largest, odds, replay, reserve, size
from headway.checker.model import parse
from headway.errors import UsageError
from tests.house import tree

OWN_THEN_OTHER = {
    "lefty": {"steps": ["+left", "?right", "-right -left"]},
    "righty": {"steps": ["+right", "?left", "-left -right"]},
}


def sides(actors: dict[str, Any], each: int = 1) -> dict[str, Any]:
    return {"pools": {"left": each, "right": each}, "actors": actors}


def served(wake: str) -> dict[str, Any]:
    """A batch of two among two that serve one each, for ever."""
    actors = {
        "serves": {"count": 2, "loop": True, "steps": ["+slots", "-slots"]},
        "batch": {"steps": ["+slots 2", "-slots 2"]},
    }
    return {"wake": wake, "pools": {"slots": 2}, "actors": actors}


FOUND = [
    (sides(OWN_THEN_OTHER), "livelock", 2),
    (sides({"lefty": {**OWN_THEN_OTHER["lefty"], "count": 2}}), "ok", 0),
    (sides(OWN_THEN_OTHER, 2), "ok", 0),
    (served("any-fit"), "starvation", 1),
    (served("fifo"), "ok", 0),
    ({"pools": {"s": 2}, "actors": {"w": {"count": 2, "loop": True, "steps": ["+s", "+s", "-s 2"]}}},
     "deadlock", 2),
    ({"pools": {"s": 3}, "actors": {"w": {"count": 2, "loop": True, "steps": ["+s", "+s", "-s 2"]}}},
     "ok", 0),
    ({"pools": {"s": 1}, "actors": {"w": {"steps": ["?s"]}}}, "leak", 0),
]  # fmt: skip


@pytest.mark.parametrize(("table", "verdict", "stuck"), FOUND, ids=range(len(FOUND)))
def test_what_becomes_of_actors_that_come_round(
    table: dict[str, Any], verdict: str, stuck: int
) -> None:
    report = check(table)
    assert (report.verdict, len(report.stuck)) == (verdict, stuck), report.text()
    assert report.complete == (verdict == "ok")
    if verdict == "ok":
        return
    assert report.replay is not None
    again = replay(table, report.replay)
    assert (again.verdict, again.stuck, again.trace) == (verdict, report.stuck, report.trace)


def test_the_file_of_the_page_is_the_code_of_the_example() -> None:
    from examples import rounds

    model = check(tree.ROOT / "examples" / "give_way.toml")
    code = check(rounds.both_give_way)
    assert model.verdict == code.verdict == "livelock"
    looks = [[(e.op, e.pool, e.result) for e in report.trace] for report in (model, code)]
    assert looks[0] == looks[1]


def test_a_deadlock_of_a_loop_has_its_smallest_size_and_a_model_that_ends_says_that_it_does() -> (
    None
):
    table = FOUND[5][0]
    assert check(table).min_reserve == {"s": 3}
    once = {"pools": {"s": 1}, "actors": {"w": {"steps": ["+s", "-s"]}}}
    assert check(once).reason.endswith("each actor makes its steps once, so none goes on for ever")


def test_a_try_for_several_takes_all_or_nothing() -> None:
    table = sides({name: {"steps": [s if s[0] == "-" else f"{s} 2" for s in actor["steps"][:2]]
                           + ["-left 2", "-right 2"]} for name, actor in OWN_THEN_OTHER.items()}, 2)  # fmt: skip
    report = check(table)
    assert report.verdict == "livelock"
    assert {e.n for e in report.trace if e.result == "none"} == {2}


WRONG = [
    ({"loop": "yes", "steps": ["+a", "-a"]}, "actor x: loop is 'yes'; write true or false"),
    ({"loop": True, "steps": ["+a"]}, "actor x loops, and still holds something"),
    ({"loop": True, "steps": ["+a 1 +b 1", "-a -b"]}, "none asks for several pools at once"),
    ({"steps": ["?a | ?b"]}, "no actor has a choice"),
    ({"steps": ["+a", "?a +b"]}, "takes and gives back at once, or takes and tries"),
]


@pytest.mark.parametrize(("actor", "words"), WRONG)
def test_what_such_a_model_cannot_say_is_refused_in_one_line(
    actor: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse({"pools": {"a": 2, "b": 2}, "actors": {"x": actor}})
    assert words in str(caught.value)


def test_what_counts_steps_made_once_refuses_such_a_model() -> None:
    table = served("fifo")
    for ask in (
        lambda: reserve(table), lambda: largest(table, "serves"), lambda: odds(table, runs=1),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="headway check judges it"):
            ask()


LARGER = [
    ({"w": {"count": 2, "loop": True, "steps": ["+s 3", "-s 3"]}}, "deadlock", "w-1"),
    ({"w": {"loop": True, "steps": ["+s", "-s"]}, "b": {"steps": ["+s 3", "-s 3"]}}, "deadlock", "b-1"),
    ({"w": {"steps": ["+s", "?s 3", "-s 4"]}}, "livelock", "w-1"),
    ({"w": {"steps": ["?s 3", "-s 3"]}, "v": {"steps": ["+s", "-s"]}}, "livelock", "w-1"),
]  # fmt: skip


@pytest.mark.parametrize("wake", ["fifo", "any-fit"])
@pytest.mark.parametrize(("actors", "verdict", "stuck"), LARGER, ids=range(len(LARGER)))
def test_a_request_larger_than_its_pool_waits_for_ever_as_in_a_model_that_ends(
    actors: dict[str, Any], verdict: str, stuck: str, wake: str
) -> None:
    report = check({"wake": wake, "pools": {"s": 2}, "actors": actors})
    assert (report.verdict, report.stuck[0]) == (verdict, stuck), report.text()
    if verdict == "deadlock":
        assert "waits for 3 more of s, which has only 2" in report.reason
        assert report.min_reserve == {"s": 3}
    assert report.replay is not None
    again = replay({"wake": wake, "pools": {"s": 2}, "actors": actors}, report.replay)
    assert (again.verdict, again.stuck, again.trace) == (verdict, report.stuck, report.trace)


def test_the_same_actors_once_and_round_are_stuck_at_the_same_request() -> None:
    for steps in (["+s 3", "-s 3"], ["+s", "+s 2", "-s 3"]):
        once, round_ = (
            check({"pools": {"s": 2}, "actors": {"w": {"count": 2, "steps": steps, "loop": loop}}})
            for loop in (False, True)
        )
        assert once.verdict == round_.verdict == "deadlock"
        assert len(once.trace) == len(round_.trace) and once.min_reserve == round_.min_reserve


SIZES: list[tuple[dict[str, Any], str, int | None, set[int]]] = [
    (FOUND[5][0], "s", 3, {1, 2}),
    (served("any-fit"), "slots", 3, {1, 2}),
    (served("fifo"), "slots", 2, {1}),
    (sides(OWN_THEN_OTHER), "left", 2, {1}),
    ({"pools": {"s": 1}, "actors": {"w": {"count": 2, "steps": ["+s 2", "?s", "-s 3"]}}}, "s", 5, {1, 2, 3, 4}),
    ({"pools": {"s": 1, "t": 1}, "actors": {"w": {"loop": True, "steps": ["+t", "+s 2", "-s 2", "-t"]}}},
     "t", None, {1, 2}),
]  # fmt: skip


@pytest.mark.parametrize(("table", "pool", "smallest", "unsafe"), SIZES, ids=range(len(SIZES)))
def test_every_size_of_a_model_that_comes_round_is_what_check_says_of_it(
    table: dict[str, Any], pool: str, smallest: int | None, unsafe: set[int]
) -> None:
    found = size(table, pool)
    assert (found.smallest, found.law) == (smallest, None), found
    assert set(found.unsafe) == unsafe and len(found.safe) + len(found.unsafe) >= 2, found
    for n in (*found.safe[:3], *found.unsafe):
        report = check(table | {"pools": table["pools"] | {pool: n}}, sizes=False)
        assert (report.verdict in ("ok", "leak")) == (n in found.safe)


def test_a_leak_hides_no_livelock() -> None:
    """Who keeps a unit of another pool ends no search: what the size is judged by may come after it."""
    for extra in (
        {},
        {"keeps": {"steps": ["+third"]}},
        {"keeps": {"count": 2, "steps": ["+third"]}},
    ):
        actors = {**OWN_THEN_OTHER, **extra}
        table = {"pools": {"left": 1, "right": 1, "third": 2}, "actors": actors}
        found = size(table, "left")
        assert (found.smallest, found.unsafe) == (2, (1,)), extra
        assert check(table).verdict == ("leak" if extra else "livelock")


def test_a_unit_that_is_kept_is_one_less() -> None:
    """By a task that ends with it, if another comes round for two."""
    actors = {"keeps": {"steps": ["+s"]}, "loops": {"loop": True, "steps": ["+s 2", "-s 2"]}}
    found = size({"pools": {"s": 3}, "actors": actors}, "s")
    assert (found.smallest, found.unsafe) == (3, (1, 2))


def test_more_sizes_than_can_be_judged_one_by_one_are_refused() -> None:
    table = {
        "pools": {"s": 1},
        "actors": {"w": {"count": 600, "loop": True, "steps": ["+s 2", "-s 2"]}},
    }
    with pytest.raises(
        UsageError, match="pool s: 2400 sizes of a model that recurs are to be judged"
    ):
        size(table, "s")
