"""Dirty throttling with real threads, tasks and a file: a device that hangs holds up its own writer only."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from pathlib import Path

import headway as hw
from headway import aio
from headway.core.mm.dirty import DirtyDevice

CHUNK = 64 << 10


class Flusher:
    """A thread that writes what is queued for a device, and says so."""

    def __init__(self, device: DirtyDevice, path: Path, gate: threading.Event) -> None:
        self.device = device
        self.queue: queue.Queue[bytes | None] = queue.Queue()
        self.gate = gate
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while (data := self.queue.get()) is not None:
            self.gate.wait()
            os.write(self.fd, data)
            self.device.cleaned(len(data))

    def end(self) -> None:
        self.queue.put(None)
        self.thread.join()
        os.close(self.fd)


def test_a_device_that_hangs_holds_up_its_own_writer_only(tmp_path: Path) -> None:
    throttle = hw.DirtyThrottle("1MiB", "256KiB")
    hangs, works = threading.Event(), threading.Event()
    works.set()
    slow, fast = throttle.device("slow"), throttle.device("fast")
    slow_flusher = Flusher(slow, tmp_path / "slow", hangs)
    fast_flusher = Flusher(fast, tmp_path / "fast", works)
    accepted: list[int] = []

    def write(flusher: Flusher, count: int, note: list[int]) -> None:
        for number in range(count):
            flusher.queue.put(bytes([number % 256]) * CHUNK)
            flusher.device.dirtied(CHUNK)
            note.append(number)

    stuck = threading.Thread(target=write, args=(slow_flusher, 64, accepted))
    stuck.start()
    write(fast_flusher, 128, [])
    assert stuck.is_alive(), "what the slow device cannot take is not accepted"
    assert slow.dirty <= (1 << 20) + CHUNK
    hangs.set()
    stuck.join()
    slow_flusher.end()
    fast_flusher.end()
    assert len(accepted) == 64
    assert (slow.dirty, fast.dirty, throttle.whole.dirty) == (0, 0, 0)
    assert (tmp_path / "slow").stat().st_size == 64 * CHUNK
    assert (tmp_path / "fast").stat().st_size == 128 * CHUNK


def test_tasks_are_slowed_without_stopping_their_loop() -> None:
    async def main() -> list[str]:
        throttle = hw.DirtyThrottle("1MiB")
        disk = throttle.device("disk")
        disk.account(2 << 20, None)
        events: list[str] = []

        async def writer() -> None:
            await aio.dirtied(disk, CHUNK)
            events.append("written")

        task = asyncio.create_task(writer())
        await asyncio.sleep(0)
        events.append("another task runs")
        disk.cleaned(2 << 20)
        await task
        return events

    assert asyncio.run(main()) == ["another task runs", "written"]
