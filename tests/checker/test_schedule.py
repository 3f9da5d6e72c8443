"""A schedule's text gives the schedule back, and what is no schedule is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.checker.schedule import parse, render, seeded
from headway.errors import UsageError
from headway.runtimes.simulator import Kind, Option

OPTIONS = st.builds(Option, st.integers(1, 30), st.sampled_from(Kind))


@given(st.lists(OPTIONS, max_size=60).map(tuple))
def test_the_text_gives_the_schedule_back(schedule: tuple[Option, ...]) -> None:
    assert parse(render(schedule)) == schedule


def test_repeats_and_marks_are_short() -> None:
    one, fails = Option(1), Option(2, Kind.FAIL)
    assert render((one, one, one, fails)) == "1*3.2!"
    assert render(()) == "-"


@pytest.mark.parametrize("text", ["", "a", "1..2", "1*0", "0", "1?", "1*9999999", "-1"])
def test_what_is_no_schedule_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="schedule: "):
        parse(text)


def test_one_seed_is_one_oracle_and_none_differs() -> None:
    options = [Option(number) for number in range(1, 100)]

    def picks(seed: int | None) -> list[int]:
        oracle = seeded(seed)
        return [oracle(options) for _ in range(20)]

    assert picks(3) == picks(3)
    assert picks(None) != picks(None)
