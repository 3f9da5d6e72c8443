"""The calls that may wait for a device, and the threads that make them.

It decides nothing. The threads are made at the start, with small stacks: a thread that is started
when memory has run out is one that cannot be. A job is owned by one side at a time: by the loop, then
in `submit` by the workers, then in `done` by the loop again. A worker never waits for memory. Whose job
comes next is decided by `headway.core.nbd.fair`.

The bound: `count` jobs run at once, all but `_KEPT` of them for one connection; how many wait is
bounded by each connection.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final, Protocol, final

from headway.core.nbd import wire
from headway.core.nbd.fair import FairQueue
from headway.core.nbd.transmission import Verb
from headway.edge.serving.export import Export
from headway.edge.serving.intake import Filling

_KEPT: Final = 2  # workers that a single connection never has
_STACK: Final = 256 << 10
_CHANGES: Final = (Verb.WRITE, Verb.TRIM, Verb.ZERO)


class Owner(Protocol):
    """Whose request a job is for."""

    export: Export | None

    def finished(self, job: Job) -> None:
        """Called by the loop when the job is done."""


@final
class Job:
    """One call of a device for one request, or for one piece of it."""

    __slots__ = (
        "connection",
        "cookie",
        "error",
        "extents",
        "first",
        "flags",
        "frame",
        "last",
        "length",
        "offset",
        "spare",
        "verb",
        "why",
        "write",
    )

    def __init__(
        self, connection: Owner, verb: Verb, cookie: int, offset: int, length: int, flags: int
    ) -> None:
        self.connection = connection
        self.verb = verb
        self.cookie = cookie
        self.offset = offset
        self.length = length
        self.flags = flags
        self.frame: memoryview | None = (
            None  # the data of a READ or WRITE: its first `length` bytes
        )
        self.spare = False  # whether the frame is from the spare ones
        self.write: Filling | None = None  # the request of which a WRITE is a piece
        self.first = True  # of the pieces of a READ
        self.last = True
        self.error = 0  # the protocol's
        self.why = ""
        self.extents: list[tuple[int, int]] = []  # the answer to STATUS

    def run(self, export: Export) -> None:
        """Make the call. Raises: nothing; what went wrong is in `error` and `why`."""
        try:
            self._call(export)
        except OSError as error:
            self.error = wire.error_for(error.errno)
            self.why = error.strerror or str(error)
        except MemoryError:
            self.error, self.why = wire.ENOMEM, "out of memory"
        except Exception as error:  # a device's fault must not take the worker with it
            self.error, self.why = wire.EIO, f"{type(error).__name__}: {error}"

    def _call(self, export: Export) -> None:
        verb, offset, length = self.verb, self.offset, self.length
        if verb is Verb.READ:
            assert self.frame is not None
            export.read(self.frame[:length], offset)
        elif verb is Verb.WRITE:
            assert self.frame is not None
            export.write(self.frame[:length], offset)
        elif verb is Verb.TRIM:
            export.trim(offset, length)
        elif verb is Verb.ZERO:
            export.zero(offset, length, keep=bool(self.flags & wire.FLAG_NO_HOLE))
        elif verb is Verb.CACHE:
            export.prefetch(offset, length)
        elif verb is Verb.STATUS:
            one = bool(self.flags & wire.FLAG_REQ_ONE)
            self.extents = export.extents(offset, length, one=one)
        if verb is Verb.FLUSH or (self.flags & wire.FLAG_FUA and verb in _CHANGES):
            export.flush()


@final
class Workers:
    """`count` threads; `wake_fd` becomes readable when a job is done."""

    def __init__(self, count: int) -> None:
        self._ready = threading.Condition()
        self._queue: FairQueue[Job] = FairQueue(max(1, count - _KEPT))  # under the condition's lock
        self._stopping = False  # under the condition's lock
        self._done: deque[Job] = deque()  # appended by workers, taken by the loop
        self.wake_fd, self._signal_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = threading.stack_size(_STACK)
        try:
            self._threads = [
                threading.Thread(target=self._work, name=f"headway-nbd-worker-{n}", daemon=True)
                for n in range(count)
            ]
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(before)

    def submit(self, job: Job) -> None:
        with self._ready:
            if self._queue.put(job.connection, job):
                self._ready.notify()

    def done(self) -> list[Job]:
        """The jobs that are done; called by the loop when `wake_fd` is readable."""
        try:
            os.read(self.wake_fd, 4096)
        except BlockingIOError:
            pass
        found = []
        while self._done:
            found.append(self._done.popleft())
        return found

    def wake(self) -> None:
        """Make `wake_fd` readable; from any thread."""
        try:
            os.write(self._signal_fd, b"\0")
        except BlockingIOError:
            pass  # full of wake-ups that nobody has read: one of them is enough

    def stop(self) -> None:
        """Let every worker end after its job. One that is stuck in a device is left behind."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()

    def close(self, timeout_s: float) -> bool:
        """After `stop`: True if all workers have ended. The descriptors are closed only then."""
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        if any(thread.is_alive() for thread in self._threads):
            return False
        os.close(self.wake_fd)
        os.close(self._signal_fd)
        return True

    def _work(self) -> None:
        while (job := self._next()) is not None:
            export = job.connection.export
            assert export is not None
            job.run(export)
            with self._ready:
                if self._queue.done(job.connection):
                    self._ready.notify()
            self._done.append(job)
            self.wake()

    def _next(self) -> Job | None:
        """Wait for a job; None when there is nothing more to do."""
        with self._ready:
            while True:
                job = self._queue.take()
                if job is not None or self._stopping:
                    return job
                self._ready.wait()
