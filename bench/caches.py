"""Caches that give way: what a hit costs, and Zipf traffic over three times what a zone holds.

The hits are of one thread, on a full cache of 1,000 small objects, each side as its documentation
shows it. `cachetools` is guarded by a lock, as it says it must be; so is the OrderedDict.

The traffic: three caches share a zone with a pool of frames. Each request leases a frame, and asks
for an object; the objects of the three come to three times the zone, of 1 to 16 KiB each, asked for
by Zipf's law with exponent 0.9, which starts over at other objects half-way. What is held and
charged is looked at after every eighth request. The peers are one OrderedDict LRU for all three: of
the whole zone, which is more room than the caches have beside frames and watermarks, and of equal
bytes. By default a zone of 16 MiB and a few seconds; HEADWAY_BENCH_SECONDS=60 is the run that the
goal names, with 64 MiB.

It does not show resident memory: the arena is present, the cached objects lie outside it.
"""

from __future__ import annotations

import functools
import os
import random
import threading
import time
from collections import OrderedDict
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import headway
from bench.measure import Loop, Row, alone, compared, pairs_ns

SIZE = 64 << 20
TIMES = 3
SKEW = 0.9
NOTE = "one thread, every lookup a hit"


class LockedLru:
    """What people write: an OrderedDict and a lock."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.used = 0
        self._entries: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> bytes | None:
        with self._lock:
            try:
                value = self._entries[key]
            except KeyError:
                return None
            self._entries.move_to_end(key)
            return value

    def put(self, key: Any, value: bytes) -> None:
        with self._lock:
            self._entries[key] = value
            self.used += len(value)
            while self.used > self.room:
                self.used -= len(self._entries.popitem(last=False)[1])


def run(quick: bool) -> list[Row]:
    return [*_hits(quick), *_traffic(quick)]


def _hits(quick: bool) -> list[Row]:
    cases: dict[str, Loop] = {}
    zone = headway.Zone(SIZE, name="hits")
    ours: headway.ShrinkableCache[int, bytes] = headway.ShrinkableCache(zone, cost=len)
    lru = LockedLru(SIZE)
    for key in range(1000):
        ours[key] = bytes(100)
        lru.put(key, bytes(100))
    cases["ours"] = _get_loop(ours)
    cases["OrderedDict LRU with a lock"] = _get_loop(lru)
    cases["decorated"] = _call_loop(headway.ShrinkableCache(zone, cost=len)(lambda key: b"value"))
    cases["functools.lru_cache"] = _call_loop(functools.lru_cache(1000)(lambda key: b"value"))
    if find_spec("cachetools") is not None:
        cases["cachetools.LRUCache with a lock"] = _cachetools_loop()
    rounds, round_s = (3, 0.002) if quick else (15, 0.03)
    took = pairs_ns(cases, rounds=rounds, round_s=round_s)
    zone.close()
    goals = {"OrderedDict LRU with a lock": 2.0, "cachetools.LRUCache with a lock": 1.0}
    rows = [
        compared("hit", took["ours"], "ns", peer, took[peer], goal=goal, note=NOTE)
        for peer, goal in goals.items()
        if peer in took
    ]
    peer = "functools.lru_cache"
    return [*rows, compared("hit, decorated", took["decorated"], "ns", peer, took[peer], note=NOTE)]


def _get_loop(cache: Any) -> Loop:
    def loop(count: int) -> None:
        for _ in range(count):
            cache.get(7)

    return loop


def _call_loop(function: Any) -> Loop:
    def loop(count: int) -> None:
        for _ in range(count):
            function(7)

    return loop


def _cachetools_loop() -> Loop:
    import cachetools  # type: ignore[import-untyped, unused-ignore]

    cache = cachetools.LRUCache(SIZE, getsizeof=len)
    lock = threading.Lock()
    for key in range(1000):
        cache[key] = bytes(100)

    def loop(count: int) -> None:
        for _ in range(count):
            with lock:
                cache[7]

    return loop


def _traffic(quick: bool) -> list[Row]:
    seconds = 1.0 if quick else float(os.environ.get("HEADWAY_BENCH_SECONDS", "5"))
    size = SIZE if seconds >= 30 else SIZE // 4
    sizes = _sizes(TIMES * size)
    zone = headway.Zone(size, name="traffic")
    caches: list[Any] = [
        headway.ShrinkableCache(zone, cost=len, name=f"cache {number}") for number in range(3)
    ]
    frames: headway.Mempool[memoryview] = headway.Mempool(zone.buffers(size // 64), min_count=2)
    lru, equal = LockedLru(size), LockedLru(size - zone.stats().low - 3 * size // 64)
    plain: dict[int, int] = {}
    hits = lru_hits = equal_hits = requests = failed = most = 0
    keys = _keys(len(sizes))
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        shift = 0 if time.perf_counter() - began < seconds / 2 else len(sizes) // 3
        for rank in next(keys):
            key = (rank + shift) % len(sizes)
            requests += 1
            cache = caches[key % 3]
            try:
                with frames.lease():
                    found = cache.get(key)
                    if found is None:
                        cache[key] = bytes(sizes[key])
                    else:
                        hits += 1
                        failed += len(found) != sizes[key]
            except headway.HeadwayError:
                failed += 1
            if not requests % 8:
                stats = zone.stats()
                most = max(most, stats.held + stats.clean + stats.dirty)
            lru_hits += _asked(lru, key, sizes[key])
            equal_hits += _asked(equal, key, sizes[key])
            plain[key] = sizes[key]
    frames.close()
    zone.close()
    note = f"{requests:,} requests in {seconds:g} s, a zone of {size >> 20} MiB"
    share = 100 / requests
    return [
        compared(
            "Zipf traffic: hits", [hits * share], "%", "LRU of equal bytes", [equal_hits * share],
            goal=1.0, better="higher", note=note,
        ),
        compared(
            "Zipf traffic: hits", [hits * share], "%", "LRU of the whole zone", [lru_hits * share],
            goal=1.0, better="higher", note=note,
        ),
        alone("Zipf traffic: most of the limit", [most / size * 100], "%", goal=100.0, note=note),
        alone("Zipf traffic: failed requests", [failed], "requests", goal=0.0, note=note),
        alone("Zipf traffic: plain dicts", [sum(plain.values()) / size * 100], "%", note=note),
    ]  # fmt: skip


def _asked(lru: LockedLru, key: int, size: int) -> bool:
    if lru.get(key) is not None:
        return True
    lru.put(key, bytes(size))
    return False


def _sizes(most: int) -> list[int]:
    """Of objects that come to `most` bytes; the order says nothing about who is popular."""
    chance = random.Random(7)
    sizes: list[int] = []
    total = 0
    while total < most:
        sizes.append(chance.randrange(1 << 10, 16 << 10))
        total += sizes[-1]
    return sizes


def _keys(count: int) -> Any:
    """Batches of ranks, by Zipf's law."""
    chance = random.Random(11)
    ranks = list(range(count))
    chance.shuffle(ranks)
    weights = list(accumulate(1 / rank**SKEW for rank in range(1, count + 1)))
    while True:
        yield chance.choices(ranks, cum_weights=weights, k=1000)
