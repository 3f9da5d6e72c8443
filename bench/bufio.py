"""A buffer cache: a hit beside other caches of blocks, a miss beside the bare read, and write-back.

Each hit takes one 4 KiB block of 1024 and gives it back, with all caches full and warm. A miss reads a
block past the page cache into a cache of 8 MiB that is full, so every one evicts; its peer is the same ``preadv``
into the same kind of memory. Write-back makes 1024 blocks in a row dirty and writes them, past the page
cache; its peer writes block by block.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import headway
from bench.measure import Loop, Row, compared, in_turn, pairs_ns
from headway.buffers import BufferCache

NOTE = (
    "the directory of this file must be on a disk that takes O_DIRECT; else those rows are left out"
)
BLOCK, BLOCKS = 4096, 1024
FILE = 32 << 20
HERE = Path(__file__).resolve().parent


def run(quick: bool) -> list[Row]:
    rows = _hits(quick)
    with tempfile.NamedTemporaryFile(dir=HERE) as file:
        file.write(os.urandom(FILE))  # what was never written is not read from the disk either
        file.flush()
        os.fsync(file.fileno())
        device = headway.open_device(file.name, writable=True, direct=True)
        try:
            if device.alignment > 1:
                rows += _misses(device, quick) + _write_back(device, quick)
        finally:
            device.close()
    return rows


@contextmanager
def _cache(device: Any, blocks: int, room: int = 0, **options: Any) -> Iterator[BufferCache]:
    zone = headway.Zone((blocks + room) * BLOCK, min_free=0)
    cache = BufferCache(device, memory=zone, block_size=BLOCK, **options)
    try:
        yield cache
    finally:
        cache.close()
        zone.close()


def _hits(quick: bool) -> list[Row]:
    cases: dict[str, Loop] = {}
    device = headway.open_device(f"memory:{BLOCKS * BLOCK}", writable=True)
    with _cache(device, 2 * BLOCKS) as cache:
        for block in range(BLOCKS):
            cache.read(block).release()

        def ours(count: int) -> None:
            for number in range(count):
                buffer = cache.read(number & 1023)
                buffer.view  # noqa: B018  # as the peers give their data
                cache.release(buffer)

        cases["ours"] = ours
        for name, make in {"cachetools": _cachetools, "fsspec": _fsspec}.items():
            try:
                cases[name] = make()
            except ImportError:
                pass
        taken = pairs_ns(cases, rounds=5 if quick else 15, round_s=0.005 if quick else 0.05)
    rows = []
    goals = {
        "cachetools": ("cachetools LRUCache with a lock", 0.5),
        "fsspec": ("fsspec BlockCache", 0.7),
    }
    for name, (peer, goal) in goals.items():
        if name in taken:
            rows.append(compared("hit, 4 KiB", taken["ours"], "ns", peer, taken[name], goal=goal))
    return rows


def _cachetools() -> Loop:
    from cachetools import LRUCache

    cache: Any = LRUCache(2 * BLOCKS)
    lock = threading.Lock()
    for block in range(BLOCKS):
        cache[block] = bytes(BLOCK)

    def loop(count: int) -> None:
        for number in range(count):
            with lock:
                cache[number & 1023]

    return loop


def _fsspec() -> Loop:
    from fsspec.caching import BlockCache

    size = BLOCKS * BLOCK
    cache = BlockCache(BLOCK, lambda start, end: bytes(end - start), size, maxblocks=2 * BLOCKS)
    for block in range(BLOCKS):
        cache._fetch(block * BLOCK, (block + 1) * BLOCK)

    def loop(count: int) -> None:
        for number in range(count):
            start = (number & 1023) * BLOCK
            cache._fetch(start, start + BLOCK)

    return loop


def _misses(device: Any, quick: bool) -> list[Row]:
    zone = headway.Zone("1MiB", min_free=0)
    frame = zone.buffers(BLOCK).alloc()
    blocks = device.size // BLOCK
    place = 0

    def next_block() -> int:  # far apart, and each only once in a lap
        nonlocal place
        place = (place + 1009) % blocks
        return place

    def bare() -> None:
        device.pread_into(frame, next_block() * BLOCK)

    def plain() -> None:
        os.preadv(device.direct_fd, [frame], next_block() * BLOCK)

    with _cache(device, 2 * BLOCKS, gather=0) as cache:

        def ours() -> None:
            cache.read(next_block()).release()

        cases = {"ours": ours, "pread": plain, "pread_into": bare}
        timed = {name: _per_call(case, 100 if quick else 1000) for name, case in cases.items()}
        taken = in_turn(timed, rounds=3 if quick else 15)
        misses, seen = cache.misses, cache.hits
    assert misses > seen, "they were no misses"
    return [
        compared(
            "miss, 4 KiB, O_DIRECT", taken["ours"], "us", "os.preadv", taken["pread"], goal=1.1
        ),
        compared(
            "miss, 4 KiB, O_DIRECT", taken["ours"], "us", "device.pread_into", taken["pread_into"]
        ),
    ]


def _per_call(case: Callable[[], object], count: int) -> Callable[[], float]:
    def timed() -> float:
        began = time.perf_counter()
        for _ in range(count):
            case()
        return (time.perf_counter() - began) / count * 1e6

    return timed


def _write_back(device: Any, quick: bool) -> list[Row]:
    blocks = 128 if quick else BLOCKS
    kept = 3 * blocks  # clean blocks enough that nothing is written before its time

    def rate(cache: BufferCache) -> Callable[[], float]:
        def timed() -> float:
            for block in range(kept):
                with cache.new(block) as buffer:
                    if block >= kept - blocks:
                        buffer.mark_dirty()
            began = time.perf_counter()
            cache.write_dirty()
            return blocks * BLOCK / (time.perf_counter() - began) / 1e6

        return timed

    with (
        _cache(device, kept + 256, 256, gather="1MiB") as gathered,
        _cache(device, kept + 256, gather=0) as single,
    ):
        taken = in_turn({"ours": rate(gathered), "single": rate(single)}, rounds=3 if quick else 9)
    return [
        compared(
            "write-back, adjacent 4 KiB blocks, O_DIRECT", taken["ours"], "MB/s",
            "block by block", taken["single"], goal=10, better="higher",
            note="both end with one flush",
        )
    ]  # fmt: skip
