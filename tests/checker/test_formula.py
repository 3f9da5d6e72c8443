"""N tasks that each take K one by one: deadlock up to N*(K-1) elements, none from N*(K-1)+1 on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import headway as hw
from headway.checker.target import check
from headway.runtimes.scopes import made_for

CELLS = [(n, k) for n in (1, 2, 3, 4) for k in (1, 2, 3) if n * k <= 9]


def collects(pool: hw.Mempool[int], count: int) -> None:
    taken = [pool.alloc() for _ in range(count)]
    for element in taken:
        pool.free(element)


def program(tasks: int, count: int, size: int) -> Callable[[], None]:
    def collect() -> None:
        pool = hw.Mempool.of(range(size), name="bio")
        for _ in range(tasks):
            hw.spawn(collects, pool, count)

    return collect


@pytest.mark.parametrize(("tasks", "count"), CELLS)
def test_both_sides_of_the_edge(tasks: int, count: int) -> None:
    edge = tasks * (count - 1) + 1
    safe = check(program(tasks, count, edge), ambient=made_for, sizes=False)
    assert (safe.verdict, safe.complete) == ("ok", True)
    if edge > 1:
        stuck = check(program(tasks, count, edge - 1), ambient=made_for, sizes=False)
        assert stuck.verdict == "deadlock"
        assert len(stuck.trace) == (edge - 1) + tasks  # all taken, then everybody asks: no shorter


@pytest.mark.parametrize(("tasks", "count"), [(2, 2), (1, 3), (3, 2)])
def test_the_smallest_safe_size_is_the_formulas(tasks: int, count: int) -> None:
    report = check(program(tasks, count, 1), ambient=made_for)
    assert report.min_reserve == {"bio": tasks * (count - 1) + 1}


def test_a_size_is_safe_only_if_every_larger_one_is() -> None:
    """Two tasks take two at once, then one: with any-fit wake-ups 3 is safe, and 4 is not."""

    def takes_two_then_one(pool: hw.Mempool[int]) -> None:
        pair = pool.alloc_bulk(2)
        pair.append(pool.alloc())
        pool.free_bulk(pair)

    def anomaly(size: int) -> Callable[[], None]:
        def main() -> None:
            pool = hw.Mempool.of(range(size), name="bio", wake=hw.Wake.ANY_FIT)
            hw.spawn(takes_two_then_one, pool)
            hw.spawn(takes_two_then_one, pool)

        return main

    verdicts = {
        size: check(anomaly(size), ambient=made_for, sizes=False).verdict for size in (3, 4, 5)
    }
    assert verdicts == {3: "ok", 4: "deadlock", 5: "ok"}
    assert check(anomaly(3), ambient=made_for).min_reserve == {"bio": 5}
