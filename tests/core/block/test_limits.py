"""Limits combine so that what fits the whole fits each, and cut a request into pieces that fit."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headway.core.block.limits import NO_LIMITS, Limits
from headway.errors import UsageError

SIZES = st.sampled_from([1, 2, 4, 512, 1536, 4096])
TIMES = st.sampled_from([0, 1, 3, 8])


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    alignment = draw(SIZES)
    return Limits(alignment, alignment * draw(TIMES), alignment * draw(TIMES))


@given(limits(), limits(), st.integers(0, 99), st.integers(1, 99))
def test_what_fits_the_stack_fits_every_layer(upper, below, offset, length) -> None:
    try:
        both = upper.over(below)
    except UsageError:
        assume(False)
    offset, length = offset * both.alignment, length * both.alignment
    while length:
        front = both.front(offset, length)
        assert 0 < front <= length
        assert both.fits(offset, front) and upper.fits(offset, front) and below.fits(offset, front)
        offset, length = offset + front, length - front


def test_none_is_neutral_and_free() -> None:
    its = Limits(512, 4096, 8192)
    assert NO_LIMITS.over(its) == its == its.over(NO_LIMITS)
    assert NO_LIMITS.free and not its.free


@pytest.mark.parametrize("fields", [(0,), (512, 100), (512, -512), (4, 0, 6)], ids=str)
def test_limits_that_make_no_sense_are_refused(fields) -> None:
    with pytest.raises(UsageError):
        Limits(*fields)


def test_limits_that_leave_no_request_are_refused() -> None:
    with pytest.raises(UsageError, match="do not combine"):
        Limits(4096).over(Limits(512, 512))
    with pytest.raises(UsageError, match="do not combine"):
        Limits(512, 0, 1536).over(Limits(512, 0, 4096)).over(Limits(4096))
