"""A write cache's ring, by hand: where segments are, and what is given back."""

from __future__ import annotations

from headway.core.block.logformat import Entry
from headway.core.block.ring import Ring


def test_segments_are_placed_by_hand() -> None:
    """Room of eight blocks: a segment never crosses the end, a full ring gives none, a release gives it back."""
    ring = Ring(8, 3, 0, 1, 1)
    first = ring.place(3, 3)
    assert first is not None and (first.segment.start, first.position, ring.used) == (0, 1, 4)
    second = ring.place(2, 2)  # the first is full, so it was sealed
    assert second is not None and second.segment.start == 4 and ring.sealed() == [first.segment]
    assert ring.place(2, 2) is None  # one block is left
    assert ring.done(first, [Entry(n, 0, 0) for n in (7, 8, 9)]) is None
    found = ring.find(7, 5)
    assert (found.count, found.position, found.segment) == (3, 1, first.segment)
    assert ring.find(1, 9).count == 6  # up to what is here
    ring.committed([first.segment])
    assert ring.needed([first.segment]) == {7: 1, 8: 2, 9: 3}
    ticket = first.segment.quiet()
    ring.drop([first.segment])
    assert ring.find(7, 3).segment is None
    assert ticket is not None and first.segment.read() is ticket
    ring.release([first.segment])
    assert (ring.tail, ring.used) == (4, 3)
    third = ring.place(3, 3)  # from the beginning: the block that is left at the end is passed over
    assert third is not None and (third.segment.start, ring.used) == (8, 8)


def test_a_segment_that_fills_the_ring_to_its_end_is_sealed_there() -> None:
    """Room of twelve blocks, segments of up to five: what follows the last begins at the beginning."""
    ring = Ring(12, 4, 0, 1, 1)
    places = [ring.place(1, 1) for _ in range(9)]
    first, last = places[0], places[-1]
    assert first is not None and last is not None and (last.position, ring.head) == (11, 12)
    ring.committed([first.segment])
    ring.drop([first.segment])
    ring.release([first.segment])
    following = ring.place(1, 1)
    assert following is not None and (following.segment.start, following.position) == (12, 13)
