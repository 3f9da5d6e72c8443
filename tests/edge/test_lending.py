"""Debug mode: who still looks at freed memory is told, and who writes to it leaves a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headway.edge.arena import PAGE_BYTES, Arena
from headway.edge.lending import POISON, Lending, written_after_free
from headway.errors import UsageError


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(64 * PAGE_BYTES)
    yield arena
    arena.close()


def test_a_returned_view_is_dead(arena: Arena) -> None:
    lending = Lending(arena)
    view, finding = lending.lend(PAGE_BYTES, 100)
    assert (finding, len(view), view.format, view.readonly) == (None, 100, "B", False)
    view[3] = 1
    lending.take_back(PAGE_BYTES)
    with pytest.raises(ValueError, match="released"):
        view[3] = 2
    assert lending.lend(PAGE_BYTES, 100)[1] is None
    lending.take_back(PAGE_BYTES)


def test_a_slice_that_is_alive_refuses_the_return_until_it_is_gone(arena: Arena) -> None:
    lending = Lending(arena)
    view, _ = lending.lend(0, PAGE_BYTES)
    part = view[10:20]
    again = part[2:4]
    for alive in (part, again):
        with pytest.raises(UsageError, match="slices or arrays"):
            lending.take_back(0)
        alive.release()
    lending.take_back(0)
    assert arena.view(0, 1)[0] == POISON


def test_an_array_that_is_alive_refuses_the_return(arena: Arena) -> None:
    numpy = pytest.importorskip("numpy")
    lending = Lending(arena)
    view, _ = lending.lend(0, PAGE_BYTES)
    array = numpy.frombuffer(view, dtype="u1")
    with pytest.raises(UsageError, match="offset 0"):
        lending.take_back(0)
    array[5] = 9  # the view is dead, but its memory is still lent
    assert arena.view(5, 1)[0] == 9
    del array
    lending.take_back(0)


@pytest.mark.parametrize("at", [0, 1, 4095, 65535, 65536, 200_000])
def test_a_write_after_free_is_reported_with_its_offset(arena: Arena, at: int) -> None:
    lending = Lending(arena)
    size_bytes = 60 * PAGE_BYTES
    raw = arena.view(PAGE_BYTES, size_bytes)
    raw[at] = 0xEE
    view, finding = lending.lend(PAGE_BYTES, size_bytes)
    assert finding is not None
    assert f"at offset {PAGE_BYTES + at} of the arena ({at} of a buffer" in finding
    assert ": ee" in finding
    lending.take_back(PAGE_BYTES)
    assert written_after_free(arena.view(0, arena.size_bytes), 0) is None
    raw.release()
    view.release()
