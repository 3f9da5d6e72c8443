"""The copier's decisions: pieces in order, a line that restores order, the last one out frees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.block.copier import (
    Capped,
    Line,
    Sequence,
    Shares,
    mover_count,
    size_frames,
)
from headway.core.block.device import Extent
from headway.errors import UsageError

REQUEST = 4096


def pieces(size, extents, *, keep_holes):
    """What a sequence gives for a map of extents [(end, hole)...] that ends at `size`."""

    def extent(offset):
        return next(Extent(end, hole) for end, hole in extents if end > offset)

    sequence = Sequence(size, REQUEST, extent, keep_holes=keep_holes)
    found = []
    while (piece := sequence.take()) is not None:
        found.append(piece)
    assert sequence.take() is None
    return found


@st.composite
def extent_maps(draw):
    lengths = draw(st.lists(st.integers(1, 40_000), max_size=8))
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [(end, draw(st.booleans())) for end in ends]


@given(extent_maps(), st.booleans())
def test_pieces_cover_the_source_once_in_order(extents, keep_holes):
    size = extents[-1][0] if extents else 0
    offset = 0
    for number, piece in enumerate(pieces(size, extents, keep_holes=keep_holes)):
        assert (piece.number, piece.offset) == (number, offset)
        assert 0 < piece.length and (piece.hole or piece.length <= REQUEST)
        offset += piece.length
    assert offset == size


@given(extent_maps())
def test_a_byte_is_in_a_hole_piece_exactly_if_it_is_in_a_hole(extents):
    size = extents[-1][0] if extents else 0
    for piece in pieces(size, extents, keep_holes=True):
        start = 0
        for end, hole in extents:
            if start < piece.offset + piece.length and piece.offset < end:
                assert hole == piece.hole
            start = end


def test_holes_are_read_like_data_if_the_destination_does_not_start_as_zeros():
    found = pieces(3 * REQUEST, [(2 * REQUEST, True), (3 * REQUEST, False)], keep_holes=False)
    assert [(piece.length, piece.hole) for piece in found] == [(REQUEST, False)] * 3


@given(st.permutations(range(6)))
def test_the_line_restores_order_and_keeps_nothing(order):
    line: Line[int] = Line()
    left = []
    for number in order:
        left += line.enter(number, number)
    assert left == sorted(order)
    assert line.drain() == []


def test_a_line_that_waits_for_what_never_comes_is_drained():
    line: Line[str] = Line()
    assert line.enter(2, "c") == []
    assert line.enter(1, "b") == []
    assert sorted(line.drain()) == ["b", "c"]
    assert line.drain() == []


@given(st.integers(1, 5))
def test_only_the_last_to_leave_frees(count):
    shares = Shares(count)
    assert [shares.leave() for _ in range(count)] == [False] * (count - 1) + [True]


class Backend:
    """An allocator of numbers that counts what is out, and can be made to fail."""

    def __init__(self):
        self.out = 0
        self.fails = False

    def alloc(self, gfp):
        if self.fails:
            return None
        self.out += 1
        return self.out

    def free(self, element):
        self.out -= 1


def test_a_cap_fails_beyond_its_count_and_counts_only_what_it_gave():
    backend = Backend()
    capped = Capped(backend, 2)
    backend.fails = True
    assert [capped.alloc(0) for _ in range(5)] == [None] * 5
    backend.fails = False
    one, two = capped.alloc(0), capped.alloc(0)
    assert one and two and capped.alloc(0) is None and backend.out == 2
    capped.free(one)
    assert capped.alloc(0) is not None and capped.alloc(0) is None
    assert capped.light is None  # a backend without a light door gets none


@pytest.mark.parametrize(
    ("memory", "request_size", "in_flight", "count", "reserve"),
    [
        (8 << 20, 1 << 20, None, 8, 2),
        (64 << 20, 1 << 20, None, 8, 2),
        (64 << 20, 1 << 20, 40, 40, 2),
        (64 << 20, 1 << 20, 1, 1, 1),
        ((2 << 20) - 1, 1 << 20, None, 1, 1),
        (4096, 4096, None, 1, 1),
        (8 << 20, 3 << 20, None, 2, 2),
    ],
)
def test_frames_fit_the_limit(memory, request_size, in_flight, count, reserve):
    sizing = size_frames(memory, request_size, in_flight)
    assert (sizing.in_flight, sizing.reserve) == (count, reserve)
    assert request_size <= sizing.frame_size
    assert sizing.in_flight * sizing.frame_size <= memory


def test_what_was_not_asked_for_is_least_where_nothing_waits_for_a_disk():
    sizing = size_frames(64 << 20, None, None, in_memory=True)
    assert (sizing.in_flight, sizing.request_size, sizing.frame_size) == (4, 512 << 10, 512 << 10)
    assert size_frames(64 << 20, None, None).request_size == 1 << 20
    asked = size_frames(64 << 20, 3 << 20, 7, in_memory=True)
    assert (asked.in_flight, asked.request_size) == (7, 3 << 20)
    with pytest.raises(UsageError, match="the least that works is 1MiB"):
        size_frames(512 << 10, None, None, in_memory=True)  # what is said holds everywhere


@pytest.mark.parametrize(
    ("memory", "request_size", "in_flight", "says"),
    [
        (1 << 16, 1 << 20, None, "the least that works is 1MiB"),
        (100, 1 << 20, None, "1MiB, or 4KiB with a request size of 4KiB"),
        (3 << 20, 3 << 20, None, "works is 4MiB, or a request size of at most 2MiB"),
        (1 << 20, 1000, None, "use 4096 instead"),
        (1 << 20, 5000, None, "use 8192 instead"),
        (1 << 20, 4096, 0, "at least 1"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(memory, request_size, in_flight, says):
    with pytest.raises(UsageError, match=says):
        size_frames(memory, request_size, in_flight)


@given(st.booleans(), st.booleans(), st.integers(1, 20))
def test_there_are_never_more_movers_than_frames(hashing, direct, in_flight):
    count = mover_count(hashing=hashing, direct=direct, in_flight=in_flight)
    assert 1 <= count <= min(2, in_flight)
