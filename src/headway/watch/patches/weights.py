"""What work of an executor that weighs holds while it runs: its units, and it needed a thread to come so far."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.patches import pool_of
from headway.watch.patches.budgets import Grants
from headway.watch.places import Place


def weighed(
    ledger: Ledger, budget: Any, units: int, executor: Any, fn: Callable[..., Any], place: Place
) -> Callable[..., Any]:
    """The function `fn` as work that holds its units while it runs in a thread of `executor`."""
    if not isinstance(executor, ThreadPoolExecutor):
        return fn  # which may have to go to another process, as it is

    @functools.wraps(fn, updated=())
    def work(*args: Any, **options: Any) -> Any:
        with working(ledger, budget, units, pool_of(executor), place):
            return fn(*args, **options)

    return work


@contextmanager
def working(
    ledger: Ledger, budget: Any, units: int, workers: Pool | None, place: Place
) -> Iterator[None]:
    """Work that was submitted at `place` and weighs `units` of `budget` runs in the body, on one of `workers`."""
    grants = Grants.of(budget)
    if grants is None:
        yield
        return
    known = grants.known
    known.cls.kind = "workers"  # they come back with the work, whoever submitted it
    owner = ledger.current()
    owner.place = place
    holding = ledger.grant(known, [units], owner)
    if workers is not None:  # it had the units already when it waited for a thread
        ledger.connect(owner, [holding], holding, workers, 1, [known], False, place)
    try:
        yield
    finally:
        ledger.drop(holding)
