"""The search over counts against plain interleavings: verdict, every size, length of the shortest trace.

A cell is one model with one size and one wake policy; an example is ten cells. That makes 2,000 cells
at each run, split by how many tasks there are of each actor; `tests.checker.agreement` does the 100,000
of `./dev fuzz`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.checker import modelled
from headway.checker.model import parse
from headway.checker.modelled import sizes
from tests.checker import agreement
from tests.checker.brute import Brute

SIZES = 5
POOLS = ("a", "b", "c")
COUNTS = [(1,), (2,), (1, 1), (3,), (1, 2), (1, 1, 1), (4,), (1, 3), (2, 2), (1, 1, 2)]


@st.composite
def amounts(draw, most):
    """Some of each pool, at least one in all; mostly of one pool alone."""
    pools = [pool for pool, n in enumerate(most) if n]
    first = draw(st.sampled_from(pools))
    found = [0] * len(most)
    found[first] = draw(st.integers(1, min(2, most[first])))
    for pool in pools:
        if pool != first and draw(st.integers(0, 3)) == 0:
            found[pool] = draw(st.integers(1, min(2, most[pool])))
    return found


def text(sign, found):
    return " ".join(f"{sign}{POOLS[p]} {n}" for p, n in enumerate(found) if n)


@st.composite
def steps(draw, pools, length):
    """Takes and partial returns; mostly all comes home at the end, sometimes not; here and there a choice."""
    held = [0] * pools
    found = []
    for _ in range(draw(st.integers(1, length))):
        if any(held) and draw(st.integers(0, 3)) == 0:
            back = draw(amounts(held))
            held = [h - n for h, n in zip(held, back, strict=True)]
            found.append(text("-", back))
            continue
        take = draw(amounts([2] * pools))
        if draw(st.integers(0, 9)) == 0:
            found.append(text("+", take) + " | " + text("+", draw(amounts([2] * pools))))
            continue  # what is held is not known any more: nothing of it is given back
        held = [h + n for h, n in zip(held, take, strict=True)]
        found.append(text("+", take))
    if any(held) and draw(st.integers(0, 9)):
        found.append(text("-", held))
    return found


@st.composite
def models(draw, counts):
    pools = draw(st.integers(1, 3))
    length = {1: 5, 2: 5, 3: 3, 4: 1}[sum(counts)]
    actors = {
        f"t{i}": {"count": counts[i], "steps": draw(steps(pools, length))}
        for i in range(len(counts))
    }
    rest = {name: draw(st.integers(1, 4)) for name in POOLS[1:pools]}
    return {"pools": {"a": 1, **rest}, "actors": actors}


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@settings(max_examples=settings.default.max_examples * 4 // len(COUNTS))
@given(data=st.data())
def test_agrees_with_every_interleaving(counts, data):
    table = data.draw(models(counts))
    for wake in ("fifo", "any-fit"):
        model = parse({**table, "wake": wake})
        safe = []
        for size in range(1, SIZES + 1):
            at = model.at(0, size)
            verdict, shortest, _ = Brute(at).explore()
            report = modelled.check(at, sizes=False)
            assert (report.verdict, report.complete) == (verdict, verdict != "deadlock")
            if verdict == "deadlock":
                assert events(report.trace) == shortest
                again = modelled.replay(at, report.replay)
                assert (again.verdict, again.trace) == ("deadlock", report.trace)
            else:
                safe.append(size)
        assert list(sizes(model, "a", SIZES).safe) == safe


def test_thousands_are_counted_and_a_disagreement_is_one_command(monkeypatch):
    said = []
    assert agreement.many(0, 60, 1, said.append) == 0
    assert said[-1].startswith("60 cells from seed 0 on agree with brute force (")
    right = Brute.explore
    monkeypatch.setattr(Brute, "explore", lambda self: (*right(self)[:1], 99, 0))
    assert agreement.many(0, 60, 1, said.append) == 1
    assert any("a trace of" in line and "and 99 are enough" in line for line in said)
    assert any(
        line.startswith("  again: python -m tests.checker.agreement --seed ") for line in said
    )


def events(trace):
    """How many steps were taken: a request over several pools has a line for each, and is one."""
    return trace[-1].step
