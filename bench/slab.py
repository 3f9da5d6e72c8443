"""Objects of 4 KiB from a slab, beside the pair of a mempool whose backend costs nothing.

One thread; a slab has always one object at hand. The mempool over the slab pays for both.
"""

from __future__ import annotations

from typing import Any

import headway
from bench.measure import Loop, Row, compared, pairs_ns

NOTE = "one thread, no pressure: what is at hand is what is taken"


def _pairs(pool: Any) -> Loop:
    def loop(count: int) -> None:
        for _ in range(count):
            pool.free(pool.alloc())

    return loop


def run(quick: bool) -> list[Row]:
    zone = headway.Zone("16MiB")
    empty = headway.Mempool(
        alloc=lambda gfp: 1, free=lambda element: None, light=lambda gfp: 1, min_count=4
    )
    cases: dict[str, Loop] = {
        "backend pair": _pairs(empty),
        "slab": _pairs(headway.Slab(zone, "4KiB", name="blocks", merge=False)),
        "pool over a slab": _pairs(
            headway.Mempool(headway.Slab(zone, "4KiB", name="pooled", merge=False), min_count=4)
        ),
        "zone buffers": _pairs(zone.buffers("4KiB")),
        "bytearray": lambda count: [bytearray(4096) for _ in range(count)],
    }
    rounds, round_s = (3, 0.002) if quick else (15, 0.03)
    took = pairs_ns(cases, rounds=rounds, round_s=round_s)

    def row(case: str, ours: str, peer: str, goal: float | None) -> Row:
        return compared(case, took[ours], "ns", peer, took[peer], goal=goal, note=NOTE)

    return [
        row("4 KiB object, alloc and free", "slab", "backend pair", 1.5),
        row("4 KiB object, alloc and free", "slab", "zone buffers", None),
        row("4 KiB object, alloc and free", "slab", "bytearray", None),
        row("4 KiB object, mempool over a slab", "pool over a slab", "backend pair", None),
    ]
