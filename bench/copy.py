"""Copies of one file: with SHA-256 and without, in memory and on a disk, beside what people use.

Every way runs once in every round, so that noise meets all alike, and each in a process of its own,
so that its peak resident size is its own. Ours and the queue of bytes time the copy without Python's
start (`cold start` is a row of its own); `openssl` and `cp` are timed with theirs, which is short.
Every copy makes a fresh destination; the one before is removed outside the clock.

* in memory (tmpfs): `openssl dgst -sha256` only reads; the queue of bytes reads and writes in one
  thread, and hashes in another from a bounded queue of eight 1 MiB bytes objects: the strongest
  simple form known to us. `cp` copies without a hash. No sync: there is nothing to sync to.
* on a disk (the directory in HEADWAY_BENCH_DISK, else the temporary one): the source is dropped from
  the page cache first, and the time includes making the copy durable (`cp` and `sync FILE`).

It does not show copies over a network, small files, or a machine with more processors than it has.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bench.measure import Row

SIZE = 512 << 20

_OURS = """
import json, resource, sys, time
from headway.copying import copy
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
copy(sys.argv[1], sys.argv[2], memory=sys.argv[3], hash=sys.argv[4] == "sha")
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak, peak - base]))
"""

_QUEUE = """
import hashlib, json, queue, resource, sys, threading, time
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
sha, line = hashlib.sha256(), queue.Queue(8)
def hash_all():
    while (part := line.get()) is not None:
        sha.update(part)
hasher = threading.Thread(target=hash_all)
hasher.start()
with open(sys.argv[1], "rb", 0) as source, open(sys.argv[2], "wb", 0) as target:
    while part := source.read(1 << 20):
        line.put(part)
        target.write(part)
