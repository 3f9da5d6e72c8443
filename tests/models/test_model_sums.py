"""Sums against search: for a plain model the same sizes are unsafe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway.checker.counts import Search
from headway.checker.locals import Locals
from headway.checker.model import parse
from headway.checker.sums import is_plain, unsafe_sizes


@st.composite
def plain_models(draw):
    actors = {}
    for index in range(draw(st.integers(1, 3))):
        takes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
        steps = [f"+a {n}" for n in takes]
        if draw(st.booleans()):
            steps.append(f"+a {draw(st.integers(1, 3))} | +a {draw(st.integers(1, 3))}")
        elif draw(st.integers(0, 5)):
            steps.append(f"-a {sum(takes)}")
        actors[f"t{index}"] = {"count": draw(st.integers(1, 2)), "steps": steps}
    return {
        "wake": draw(st.sampled_from(["fifo", "any-fit"])), "pools": {"a": 1}, "actors": actors
    }  # fmt: skip


@given(table=plain_models())
def test_sums_tell_what_the_search_finds(table):
    model = parse(table)
    locals_ = Locals(model)
    assert is_plain(locals_)
    unsafe = unsafe_sizes(locals_)
    for size in range(1, locals_.enough()[0] + 2):
        dead = Search(locals_, (size,)).run(shortest=False).dead
        assert bool(unsafe >> size & 1) == dead, size
