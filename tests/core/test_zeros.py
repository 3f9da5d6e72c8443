"""Clearing a view: all of it, nothing beside it, and without memory of its size."""

from __future__ import annotations

import tracemalloc

import pytest

from headway.core.zeros import clear

PIECE = 64 << 10


@pytest.mark.parametrize(
    "size", [0, 1, 4095, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7]
)
def test_all_of_it_and_nothing_beside_it(size: int) -> None:
    whole = bytearray(b"\xff" * (size + 2))
    clear(memoryview(whole)[1 : size + 1])
    assert whole == b"\xff" + bytes(size) + b"\xff"
    several = bytearray(b"\xff" * size)
    clear(several)
    assert several == bytes(size)


def test_a_large_buffer_is_cleared_without_memory_of_its_size() -> None:
    view = memoryview(bytearray(b"\xff" * (4 << 20)))
    clear(view)
    tracemalloc.start()
    try:
        clear(view)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4096
