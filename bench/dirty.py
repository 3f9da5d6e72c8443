"""What a slow device costs the writer of a fast one, with real threads and limits on dirty data.

Two devices that sleep as long as a disk of their speed would write, 50 and 1 MB/s; one writer each,
who never rests; 32 MiB may be dirty. The slow one begins. Beside each other: the fast one alone, with
`DirtyThrottle`, with its historic wait, and with one bounded queue for both (what people write).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import headway
from bench.measure import Row

CHUNK = 64 << 10
LIMIT = 32 << 20
SPEEDS = {"slow": 1e6, "fast": 50e6}
HEAD_START = 8  # the slow writer is so much of a device's time ahead, in parts of a run
NOTE = "devices that sleep; one run each, after each other"


def _beside(seconds: float, names: tuple[str, ...], admit: Callable[[str], Any], done: Any) -> int:
    """Bytes that the fast device wrote in so many seconds."""
    ends = time.perf_counter() + seconds
    written = dict.fromkeys(names, 0)
    ended = {name: threading.Event() for name in names}
    queues: dict[str, queue.SimpleQueue[int]] = {name: queue.SimpleQueue() for name in names}

    def device(name: str) -> None:
        due = time.perf_counter()
        while not ended[name].is_set() or not queues[name].empty():
            try:
                size = queues[name].get(timeout=0.01)
            except queue.Empty:
                continue
            if time.perf_counter() < ends:  # then the rest is let go
                due = max(due, time.perf_counter() - 0.01) + size / SPEEDS[name]
                time.sleep(max(due - time.perf_counter(), 0))
                written[name] += size
            done(name)

    def writer(name: str) -> None:
        while time.perf_counter() < ends:
            if admit(name) is not False:
                queues[name].put(CHUNK)
        ended[name].set()

    threads = []
    for name in names:
        for role in (device, writer):
            threads.append(threading.Thread(target=role, args=(name,), daemon=True))
            threads[-1].start()
        time.sleep(seconds / HEAD_START)
    for thread in threads:
        thread.join()
    return written["fast"]


def _throttled(seconds: float, names: tuple[str, ...], pacing: headway.Pacing) -> int:
    throttle = headway.DirtyThrottle(LIMIT, LIMIT // 2, pacing=pacing)
    devices = {name: throttle.device(name) for name in names}
    return _beside(
        seconds,
        names,
        lambda name: devices[name].dirtied(CHUNK),
        lambda name: devices[name].cleaned(CHUNK),
    )


def _one_queue(seconds: float, names: tuple[str, ...]) -> int:
    slots = threading.Semaphore(LIMIT // CHUNK)
    return _beside(
        seconds, names, lambda name: slots.acquire(timeout=0.1), lambda name: slots.release()
    )


def run(quick: bool) -> list[Row]:
    seconds = 0.4 if quick else 6.0
    position, congestion = headway.Pacing.POSITION, headway.Pacing.CONGESTION
    alone = _throttled(seconds, ("fast",), position) / seconds
    both = ("slow", "fast")
    found = {
        "DirtyThrottle": (_throttled(seconds, both, position), 0.9),
        "historic wait": (_throttled(seconds, both, congestion), None),
        "one semaphore for both": (_one_queue(seconds, both), None),
    }
    rows = []
    for name, (wrote, goal) in found.items():
        speed = wrote / (seconds * (1 - 1 / HEAD_START))
        rows.append(
            Row(
                f"fast device beside a slow one, {name}",
                speed / 1e6,
                "MB/s",
                "fast device alone",
                round(speed / alone, 3),
                goal,
                "higher",
                NOTE,
            )
        )
    return rows
