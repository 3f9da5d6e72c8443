"""Tasks at a few elements on one event loop, beside `asyncio.Semaphore`; and cancellation without loss.

A hold of 50 us cannot be had from a loop: its selector sleeps whole milliseconds. Whether it sleeps at
all depends on how the holders' timers fall, which is chance for both sides; so the share of the time
that the selector slept is printed beside the ratio.
"""

from __future__ import annotations

import asyncio
import gc
import random
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.measure import Loop, Row, alone, compared, pairs_ns
from headway import aio

TASKS, ELEMENTS = 1000, 10
PEER: Final = "asyncio.Semaphore"

Door = Callable[[], AbstractAsyncContextManager[object]]


class SleepWatch(selectors.DefaultSelector):
    """A selector that knows how long it slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        began_s = time.perf_counter()
        try:
            return super().select(timeout)
        finally:
            self.slept_s += time.perf_counter() - began_s


@dataclass(frozen=True, slots=True)
class Crowd:
    """What one run of many tasks gave."""

    rate: float
    counts: list[int]
    asleep: float  # share of the time

    @property
    def unfairness(self) -> float:
        return max(self.counts) / max(1, min(self.counts))


class Bare:
    """The least that hands over in order and delivers once a turn: one loop, nothing but permits."""

    def __init__(self, elements: int) -> None:
        self.free = elements
        self.line: deque[asyncio.Future[None]] = deque()
        self.inbox: list[asyncio.Future[None]] = []
        self.loop = asyncio.get_running_loop()

    async def __aenter__(self) -> None:
        if self.free:
            self.free -= 1
            return
        future = self.loop.create_future()
        self.line.append(future)
        await future

    async def __aexit__(self, *exc: object) -> None:
        if not self.line:
            self.free += 1
            return
        if not self.inbox:
            self.loop.call_soon(self.deliver)
        self.inbox.append(self.line.popleft())

    def deliver(self) -> None:
        woken, self.inbox = self.inbox, []
        for future in woken:
            if not future.done():  # lost: this one hands nothing on
                future.set_result(None)


OURS = "headway"
BARE = "a count, a line and an inbox"


def _door(whose: str, elements: int) -> Door:
    if whose == OURS:
        pool: aio.Mempool[int] = aio.Mempool.of(range(elements))
        return pool.lease
    other = Bare(elements) if whose == BARE else asyncio.Semaphore(elements)
    return lambda: other


def crowd(whose: str, hold_s: float | None, length_s: float) -> Crowd:
    """1,000 tasks over 10 elements; `hold_s` None: nothing is awaited inside, one loop turn outside."""
    selector = SleepWatch()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(_crowd(whose, hold_s, length_s, selector))


async def _crowd(whose: str, hold_s: float | None, length_s: float, selector: SleepWatch) -> Crowd:
    door = _door(whose, ELEMENTS)
    counts = [0] * TASKS
    stop_s = time.perf_counter() + 3600.0

    async def visit(number: int) -> None:
        clock, sleep = time.perf_counter, asyncio.sleep
        while clock() < stop_s:
            async with door():
                if hold_s is not None:
                    await sleep(hold_s)
                counts[number] += 1
            if hold_s is None:
                await sleep(0)

    tasks = [asyncio.create_task(visit(number)) for number in range(TASKS)]
    await asyncio.sleep(0)
    gc.collect()
    gc.disable()
    before, slept_s, began_s = list(counts), selector.slept_s, time.perf_counter()
    await asyncio.sleep(length_s)
    done = [now - then for now, then in zip(counts, before, strict=True)]
    took_s = time.perf_counter() - began_s
    asleep = (selector.slept_s - slept_s) / took_s
    stop_s = 0.0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gc.enable()
    return Crowd(sum(done) / took_s, done, asleep)


def run(quick: bool) -> list[Row]:
    rows = _pairs(quick)
    for case, hold_s, goal in (
        ("hold of nothing", None, 1.1),
        ("hold of one loop turn", 0.0, 1.1),
        ("hold of 50 us", 50e-6, 0.95),
        ("hold of 2 ms", 2e-3, 0.95),
    ):
        rows += _throughput(case, hold_s, goal, quick)
    rows += _fairness(quick)
    rows.append(_cancels(2_000 if quick else 100_000))
    return rows


def _pairs(quick: bool) -> list[Row]:
    with asyncio.Runner() as runner:

        def loop_of(body: Callable[[int], Coroutine[Any, Any, None]]) -> Loop:
            return lambda count: runner.run(body(count))

        pool: aio.Mempool[int] = aio.Mempool.of(range(4))
        semaphore = asyncio.Semaphore(4)

        async def our_pair(count: int) -> None:
            for _ in range(count):
                pool.free(await pool.alloc())

        async def their_pair(count: int) -> None:
            for _ in range(count):
                await semaphore.acquire()
                semaphore.release()

        async def our_block(count: int) -> None:
            for _ in range(count):
                async with pool.lease():
                    pass

        async def their_block(count: int) -> None:
            for _ in range(count):
                async with semaphore:
                    pass

        took = pairs_ns(
            {
                "pair": loop_of(our_pair),
                "their pair": loop_of(their_pair),
                "block": loop_of(our_block),
                "their block": loop_of(their_block),
            },
            rounds=3 if quick else 15,
            round_s=0.004 if quick else 0.03,
        )
    note = "no other task: says nothing about waiting"
    return [
        compared(
            "await alloc() and free()", took["pair"], "ns", PEER, took["their pair"],
            goal=0.5, note=note,
        ),
        compared(
            "async with lease()", took["block"], "ns", f"async with {PEER}", took["their block"],
            goal=0.8, note=note,
        ),
    ]  # fmt: skip


def _throughput(case: str, hold_s: float | None, goal: float, quick: bool) -> list[Row]:
    rounds, length_s = (1, 0.1) if quick else (9, 0.4)
    taken: dict[str, list[Crowd]] = {OURS: [], PEER: [], BARE: []}
    for number in range(rounds):
        for whose in list(taken) if number % 2 == 0 else list(taken)[::-1]:
            taken[whose].append(crowd(whose, hold_s, length_s))
    ours = taken.pop(OURS)
    asleep = median(one.asleep for one in ours), median(one.asleep for one in taken[PEER])
    note = (
        f"the selector slept {asleep[0]:.0%} of the time, {asleep[1]:.0%} beside; a program whose work "
        "is larger than its waiting sees less of either"
    )
    return [
        compared(
            f"1,000 tasks over 10, {case}",
            [one.rate for one in ours],
            "a second",
            peer,
            [one.rate for one in theirs],
            goal=goal if peer == PEER else None,
            better="higher",
            note=note,
        )
        for peer, theirs in taken.items()
    ]


def _fairness(quick: bool) -> list[Row]:
    """Most over fewest visits; long enough for twenty turns of each task, else one turn is 10 %."""
    rows = []
    for case, hold_s, length_s in (
        ("hold of nothing", None, 0.5),
        ("hold of one loop turn", 0.0, 0.8),
        ("hold of 50 us", 50e-6, 4.0),
        ("hold of 2 ms", 2e-3, 6.0),
    ):
        length_s = 0.1 if quick else length_s
        ours, theirs = crowd(OURS, hold_s, length_s), crowd(PEER, hold_s, length_s)
        rows.append(
            alone(
                f"fairness, {case}",
                [ours.unfairness],
                "most/fewest",
                goal=1.1,
                note=f"{PEER}: {theirs.unfairness:.2f}; fewest {min(ours.counts)} visits of one task",
            )
        )
    return rows


def _cancels(least: int) -> Row:
    """Tasks cancelled at random instants until `least` of them were hit; then everything must be home."""
    rng = random.Random(2001)

    async def storm() -> tuple[int, int, int]:
        pool: aio.Mempool[int] = aio.Mempool.of(range(3))
        held: set[int] = set()
        twice = cancelled = 0

        async def visit() -> None:
            nonlocal twice
            async with pool.lease() as element:
                twice += element in held
                held.add(element)
                try:
                    await asyncio.sleep(0)
                finally:
                    held.discard(element)

        tasks: set[asyncio.Task[None]] = set()
        while cancelled < least:
            while len(tasks) < 64:
                tasks.add(asyncio.create_task(visit()))
            for task in rng.sample(list(tasks), 24):
                cancelled += task.cancel()
            await asyncio.sleep(0)
            tasks = {task for task in tasks if not task.done()}
        await asyncio.gather(*tasks, return_exceptions=True)
        stats = pool.stats()
        return cancelled, stats.outstanding + stats.waiters + (3 - stats.reserve_count), twice

    cancelled, lost, twice = asyncio.run(storm())
    return alone(
        f"{cancelled:,} random cancels",
        [float(lost + twice)],
        "lost",
        goal=0.0,
        note="a stress run is no proof; the checker explores every order of a small pool",
    )