line.put(None)
hasher.join()
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak, peak - base]))
"""

# What a way gives: seconds, peak resident KiB, and KiB grown while copying (None: not measured).
Measured = tuple[float, int | None, int | None]
Way = Callable[[Path, Path], Measured]


PIECE_KIB = 1024

GOALS: dict[tuple[str, str], tuple[float, Literal["higher", "lower"]]] = {
    ("memory", "sha copy, against openssl only reading"): (1.15, "higher"),
    ("memory", "sha copy, against a queue of bytes"): (1.1, "higher"),
    ("memory", "plain copy, against cp"): (1.0, "higher"),
    ("memory", "sha copy, 8 MiB against 64 MiB"): (0.95, "higher"),
    ("memory", "memory grown while copying, sha 8MiB over a queue of bytes"): (0.7, "lower"),
    ("disk", "plain copy on a disk, against cp + sync"): (1.0, "higher"),
}
NOTE = "one large file on one machine: nothing about networks or small files"


def _python(code: str, *options: str) -> Way:
    def run(source: Path, target: Path) -> Measured:
        command = [sys.executable, "-c", code, str(source), str(target), *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, peak, grown = json.loads(done.stdout)
        return seconds, peak, grown

    return run


def _command(*words: str) -> Way:
    """A command, or several with `;` between them; SRC and DST stand for the paths."""

    def run(source: Path, target: Path) -> Measured:
        paths = {"SRC": str(source), "DST": str(target)}
        start = time.perf_counter()
        command: list[str] = []
        for word in [*words, ";"]:
            if word == ";":
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                command = []
            else:
                command.append(paths.get(word, word))
        return time.perf_counter() - start, None, None

    return run


_MEMORY_WAYS: dict[str, Way] = {
    "sha 8MiB": _python(_OURS, "8MiB", "sha"),
    "sha 4MiB": _python(_OURS, "4MiB", "sha"),
    "sha 64MiB": _python(_OURS, "64MiB", "sha"),
    "openssl dgst": _command("openssl", "dgst", "-sha256", "SRC"),
    "queue of bytes": _python(_QUEUE),
    "plain 8MiB": _python(_OURS, "8MiB", "plain"),
    "cp": _command("cp", "SRC", "DST"),
    "cold start": _command(sys.executable, "-m", "headway", "copy", "zero:1", "null:"),
}
_DISK_WAYS: dict[str, Way] = {
    "plain 8MiB": _python(_OURS, "8MiB", "plain"),
    "sha 8MiB": _python(_OURS, "8MiB", "sha"),
    "cp + sync": _command("cp", "SRC", "DST", ";", "sync", "DST"),
}
# (name of the ratio, ours, the peer): the peer's time over ours, so that above 1 is faster.
_MEMORY_RATIOS = [
    ("sha copy, against openssl only reading", "sha 8MiB", "openssl dgst"),
    ("sha copy, against a queue of bytes", "sha 8MiB", "queue of bytes"),
    ("sha copy in 4 MiB, against a queue of bytes", "sha 4MiB", "queue of bytes"),
    ("sha copy, 8 MiB against 64 MiB", "sha 8MiB", "sha 64MiB"),
    ("plain copy, against cp", "plain 8MiB", "cp"),
]
_DISK_RATIOS = [
    ("plain copy on a disk, against cp + sync", "plain 8MiB", "cp + sync"),
    ("sha copy on a disk, against cp + sync", "sha 8MiB", "cp + sync"),
]


def run(quick: bool) -> list[Row]:
    """Ratios with their goals, and the memory of each way; quick: one round."""
    found = _measure(rounds=1 if quick else 9)
    ways = {(one["where"], one["way"]): one for one in found if "way" in one}
    rows = []
    for one in found:
        if "ratio" in one:
            goal, better = GOALS.get((one["where"], one["ratio"]), (None, "higher"))
            rows.append(
                Row(
                    one["ratio"],
                    one["median"],
                    "x",
                    "",
                    None,
                    goal,
                    better,
                    NOTE,
                    one.get("least"),
                    one.get("most"),
                )
            )
    for (where, way), one in ways.items():
        rate = f"; {one['MiB/s']} MiB/s" if "MiB/s" in one else ""
        grown = f"; grew by {one['grown_kib'] / 1024:.1f} MiB" if "grown_kib" in one else ""
        rows.append(
            Row(
                f"{way}, in {where}",
                one["seconds"],
                "s",
                note=f"512 MiB{rate}{grown}",
                low=one["fastest"],
                high=one["slowest"],
            )
        )
    return rows


def _measure(rounds: int) -> list[dict[str, Any]]:
    """One per way (median seconds, rate, memory) and one per ratio (median and range)."""
    rows: list[dict[str, Any]] = []
    memory = Path("/dev/shm")
    if memory.is_dir():
        rows += _place("memory", memory, _MEMORY_WAYS, _MEMORY_RATIOS, rounds, cold=False)
    disk = Path(os.environ.get("HEADWAY_BENCH_DISK", tempfile.gettempdir()))
    rows += _place("disk", disk, _DISK_WAYS, _DISK_RATIOS, max(7, rounds - 2), cold=True)
    return rows


def _place(
    where: str,
    parent: Path,
    ways: dict[str, Way],
    ratios: list[tuple[str, str, str]],
    rounds: int,
    *,
    cold: bool,
) -> list[dict[str, Any]]:
    ways = {name: way for name, way in ways.items() if name != "openssl dgst" or _has("openssl")}
    taken: dict[str, list[Measured]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(dir=parent, prefix="headway-bench-") as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        _make(source)
        for number in range(rounds + 1):
            for name, way in ways.items():
                target.unlink(missing_ok=True)
                if cold:
                    _forget(source)
                measured = way(source, target)
                if number:  # the first round warms up
                    taken[name].append(measured)
    rows = [_row(where, name, measured) for name, measured in taken.items()]
    for title, ours, peer in ratios:
        if peer in taken:
            rows.append(_ratio(where, title, taken[ours], taken[peer]))
    if "queue of bytes" in taken:
        for name in ("sha 8MiB", "sha 4MiB"):
            rows.append(_memory_ratio(where, name, taken[name], taken["queue of bytes"]))
    return rows


def _row(where: str, name: str, measured: list[Measured]) -> dict[str, Any]:
    seconds = [one[0] for one in measured]
    row: dict[str, Any] = {
        "subject": "copy",
        "where": where,
        "way": name,
        "seconds": round(statistics.median(seconds), 4),
        "fastest": round(min(seconds), 4),
        "slowest": round(max(seconds), 4),
    }
    if name != "cold start":
        row["MiB/s"] = round((SIZE >> 20) / statistics.median(seconds))
    if measured[0][1] is not None:
        row["peak_rss_kib"] = statistics.median([one[1] or 0 for one in measured])
        row["grown_kib"] = statistics.median([one[2] or 0 for one in measured])
    return row


def _ratio(where: str, title: str, ours: list[Measured], peer: list[Measured]) -> dict[str, Any]:
    """Of pairs taken in the same round."""
    pairs = [two[0] / one[0] for one, two in zip(ours, peer, strict=True)]
    return {
        "subject": "copy",
        "where": where,
        "ratio": title,
        "median": round(statistics.median(pairs), 3),
        "least": round(min(pairs), 3),
        "most": round(max(pairs), 3),
        "rounds": len(pairs),
    }


def _memory_ratio(
    where: str, name: str, ours: list[Measured], peer: list[Measured]
) -> dict[str, Any]:
    mine, theirs = (statistics.median([one[2] or 0 for one in side]) for side in (ours, peer))
    return {
        "subject": "copy",
        "where": where,
        "ratio": f"memory grown while copying, {name} over a queue of bytes",
        # One piece is the least it holds, also where that fits into what the interpreter had freed before.
        "median": round(mine / max(PIECE_KIB, theirs), 3),
        "rounds": len(ours),
    }


def _has(command: str) -> bool:
    return shutil.which(command) is not None


def _make(path: Path) -> None:
    with open(path, "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def _forget(path: Path) -> None:
    """Drop the file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
