"""The checker against its goals: the incident of 2009 from real code, many tasks, a formula, a whole command.

In-process times are the least of many, after a first run that reads the code. The command is set beside an
interpreter that imports the same modules and ends; what is counted is the difference. What the checker costs a
program that does not use it is `bench/mempool.py`, "every feature was on and is off".
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headway as hw
from bench.measure import Row, undisturbed
from headway.checker import check, reserve

ROOT = Path(__file__).resolve().parents[1]
NOTE = (
    "the least of many runs in one process: says nothing about code that itself computes for long"
)
_TARGET = "examples/bounce.py:two_mappers"
# What the command has imported by its end, in order; an interpreter that imports just that is what it is set beside.
_LIST = (
    "import sys, headway.cli.app as app; "
    f"app.run(['check', '{_TARGET}', '--json']); "
    "print(*(name for name, module in sys.modules.items() if getattr(module, '__spec__', None)), file=sys.stderr)"
)
_IMPORT = (
    "import importlib, sys\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        importlib.import_module(name)\n"
    "    except ImportError:\n"
    "        pass\n"
)


def collects(pool: Any, count: int) -> None:
    taken = [pool.alloc() for _ in range(count)]
    for element in taken:
        pool.free(element)


def crowd(tasks: int, size: int) -> Callable[[], None]:
    def main() -> None:
        pool = hw.Mempool.of(range(size), name="bio")
        for _ in range(tasks):
            hw.spawn(collects, pool, 3)

    return main


def least_ms(function: Callable[[], object], times: int) -> tuple[float, float]:
    """The least and the greatest time of some calls, in milliseconds."""
    function()
    found = []
    with undisturbed():
        for _ in range(times):
            start = time.perf_counter()
            function()
            found.append((time.perf_counter() - start) * 1e3)
    return min(found), max(found)


def both_sides(tasks: int) -> Callable[[], None]:
    """The edge, and one below it: safe, and dead with its trace carried out on the real code."""
    edge = 2 * tasks + 1
    safe, dead = crowd(tasks, edge), crowd(tasks, edge - 1)

    def run() -> None:
        for program, verdict in ((safe, "ok"), (dead, "deadlock")):
            report = check(program)
            assert (report.verdict, report.min_reserve) == (verdict, {"bio": edge}), report.text()

    return run


def million() -> dict[str, Any]:
    steps = [
        "+a",
        "+a",
        "+b",
        "+b 2",
        "+c",
        "+c",
        "+c",
        "+d",
        "+d",
        "+d 3",
        "-a 2",
        "-b 3",
        "-c 3",
        "-d 5",
    ]
    actors = {"mapper": {"count": 1_000_000, "steps": steps}}
    return {"pools": dict.fromkeys("abcd", 1), "actors": actors}


def command_s(times: int) -> tuple[float, float]:
    """How much longer ``headway check`` takes than to import what it needs: the least, and the least import."""
    listed = subprocess.run(
        [sys.executable, "-c", _LIST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stderr.split() if not name.startswith("__")]
    ways = (
        [sys.executable, "-m", "headway", "check", _TARGET],
        [sys.executable, "-c", _IMPORT, *names],
    )
    took: list[list[float]] = [[], []]
    for _ in range(times):
        for way, found in zip(ways, took, strict=True):
            start = time.perf_counter()
            subprocess.run(way, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            found.append(time.perf_counter() - start)
    return min(took[0]) - min(took[1]), min(took[1])


def run(quick: bool) -> list[Row]:
    rows = []
    for tasks, goal, times in ((8, 2.0, 60), (64, 500.0, 8)):
        edge = 2 * tasks + 1
        for size, side in ((edge - 1, "dead, replayed"), (edge, "safe")):
            low, high = least_ms(partial(check, crowd(tasks, size)), 2 if quick else times)
            case = f"2009, {tasks} tasks taking 3, {side}"
            rows.append(Row(case, low, "ms", low=low, high=high, note=NOTE))
        low, high = least_ms(both_sides(tasks), 2 if quick else times)
        case = f"2009, {tasks} tasks taking 3, both sides"
        rows.append(Row(case, low, "ms", goal=goal, low=low, high=high, note=NOTE))
    model = million()
    low, high = least_ms(lambda: reserve(model), 3 if quick else 300)
    case = "reserves, 4 pools, 10 wait points, a million tasks"
    rows.append(Row(case, low, "ms", goal=1.0, low=low, high=high, note=NOTE))
    more, imports = command_s(2 if quick else 9)
    note = f"an interpreter with the same imports takes {imports:.3f} s; the least of each"
    rows.append(Row("whole command, over the same imports", more, "s", goal=0.15, note=note))
    return rows
