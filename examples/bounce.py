"""The bounce-buffer loop of 2009: a request needs two elements of one pool, and so do two tasks at once.

Each task takes its first element and asks for the second while it holds the first, unsubmitted. With
two elements in all, each may end up with one, and both wait for ever. `map_request` is the function;
below it stand the broken program and the four remedies of the thread, as ``headway check`` targets:

    headway check examples/bounce.py:two_mappers
    headway check examples/bounce.py:sized
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import headway as hw


def map_request(take: Callable[[], Any], give: Callable[[Any], object]) -> None:
    """Map one request: two elements, then both go back."""
    first = take()
    second = take()
    give(second)
    give(first)


def two_mappers() -> None:
    pool = hw.Mempool.of(range(2), name="bounce")
    for _ in range(2):
        hw.spawn(map_request, pool.alloc, pool.free)


def sized() -> None:
    """Remedy A: two tasks that need two each are safe with 2 x (2 - 1) + 1 = 3 elements."""
    pool = hw.Mempool.of(range(3), name="bounce")
    for _ in range(2):
        hw.spawn(map_request, pool.alloc, pool.free)


def unwinding() -> None:
    """Remedy B: the second take may fail; then the first goes back, and the caller hears of it."""
    pool = hw.Mempool.of(range(2), name="bounce")

    def map_or_fail() -> str:
        with pool.lease():
            second = pool.try_alloc()
            if second is None:
                return "busy: try again"
            pool.free(second)
            return "mapped"

    for _ in range(2):
        hw.spawn(map_or_fail)


def private() -> None:
    """Remedy C: the second element comes from a pool of its own, used for nothing else."""
    pool = hw.Mempool.of(range(2), name="bounce")
    second_pool = hw.Mempool.of(range(1), name="bounce-second")

    def map_with_two_pools() -> None:
        with pool.lease(), second_pool.lease():
            pass

    for _ in range(2):
        hw.spawn(map_with_two_pools)


def submitting_first() -> None:
    """Remedy D: the first is in flight before the second is asked for; its completion frees it."""
    pool = hw.Mempool.of(range(2), name="bounce")

    def complete(element: int) -> None:  # what the device calls when it is done
        pool.free(element)

    def map_and_submit() -> None:
        for _ in range(2):
            element = pool.alloc()
            pool.hand_over(element)
            hw.spawn(complete, element)

    for _ in range(2):
        hw.spawn(map_and_submit)


REMEDIES = {
    "A  a pool of 3": sized,
    "B  fail and unwind": unwinding,
    "C  a private pool": private,
    "D  submit before the next": submitting_first,
}
