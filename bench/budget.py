"""Counted units: a pair of alloc and free, an item through a queue, and a fast producer on a slow disk.

The slow disk is a file of which each write is held up until its turn at `DISK_BYTES_S`; the producer
makes chunks as fast as it can. Each side runs in a process of its own, so that its peak of resident
memory is its own; the peak of the idle process is taken off.
"""

from __future__ import annotations

import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import headway as hw
from bench.measure import Loop, Row, alone, compared, pairs_ns

MIB = 1 << 20
DISK_BYTES_S = 400 * MIB
LIMIT = 32 * MIB
NOTE = "no other thread: says nothing about waiting"


def run(quick: bool) -> list[Row]:
    cases: dict[str, Loop] = {
        "budget": _pairs(hw.Budget("256MiB", name="bench")),
        "tree": _pairs(hw.Budget(parent=hw.Budget("256MiB"))),
        "threading.Semaphore": _semaphore,
        "queue": _through(hw.BudgetQueue("32MiB")),
        "queue.Queue": _through(queue.Queue()),
    }
    rounds, round_s = (3, 0.002) if quick else (15, 0.03)
    took = pairs_ns(cases, rounds=rounds, round_s=round_s)
    rows = [
        compared("pair of alloc and free", took[ours], "ns", peer, took[peer], note=NOTE)
        for ours, peer in (("budget", "threading.Semaphore"), ("tree", "threading.Semaphore"))
    ]
    rows.append(compared("put and get", took["queue"], "ns", "queue.Queue", took["queue.Queue"]))
    return rows + _disk(quick)


def _disk(quick: bool) -> list[Row]:
    count, rounds = (64, 1) if quick else (512, 5)
    speeds: dict[str, list[float]] = {"budgeted": [], "unbounded": []}
    over: dict[str, list[float]] = {"budgeted": [], "unbounded": []}
    for _ in range(rounds):
        for side in speeds:
            command = [sys.executable, "-m", "bench.budget", side, str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            speed, peak = map(float, done.stdout.split())
            speeds[side].append(speed)
            over[side].append(peak)
    note = "chunks of 1 MiB, counted while they are made, queued and written"
    return [
        compared(
            "slow disk, queue of 32 MiB", speeds["budgeted"], "MiB/s", "unbounded queue",
            speeds["unbounded"], goal=0.95, better="higher", note=note,
        ),
        alone("resident over idle, queue of 32 MiB", over["budgeted"], "MiB", goal=32, note=note),
        alone("resident over idle, unbounded queue", over["unbounded"], "MiB"),
    ]  # fmt: skip


def _pairs(budget: hw.Budget) -> Loop:
    def loop(count: int) -> None:
        for _ in range(count):
            budget.alloc(4096)
            budget.free(4096)

    return loop


def _semaphore(count: int) -> None:
    semaphore = threading.Semaphore(4)
    for _ in range(count):
        semaphore.acquire()
        semaphore.release()


def _through(items: hw.BudgetQueue[bytes] | queue.Queue[bytes]) -> Loop:
    chunk = bytes(4096)

    def loop(count: int) -> None:
        for _ in range(count):
            items.put(chunk)
            items.get()

    return loop


def _side(side: str, count: int) -> None:
    """One process: `count` chunks from a fast producer to a slow disk; prints MiB/s and peak over idle."""
    budgeted: hw.BudgetQueue[bytearray] = hw.BudgetQueue(LIMIT, name="chunks")
    unbounded: queue.Queue[bytearray | None] = queue.Queue()

    def make() -> bytearray:
        chunk = bytearray(MIB)
        chunk[::4096] = b"x" * (MIB // 4096)  # every page is there
        return chunk

    def produce() -> None:
        for _ in range(count):
            if side == "budgeted":
                budgeted.budget.alloc(MIB)
                budgeted.put_paid(make(), MIB)
            else:
                unbounded.put(make())
        budgeted.close()
        unbounded.put(None)

    with tempfile.TemporaryFile() as file:
        write = _slowly(file.write, file.seek)
        write(make())
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        producer = threading.Thread(target=produce)
        began_s = time.perf_counter()
        producer.start()
        if side == "budgeted":
            while True:
                try:
                    with budgeted.lease() as chunk:
                        write(chunk)
                        del chunk
                except hw.PoolClosed:
                    break
        else:
            while (item := unbounded.get()) is not None:
                write(item)
        producer.join()
    took_s = time.perf_counter() - began_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(count / took_s, (peak - idle) / 1024)


def _slowly(
    write: Callable[[bytearray], object], seek: Callable[[int], object]
) -> Callable[[bytearray], None]:
    next_s = time.perf_counter()

    def slowly(chunk: bytearray) -> None:
        nonlocal next_s
        seek(0)
        write(chunk)
        next_s = max(next_s, time.perf_counter() - 0.01) + len(chunk) / DISK_BYTES_S
        time.sleep(max(0.0, next_s - time.perf_counter()))

    return slowly


if __name__ == "__main__":
    _side(sys.argv[1], int(sys.argv[2]))
