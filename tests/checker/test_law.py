"""The law is told where every cell obeys it, gives what search gives elsewhere, and is null where none fits."""

import itertools

import pytest

from headway.checker.law import law
from headway.checker.model import parse
from headway.checker.modelled import sizes


def table(pools, wake="fifo", **actors):
    rows = {name: {"count": count, "steps": steps} for name, (count, *steps) in actors.items()}
    return {"wake": wake, "pools": pools, "actors": rows}


def mapper(tasks, takes, wake="fifo", units=1):
    steps = [f"+bio {units}"] * takes + [f"-bio {takes * units}"]
    return table({"bio": 2}, wake, mapper=(tasks, *steps))


@pytest.mark.parametrize("wake", ["fifo", "any-fit"])
def test_the_law_of_2009(wake):
    found = law(parse(mapper(8, 3, wake)), 0)
    assert found["formula"] == "n*(k - 1) + 1"
    assert found["parameters"] == {
        "n": {"meaning": "tasks of mapper", "value": 8},
        "k": {"meaning": "times in a row that each task of mapper takes 1 of bio", "value": 3},
    }
    assert {"n": 8, "k": 3, "smallest": 17} in found["cells"]
    assert len(found["cells"]) == 10


@pytest.mark.parametrize("units", [1, 2])
def test_it_holds_far_from_its_cells(units):
    formula = law(parse(mapper(2, 2, units=units)), 0)["formula"]
    for n, k in itertools.product((5, 7), (4, 6)):
        assert (
            eval(formula, {"n": n, "k": k})
            == sizes(parse(mapper(n, k, units=units)), "bio").smallest
        )


def test_several_actors_and_runs():
    found = law(
        parse(
            table(
                {"kv": 1}, "any-fit",
                A=(1, "+kv 4", "+kv", "-kv 5"),
                B=(2, "+kv", "+kv", "+kv 2", "+kv 2", "-kv 2", "-kv 4"),
            )
        ), 0,
    )  # fmt: skip
    names = {"n_A", "n_B", "k1_B", "k2_B"}
    assert set(found["parameters"]) == names
    assert len(found["cells"]) == 3**4
    for cell in found["cells"]:
        assert eval(found["formula"], {name: cell[name] for name in names}) == cell["smallest"]


def test_crossed_pools_have_one_while_the_other_pool_is_small():
    crossed = table({"a": 1, "b": 1}, l=(1, "+a", "+b", "-a -b"), r=(1, "+b", "+a", "-a -b"))
    assert law(parse(crossed), 0)["formula"] == "n_l + 1"


def test_no_law_where_none_is_linear():
    gate = table({"bio": 1, "gate": 2}, m=(8, "+gate", "+bio", "+bio", "-bio 2", "-gate"))
    assert law(parse(gate), 0) is None  # the smaller of tasks and gate: not linear in the tasks
    few = table({"bio": 1, "gate": 4}, m=(2, "+gate", "+bio", "+bio", "-bio 2", "-gate"))
    assert law(parse(few), 0) is None  # the gate is not reached yet, and will be
    hangs = table({"a": 1, "b": 1}, m=(1, "+a", "+b 2", "-a -b 2"))
    assert law(parse(hangs), 0) is None
