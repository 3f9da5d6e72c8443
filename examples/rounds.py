"""Schedules that never end: tasks that give way to each other for ever, and one that is never let in.

headway check examples/rounds.py:both_give_way
headway check examples/rounds.py:one_order
headway check examples/rounds.py:batch_as_it_fits
headway check examples/rounds.py:batch_in_order
"""

from __future__ import annotations

from typing import Any

import headway as hw


def gives_way(mine: Any, other: Any) -> None:
    """Take one, try for the other; if that is taken, give the first back and start over."""
    while True:
        first = mine.alloc()
        second = other.try_alloc()
        if second is not None:
            break
        mine.free(first)
    other.free(second)
    mine.free(first)


def both_give_way() -> None:
    left, right = hw.Mempool.of(range(1), name="left"), hw.Mempool.of(range(1), name="right")
    hw.spawn(gives_way, left, right)
    hw.spawn(gives_way, right, left)


def one_order() -> None:
    """Remedy: everybody begins with the same one."""
    left, right = hw.Mempool.of(range(1), name="left"), hw.Mempool.of(range(1), name="right")
    hw.spawn(gives_way, left, right)
    hw.spawn(gives_way, left, right)


def serves(slots: Any) -> None:
    while True:
        with slots.lease():
            pass


def takes_two(slots: Any) -> None:
    slots.free_bulk(slots.alloc_bulk(2))


def batch(wake: hw.Wake) -> None:
    slots = hw.Mempool.of(range(2), name="slots", wake=wake)
    hw.spawn(serves, slots)
    hw.spawn(serves, slots)
    hw.spawn(takes_two, slots)


def batch_as_it_fits() -> None:
    batch(hw.Wake.ANY_FIT)


def batch_in_order() -> None:
    """Remedy: who came first is served first, so nobody is passed by for ever."""
    batch(hw.Wake.FIFO)
