"""8 MiB buffers: allocate, touch every page, give back; with the page faults of each.

Four ways beside each other, in turn within every round, so that noise meets all of them alike: a
mempool over a zone, ``numpy.empty``, a fresh ``mmap``, and pyarrow's default pool (which keeps what
was freed, as a zone does, but promises neither a limit nor that memory is there).

Two loads. With one buffer in flight, glibc learns after the first free to keep one such block, so
numpy's memory is not given back and all but mmap are equal: there is nothing to win. With four in
flight, as a copy has, it is given back and faulted in again each time.

The touch is one store in every page, the same for all, with a stride one cache line short of a
page: a stride of a page puts all stores into one set of the cache and would measure that.
"""

from __future__ import annotations

import importlib
import mmap
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.measure import Row
from headway.edge.zone import Zone
from headway.runtimes.threads import THREADS
from headway.threaded import Mempool

SIZE = 8 << 20
STRIDE = mmap.PAGESIZE - 64
IN_FLIGHT = (1, 4)
OURS = "headway zone + mempool"
GOALS = {"numpy.empty": 30.0, "mmap": 200.0}
NOTE = (
    "with one in flight the allocators keep the last block, and there is little to win; "
    "work on the buffer makes every difference smaller"
)


class Way(NamedTuple):
    """How to get a buffer, and how to give it back (None: dropping it does)."""

    alloc: Callable[[], Any]
    free: Callable[[Any], object] | None


def _ways(pool: Mempool[memoryview]) -> dict[str, Way]:
    kept = bytearray(SIZE)
    ways = {
        "touch alone": Way(lambda: kept, None),
        OURS: Way(pool.alloc, pool.free),
        "mmap": Way(lambda: mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), None),
    }
    try:
        import numpy

        ways["numpy.empty"] = Way(lambda: numpy.empty(SIZE, dtype=numpy.uint8), None)
    except ImportError:
        pass
    try:
        pyarrow = importlib.import_module("pyarrow")  # it has no types
        backend = pyarrow.default_memory_pool().backend_name
        ways[f"pyarrow {backend}"] = Way(lambda: pyarrow.allocate_buffer(SIZE), None)
    except ImportError:
        pass
    return ways


def _touch() -> Callable[[Any], None]:
    try:
        import numpy
    except ImportError:
        ones = b"\1" * -(-SIZE // STRIDE)

        def touch_view(buffer: Any) -> None:
            memoryview(buffer)[::STRIDE] = ones

        return touch_view

    def touch(buffer: Any) -> None:
        numpy.frombuffer(buffer, dtype=numpy.uint8)[::STRIDE] = 1

    return touch


def _timed(way: Way, touch: Callable[[Any], None], in_flight: int) -> tuple[float, float]:
    """Microseconds and minor page faults for one buffer."""
    alloc, free = way
    turns = 24 // in_flight
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start_s = time.perf_counter()
    for _ in range(turns):
        held = []
        for _ in range(in_flight):
            buffer = alloc()
            touch(buffer)
            held.append(buffer)
        if free is not None:
            for buffer in held:
                free(buffer)
        del buffer, held
    took_s = time.perf_counter() - start_s
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    count = turns * in_flight
    return took_s / count * 1e6, faults / count


def run(quick: bool) -> list[Row]:
    """Ours beside each way, by load; the ratio is its time over ours, so that above 1 we are faster."""
    found = _measure(rounds=2 if quick else 11)
    rows = []
    for in_flight in IN_FLIGHT:
        case = f"8 MiB buffer, {in_flight} in flight"
        by_way = {one["what"]: one for one in found if one["in_flight"] == in_flight}
        ours = by_way.pop(OURS)
        rows += [
            Row(
                case,
                ours["median_us"],
                "us",
                name,
                one["ratio"],
                None if in_flight == 1 else GOALS.get(name),
                "higher",
                NOTE,
            )
            for name, one in by_way.items()
        ]
        beside = ", ".join(f"{name} {one['faults_per_op']:g}" for name, one in by_way.items())
        rows.append(
            Row(
                f"{case}, page faults",
                ours["faults_per_op"],
                "a buffer",
                goal=0.0,
                note=f"beside: {beside}; our huge pages: {ours['huge_bytes'] >> 20} MiB",
            )
        )
    return rows


def _measure(rounds: int) -> list[dict[str, Any]]:
    """For each way and load: median and range, faults, and its time over ours (`ratio`)."""
    zone = Zone("64MiB", runtime=THREADS, name="bench")
    pool: Mempool[memoryview] = Mempool(zone.buffers(SIZE), min_count=1, name="frames")
    ways, touch = _ways(pool), _touch()
    rows = []
    for in_flight in IN_FLIGHT:
        times: dict[str, list[float]] = {name: [] for name in ways}
        faults: dict[str, float] = dict.fromkeys(ways, 0.0)
        for round_ in range(rounds + 1):
            for name, way in ways.items():
                micros, faulted = _timed(way, touch, in_flight)
                if round_:  # the first warms up
                    times[name].append(micros)
                    faults[name] += faulted / rounds
        ours = times[OURS]
        rows += [
            {
                "what": name,
                "size_bytes": SIZE,
                "in_flight": in_flight,
                "median_us": round(statistics.median(taken), 2),
                "least_us": round(min(taken), 2),
                "most_us": round(max(taken), 2),
                "ratio": round(
                    statistics.median(b / a for a, b in zip(ours, taken, strict=True)), 2
                ),
                "faults_per_op": round(faults[name], 1),
                "huge_bytes": zone.stats().huge,
            }
            for name, taken in times.items()
        ]
    pool.close()
    zone.close()
    return rows
