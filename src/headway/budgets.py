"""Budgets for threads: counted units whose waits block the calling thread.

It decides nothing: it chooses the runtime where none is passed, and finds the meeting place that all
budgets of a runtime share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

from headway.core.mm import budget as core
from headway.core.mm.ladder import Wake
from headway.core.mm.meeting import Meeting
from headway.core.plan import Runtime
from headway.roster import ROSTER
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS

_OF_THREADS: Final = Meeting(THREADS)
_meetings: WeakKeyDictionary[Runtime, Meeting] = WeakKeyDictionary()  # of all other runtimes


def _meeting(runtime: Runtime) -> Meeting:
    if runtime is THREADS:
        return _OF_THREADS
    meeting = _meetings.get(runtime)
    if meeting is None:
        meeting = _meetings[runtime] = Meeting(runtime)
    return meeting


class Budget(core.Budget):
    """So many units that may be out at one time: bytes, slots, connections.

    `capacity` is a number, or a size like ``"256MiB"``; None shares the parent's. `reserve` units are
    for requests that are *entitled* (``entitled=True``, or made under ``noreclaim()``): give them to
    the code that gives back, so that it never waits for those who wait for it. With `force` the
    entitled may pass the limit instead of waiting, and HIGH requests instead of failing.
    What is taken here is taken from `parent` and all above it too; `floor` units are kept for this
    budget there, from now on. `wake` is FIFO or ANY_FIT.
    `reclaim` is called with the number of units that are missed, outside any lock, when a request that
    may wait, and may call code above it, does not fit; it frees what it can and says how many units.
    The reclaimers of all budgets below, and the caches that belong to them (`headway.ShrinkableCache`),
    are asked too, in turn, until that is enough: close a budget that has one, so that it is called no
    more. One that raises is logged and counted (`raised_count`), and the request goes on without it.
    Caches drop what is clean also for requests that may not wait, or are made under ``noreclaim()``.
    `trace` records who holds what (also ``HEADWAY_TRACE=1``).

    >>> budget = Budget("256MiB", reserve="16MiB", name="decode")
    >>> with budget.lease(200 << 20):
    ...     budget.try_alloc(50 << 20), budget.try_alloc(50 << 20, entitled=True)
    (False, True)
    >>> budget
    <Budget 'decode': 50MiB of 256MiB out, 16MiB of it reserve, 0 waiting>

    Raises: UsageError if the numbers make no budget; NoMemory if the parent has no room for the floor.
    """

    __slots__ = ()

    def __init__(
        self,
        capacity: int | str | None = None,
        *,
        reserve: int | str = 0,
        name: str = "budget",
        parent: core.Budget | None = None,
        floor: int | str = 0,
        wake: Wake = Wake.FIFO,
        reclaim: Callable[[int], int | None] | None = None,
        force: bool = False,
        trace: bool | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if runtime is None:
            runtime = ambient() or (THREADS if parent is None else parent.runtime)
        if trace is None:
            trace = os.environ.get("HEADWAY_TRACE", "") not in ("", "0")
        super().__init__(
            capacity, runtime=runtime, meeting=_meeting(runtime), name=name, reserve=reserve,
            floor=floor, parent=parent, wake=wake, reclaim=reclaim, force=force, trace=trace,
        )  # fmt: skip
        adopt: Callable[[core.Budget], None] | None = getattr(runtime, "adopt", None)
        if adopt is None:
            ROSTER.enter(self)
        else:  # under check: it is watched
            adopt(self)
