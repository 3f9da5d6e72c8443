"""The reserve by formula: from the wait points of each kind of task, whatever number of them there is.

It does not search. A *wait point* is what a task holds when it asks, and what it asks for. One pool at a time
(T2): under FIFO the smallest size from which all are safe is the most that one task holds and asks for, and what the
others hold at their waits; served as they fit, the same over each least request. Several pools (T7): if
nobody asks for a pool while he holds one that comes after it, each may be sized by its own waits.

What comes out is safe, and every larger size is. It is the smallest if the other pools are roomy and nothing is
given back between two requests (`is_exact`). Bound: wait points times kinds, for each pool.

Source: T2 and T7 of the theory of reserves; N*(K - 1) + 1 is HikariCP's rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from headway.checker.locals import Local, Locals
from headway.checker.model import FIFO, Model


@final
@dataclass(frozen=True, slots=True)
class Reserves:
    """A size for each pool from which on all are safe, taken together; `is_exact` if none smaller will do."""

    sizes: tuple[int, ...]
    is_exact: bool


def reserves(model: Model, locals_: Locals | None = None) -> Reserves | None:
    """The sizes by formula; None where it does not hold: pools in a ring, or one request for several."""
    locals_ = locals_ or Locals(model)
    points: list[list[list[tuple[int, int]]]] = [
        [[] for _ in model.actors] for _ in model.pools
    ]  # by pool and actor: held of the pool, and asked for
    kept = [[0] * len(model.actors) for _ in model.pools]
    before: set[tuple[int, int]] = set()
    grows = True
    for local in locals_.all:
        if not model.actors[local.actor].count:
            continue
        if local.wants is None:
            for pool, n in enumerate(local.held):
                kept[pool][local.actor] = max(kept[pool][local.actor], n)
            continue
        asked = [pool for pool, n in enumerate(local.wants) if n]
        if len(asked) > 1:
            return None
        pool = asked[0]
        points[pool][local.actor].append((local.held[pool], local.wants[pool]))
        before |= {(other, pool) for other, n in enumerate(local.held) if n and other != pool}
        grows = grows and all(held >= 0 for held in _gained(local))
    if _has_ring(before, len(model.pools)):
        return None
    counts = [actor.count for actor in model.actors]
    size = _fifo if model.wake == FIFO else _any_fit
    sizes = tuple(max(1, size(points[p], kept[p], counts)) for p in range(len(model.pools)))
    return Reserves(sizes, grows)


def _gained(local: Local) -> Iterator[int]:
    """Of each pool, how much more is held at the next request than was held and asked for at this one."""
    assert local.wants is not None
    for target, _ in local.after:
        if target is not None:
            for after, held, wants in zip(target.held, local.held, local.wants, strict=True):
                yield after - held - wants


def _fifo(points: list[list[tuple[int, int]]], kept: list[int], counts: list[int]) -> int:
    """The most one task holds and asks for, and what each other holds at its wait."""
    most = [max([*(h for h, _ in mine), end]) for mine, end in zip(points, kept, strict=True)]
    total = sum(n * h for n, h in zip(counts, most, strict=True))
    heads = (
        h + q - most[actor] for actor, mine in enumerate(points) if counts[actor] for h, q in mine
    )
    return total + max(heads, default=0)


def _any_fit(points: list[list[tuple[int, int]]], kept: list[int], counts: list[int]) -> int:
    """Over each least request: it, and the most that each task holds at a request no smaller."""
    best = 0
    for least in {q for mine in points for _, q in mine}:
        total = 0
        short = None  # what it costs that one task stands at the least request itself
        for mine, end, n in zip(points, kept, counts, strict=True):
            most = max([*(h for h, q in mine if q >= least), end])
            total += n * most
            for h, q in mine:
                if q == least and n:
                    short = most - h if short is None else min(short, most - h)
        if short is not None:
            best = max(best, total - short + least)
    return best


def _has_ring(before: set[tuple[int, int]], pools: int) -> bool:
    left = set(range(pools))
    while left:
        last = {p for p in left if not any((p, other) in before for other in left)}
        if not last:
            return True
        left -= last
    return False
