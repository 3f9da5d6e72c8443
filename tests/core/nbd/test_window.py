"""The sum of the frames, and shares of the spare ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.nbd.window import OWN, Window
from headway.errors import UsageError

MIB = 1 << 20


@given(st.integers(128 << 10, 4 << 30))
def test_the_sum_holds_and_the_limit_is_kept(memory):
    window = Window(memory)
    assert window.frame_size * window.frame_count <= memory - memory // 4
    assert 3 + OWN * window.connection_limit + window.spare == window.frame_count
    assert window.connection_limit >= 1 and window.spare >= 1
    assert window.frame_size % 4096 == 0


def test_what_people_use():
    assert (Window(64 * MIB).frame_size, Window(64 * MIB).connection_limit) == (256 << 10, 70)
    assert (Window(16 * MIB).frame_size, Window(16 * MIB).connection_limit) == (64 << 10, 70)
    assert Window(1 << 30).connection_limit > 1000


def test_too_little_is_refused_with_what_is_enough():
    with pytest.raises(UsageError, match="128KiB or more"):
        Window((128 << 10) - 1)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=200))
def test_whoever_takes_all_it_can_leaves_some_for_a_newcomer(steps):
    window = Window(4 * MIB)
    held = [0] * 5
    for who, taking in steps:
        if taking:
            if window.take_spare(held[who]):
                held[who] += 1
        elif held[who]:
            window.give_spare()
            held[who] -= 1
        assert sum(held) + window.spare_free == window.spare
    for who in range(5):
        while window.take_spare(held[who]):
            held[who] += 1
    assert window.spare_free >= window.spare * (2 / 3) ** 5 - 1
    assert window.take_spare(0)


def test_a_single_one_gets_about_a_third():
    window = Window(64 * MIB)
    held = 0
    while window.take_spare(held):
        held += 1
    assert window.spare // 4 <= held <= window.spare // 2


@given(st.integers(128 << 10, 1 << 30), st.lists(st.booleans(), max_size=100))
def test_what_the_kernel_may_keep_is_never_more_than_its_quarter(memory, steps):
    window = Window(memory)
    granted = []
    for coming in steps:
        if coming and len(granted) < window.connection_limit:
            granted.append(window.take_kernel())
        elif granted and not coming:
            window.give_kernel(granted.pop(0))
        assert sum(granted) <= memory // 4
        assert all(window.kernel_floor <= grant <= MIB for grant in granted)
