"""Many threads at a few elements: throughput, fairness, and the waits, beside pools that let anybody in.

Every thread takes an element, holds it for a `time.sleep` of 50 us (which releases the GIL and lasts
rather longer than asked for; the hold is measured), gives it back and comes again at once. That is
the worst case of a fair pool: whoever gave back would be first again if it were let in.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean, median
from typing import Any

import headway
from bench.measure import Row, alone, compared

ELEMENTS = 4
HOLD_S = 50e-6

Door = Callable[[], AbstractContextManager[object]]  # a new one for each visit


@dataclass(frozen=True, slots=True)
class Crowd:
    """What one run of many threads gave."""

    rate: float  # visits a second
    counts: list[int]  # visits of each thread
    waits_s: list[float]  # sorted
    hold_s: float  # mean, measured

    @property
    def unfairness(self) -> float:
        return max(self.counts) / max(1, min(self.counts))

    @property
    def p99_s(self) -> float:
        return self.waits_s[int(len(self.waits_s) * 0.99)]


def crowd(door: Door, threads: int, length_s: float) -> Crowd:
    """`threads` threads at one door for `length_s` seconds; a wait that has begun is counted when it ends."""
    waits: list[list[float]] = [[] for _ in range(threads)]
    holds: list[list[float]] = [[] for _ in range(threads)]
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    stop = False

    def visit(number: int) -> None:
        clock, sleep = time.perf_counter, time.sleep
        my_waits, my_holds = waits[number], holds[number]
        start.wait()
        while not stop:
            asked_s = clock()
            with door():
                got_s = clock()
                sleep(HOLD_S)
                left_s = clock()
            my_waits.append(got_s - asked_s)
            my_holds.append(left_s - got_s)

    crew = [threading.Thread(target=visit, args=(n,), daemon=True) for n in range(threads)]
    gc.collect()
    gc.disable()
    for thread in crew:
        thread.start()
    start.wait()
    began_s = time.perf_counter()
    time.sleep(length_s)
    counts = [len(mine) for mine in holds]
    took_s = time.perf_counter() - began_s
    stop = True
    for thread in crew:
        thread.join()
    gc.enable()
    return Crowd(
        sum(counts) / took_s,
        counts,
        sorted(wait for mine in waits for wait in mine),
        fmean(hold for mine in holds for hold in mine),
    )


def doors() -> dict[str, Door]:
    """The pool, and beside it what a program would use instead; each gives out `ELEMENTS` at a time."""
    pool: headway.Mempool[int] = headway.Mempool.of(range(ELEMENTS))
    semaphore = threading.Semaphore(ELEMENTS)
    ways: dict[str, Door] = {
        "headway": pool.lease,
        "threading.Semaphore": lambda: semaphore,
        "queue.LifoQueue": _queue(queue.LifoQueue()),
        "queue.SimpleQueue": _queue(queue.SimpleQueue()),
        "Condition and list": _condition(),
        BARE: _bare(),
    }
    if find_spec("sqlalchemy") is not None:
        ways["SQLAlchemy QueuePool"] = _sqlalchemy()
    return ways


def _queue(elements: Any) -> Door:
    for number in range(ELEMENTS):
        elements.put(number)

    @contextmanager
    def door() -> Iterator[int]:
        element = elements.get()
        try:
            yield element
        finally:
            elements.put(element)

    return door


def _condition() -> Door:
    elements = list(range(ELEMENTS))
    changed = threading.Condition()

    @contextmanager
    def door() -> Iterator[int]:
        with changed:
            while not elements:
                changed.wait()
            element = elements.pop()
        try:
            yield element
        finally:
            with changed:
                elements.append(element)
                changed.notify()

    return door


def _bare() -> Door:
    """The least that hands over in order, and so what no fair pool of Python code can pass."""
    changing, free, line = threading.Lock(), list(range(ELEMENTS)), deque[Any]()

    @contextmanager
    def door() -> Iterator[int]:
        with changing:
            mine = None if free else (threading.Lock(), [])
            if mine is None:
                element = free.pop()
            else:
                mine[0].acquire()
                line.append(mine)
        if mine is not None:
            mine[0].acquire()
            element = mine[1][0]
        try:
            yield element
        finally:
            with changing:
                if line:
                    woken, gift = line.popleft()
                    gift.append(element)
                    woken.release()
                else:
                    free.append(element)

    return door


class Connection:
    """The least that SQLAlchemy's pool takes for a connection."""

    def close(self) -> None: ...
    def rollback(self) -> None: ...


def _sqlalchemy() -> Door:
    from sqlalchemy.pool import QueuePool

    pool = QueuePool(
        Connection, pool_size=ELEMENTS, max_overflow=0, timeout=60, reset_on_return=None
    )  # type: ignore[arg-type]
    return lambda: closing(pool.connect())


OURS = "headway"
BARE = "a lock, a list and a line"
WORSE = (
    "a hold of 50 us is the worst case for handing over; with longer holds the difference goes away"
)


def run(quick: bool) -> list[Row]:
    rows = []
    for threads in (8, 64):
        rows += _beside(threads, rounds=1 if quick else 7, length_s=0.1 if quick else 0.5)
    return rows


def _beside(threads: int, *, rounds: int, length_s: float) -> list[Row]:
    ways = doors()
    taken: dict[str, list[Crowd]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            taken[name].append(crowd(ways[name], threads, length_s))
    ours = taken.pop(OURS)
    fair, unfair = _sorted_out(taken)
    case = f"{threads} threads over {ELEMENTS}"
    best = max(unfair, key=lambda name: median(one.rate for one in unfair[name]))
    rows = [
        compared(
            f"{case}, throughput",
            [one.rate for one in ours],
            "a second",
            name + (" (best unfair)" if name == best else " (fair)" if name in fair else ""),
            [one.rate for one in crowds],
            goal=0.9 if name == best else None,
            better="higher",
            note=WORSE,
        )
        for name, crowds in taken.items()
    ]
    beside = ", ".join(
        f"{name} {median(one.unfairness for one in crowds):,.1f}" for name, crowds in taken.items()
    )
    rows.append(
        alone(
            f"{case}, fairness",
            [one.unfairness for one in ours],
            "most/fewest",
            goal=1.1,
            note=f"beside: {beside}",
        )
    )
    bound = 2 * threads / ELEMENTS
    rows.append(
        alone(
            f"{case}, p99 wait over the measured hold",
            [one.p99_s / one.hold_s for one in ours],
            "holds",
            goal=bound,
            note=f"{median(one.p99_s for one in ours) * 1e3:.2f} ms; the others' p99 leaves out who never got in",
        )
    )
    least = min(taken, key=lambda name: _worst_ms(taken[name]))
    rows.append(
        alone(
            f"{case}, worst wait",
            [one.waits_s[-1] * 1e3 for one in ours],
            "ms",
            note=f"best peer {least}: {_worst_ms(taken[least]):.1f} ms; in runs of {length_s * 1e3:.0f} ms",
        )
    )
    return rows


def _sorted_out(
    taken: dict[str, list[Crowd]],
) -> tuple[dict[str, list[Crowd]], dict[str, list[Crowd]]]:
    """Which peers were fair in these runs (SimpleQueue is from 3.13 on), and which were not."""
    fair = {
        name: crowds
        for name, crowds in taken.items()
        if median(one.unfairness for one in crowds) <= 1.5
    }
    return fair, {name: crowds for name, crowds in taken.items() if name not in fair}


def _worst_ms(crowds: list[Crowd]) -> float:
    return median(one.waits_s[-1] for one in crowds) * 1e3
