"""Cancel against wake, and time-out against wake, on the real pool: every schedule of a small one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket
from headway.errors import PoolTimeout
from headway.runtimes.baton import turn
from headway.runtimes.simulator import Cancelled, Option, Simulator


class Forgetful(FixedMempool[Any]):
    """The commonest bug: a cancelled waiter forgets what it was given meanwhile."""

    def leave(self, ticket: Ticket) -> list[Any] | None:
        super().leave(ticket)
        return None


def every_run(kind: type[FixedMempool[Any]], timeout_s: float | None) -> Iterator[tuple[str, Any]]:
    """Each schedule of three takers of one element, with at most one cancellation, and its pool."""
    prefix: list[int] = []
    while True:
        widths: list[int] = []
        marks: list[str] = []
        taken: list[int] = []

        def choose(
            options: Sequence[Option],
            prefix: list[int] = prefix,
            widths: list[int] = widths,
            marks: list[str] = marks,
            taken: list[int] = taken,
        ) -> int:
            taken.append(prefix[len(taken)] if len(taken) < len(prefix) else 0)
            widths.append(len(options))
            marks.append(str(options[taken[-1]]))
            return taken[-1]

        simulator = Simulator(choose, fine=False, cancels=1)
        pool = kind(["element"], runtime=simulator, name="bio")
        for name in ("one", "two", "three"):
            simulator.start(taker(pool, name, timeout_s if name == "two" else None), name)
        simulator.go()
        failures = [task.failure for task in simulator.tasks if task.failure is not None]
        assert all(isinstance(failure, Cancelled | PoolTimeout) for failure in failures)
        yield ".".join(marks), (simulator, pool)
        simulator.close()
        while taken and taken[-1] + 1 == widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return
        prefix = [*taken[:-1], taken[-1] + 1]


def taker(pool: FixedMempool[Any], name: str, timeout_s: float | None) -> Plan[None]:
    taken = yield from pool.alloc_plan(Gfp.KERNEL, 0, name, 1, timeout_s)
    assert taken == ["element"]
    try:
        yield turn(name)
    finally:
        pool.free(taken[0])


@pytest.mark.parametrize("timeout_s", [None, 0.0])
def test_nothing_is_lost_whatever_is_cancelled_when(timeout_s: float | None) -> None:
    runs = cancelled = 0
    for schedule, (simulator, pool) in every_run(FixedMempool, timeout_s):
        stats = pool.stats()
        assert simulator.stuck() == [], schedule
        assert (stats.outstanding, stats.reserve_count, stats.waiters) == (0, 1, 0), schedule
        runs += 1
        cancelled += "x" in schedule
    assert cancelled > 50
    assert runs > cancelled > 0


def test_a_pool_that_forgets_a_gift_is_caught() -> None:
    lost = [
        schedule
        for schedule, (simulator, pool) in every_run(Forgetful, None)
        if pool.stats().outstanding or simulator.stuck()
    ]
    assert lost
    assert all("x" in schedule for schedule in lost)
