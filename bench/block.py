"""One 4 KiB read through a stack of layers, by each of its doors, beside the same read without layers.

What a server does for each request besides parsing and answering is in every row: a bio and a frame
from their pools, the read itself, both back. The file lies in memory where there is a tmpfs, so the
layers are all there is to see.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import headway
from bench.measure import Loop, Row, compared, pairs_ns
from headway.core.block.bio import READ
from headway.core.block.bottom import Bottom
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.runtimes.threads import THREADS

NOTE = "one thread, no socket: a server's parsing and answering would make every ratio smaller"
SIZE, LENGTH = 4 << 20, 4096
LAYERS = {
    0: [],
    1: ["linear"],
    3: ["linear", "stripe,with=x", "linear"],
    5: ["linear", "stripe,with=x", "linear", "linear", "linear"],
}
GOALS = {"submit_now, 3 layers": 1.25, "begin, 3 layers": 1.7}


def run(quick: bool) -> list[Row]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.NamedTemporaryFile(dir=memory) as file:
        file.truncate(SIZE)
        device = headway.open_device(file.name, direct=False)
        try:
            return _rows(device, quick)
        finally:
            device.close()


def _rows(device: Any, quick: bool) -> list[Row]:
    cases: dict[str, Loop] = {"preadv": _preadv_loop(device), "direct": _direct_loop(device)}
    for count, specs in LAYERS.items():
        stack = Stack(THREADS, Bottom(device), specs, opener=lambda *_: Bottom(device))
        cases |= {f"inline {count}": _inline_loop(stack), f"begin {count}": _begin_loop(stack)}
        cases[f"plan {count}"] = _plan_loop(stack)
    rounds, round_s = (3, 0.002) if quick else (15, 0.03)
    took = pairs_ns(cases, rounds=rounds, round_s=round_s)

    def row(case: str, ours: str, peer: str) -> Row:
        goal = GOALS.get(case)
        return compared(case, took[ours], "ns", peer, took[peer], goal=goal, note=NOTE)

    rows = [row("read, no layers, bio and frame", "direct", "preadv")]
    for count in LAYERS:
        rows.append(row(f"submit_now, {count} layers", f"inline {count}", "direct"))
        rows.append(row(f"begin, {count} layers", f"begin {count}", "direct"))
        rows.append(row(f"the plan, {count} layers", f"plan {count}", "direct"))
    return rows


def _frames() -> Any:
    return headway.Mempool.of([memoryview(bytearray(LENGTH)) for _ in range(4)])


def _preadv_loop(device: Any) -> Loop:
    descriptor, view = device.fd, memoryview(bytearray(LENGTH))

    def loop(count: int) -> None:
        for _ in range(count):
            os.preadv(descriptor, [view], LENGTH)

    return loop


def _direct_loop(device: Any) -> Loop:
    bios, frames = Stack(THREADS, Bottom(device)).bios, _frames()

    def loop(count: int) -> None:
        for _ in range(count):
            bio, frame = bios.pool.alloc(), frames.alloc()
            bio.aim(READ, LENGTH, frame, LENGTH)
            device.pread_into(frame, LENGTH)
            bios.free(bio)
            frames.free(frame)

    return loop


def _inline_loop(stack: Stack) -> Loop:
    bios, frames = stack.bios, _frames()

    def loop(count: int) -> None:
        for _ in range(count):
            bio, frame = bios.pool.alloc(), frames.alloc()
            assert stack.submit_now(bio.aim(READ, LENGTH, frame, LENGTH))
            assert bio.error is None
            bios.free(bio)
            frames.free(frame)

    return loop


def _begin_loop(stack: Stack) -> Loop:
    bios, frames = stack.bios, _frames()

    def ended(bio: Any) -> bool:
        assert bio.error is None
        frame = bio.private
        bios.free(bio)
        frames.free(frame)
        return True

    def loop(count: int) -> None:
        for _ in range(count):
            bio, frame = bios.pool.alloc(), frames.alloc()
            bio.aim(READ, LENGTH, frame, LENGTH)
            bio.private = frame
            bio.push(ended)
            stack.begin(bio)

    return loop


def _plan_loop(stack: Stack) -> Loop:
    bios, frames = stack.bios, _frames()

    def loop(count: int) -> None:
        for _ in range(count):
            bio, frame = bios.pool.alloc(), frames.alloc()
            THREADS.run(carry_out(stack.top, bio.aim(READ, LENGTH, frame, LENGTH)))
            assert bio.error is None
            bios.free(bio)
            frames.free(frame)

    return loop
