"""A web service that freezes, and the one argument that cures it: python examples/limiter_freeze.py

Each request takes a database connection in a worker thread, works, and gives it back in a worker
thread; frameworks do this for you. With one connection and three threads, four requests are enough:
one holds the connection, three hold all the threads while they wait for it, and giving it back needs a
thread. A load of users does the same to ten connections and forty threads.

The cure keeps one thread for giving back: CapacityLimiter(3, reserve=1), and limiter.entitled there.
"""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread

from headway.integrations.anyio import CapacityLimiter

THREADS, REQUESTS = 3, 8


class Connections:
    """A pool of one connection, of the usual kind: whoever wants it blocks a thread."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._count = 1
        self._closed = False
        self.waiting = 0

    def take(self) -> None:
        with self._free:
            self.waiting += 1
            self._free.wait_for(lambda: self._count or self._closed)
            self.waiting -= 1
            if self._closed:
                raise ConnectionAbortedError("the pool was closed")
            self._count -= 1

    def give_back(self) -> None:
        with self._free:
            self._count += 1
            self._free.notify()

    def close(self) -> None:
        with self._free:
            self._closed = True
            self._free.notify_all()


class Service:
    """`limiter` is what every thread is taken from; `releasing` the same, for giving back."""

    def __init__(self, limiter: Any, releasing: Any) -> None:
        self.limiter = limiter
        self.releasing = releasing
        self.connections = Connections()
        self.rush = anyio.Event()  # the first request works until the others have come
        self.done = 0

    async def request(self) -> None:
        try:
            await anyio.to_thread.run_sync(self.connections.take, limiter=self.limiter)
        except ConnectionAbortedError:
            return
        await self.rush.wait()
        await anyio.to_thread.run_sync(self.connections.give_back, limiter=self.releasing)
        self.done += 1

    def frozen(self) -> bool:
        """Every thread waits for a connection, and giving one back waits for a thread."""
        ordinary = self.limiter.statistics()
        return (
            self.connections.waiting == ordinary.total_tokens
            and self.releasing.statistics().tasks_waiting > 0
            and ordinary.tasks_waiting > REQUESTS - 1 - THREADS
        )

    async def run(self) -> str:
        """Eight requests; says what became of them."""
        usable = THREADS - getattr(getattr(self.limiter, "budget", None), "reserve", 0)
        async with anyio.create_task_group() as requests:
            requests.start_soon(self.request)
            while self.limiter.borrowed_tokens or self.connections._count:
                await anyio.sleep(0)  # until the first one has the connection
            for _ in range(REQUESTS - 1):
                requests.start_soon(self.request)
            while self.connections.waiting < usable:
                await anyio.sleep(0)
            self.rush.set()
            while self.done < REQUESTS:
                if self.frozen():
                    self.connections.close()  # the only way out: fail everybody
                    return f"frozen: {self.done} of {REQUESTS} requests answered, nothing can move"
                await anyio.sleep(0)
        return f"{self.done} of {REQUESTS} requests answered"


async def before() -> str:
    limiter = anyio.CapacityLimiter(THREADS)
    return await Service(limiter, limiter).run()


async def after() -> str:
    limiter = CapacityLimiter(THREADS, reserve=1)
    return await Service(limiter, limiter.entitled).run()


if __name__ == "__main__":
    print("anyio.CapacityLimiter(3):             ", anyio.run(before))
    print("CapacityLimiter(3, reserve=1).entitled:", anyio.run(after))
