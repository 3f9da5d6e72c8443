"""Who does the work of a search: this process, several, or a cluster; the results come in the order of the work.

It does not know what is searched. Work is a function of a module and a value that is the same for all of it, and an
item for each piece. Pieces are done ahead of their turn and results used in turn, so a search that stops at its first
finding stops at the same one however many work for it; what was done for nothing is thrown away.

A worker process never outlives its errand: it holds one end of a pipe whose other end only this process has, and
ends as soon as that is closed, by an error or an interrupt here or because this process was killed. A signal of
the terminal is for this process alone.

Bound: at most three chunks for each worker are under way. Where nobody said how many should work, one does for the
first seconds: to start another takes longer than most searches.

Source: speculative execution with in-order retirement (Tomasulo 1967; Smith and Pleszkun 1985).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar, final

from headway.checker.raw import at_ease
from headway.errors import HeadwayError, UsageError

Common = TypeVar("Common")
Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE_S = 5.0
_AHEAD = 3  # chunks under way for each worker
_LARGEST = 256  # items of a chunk
_alone = (
    threading.Lock()
)  # a worker of a cluster may have several threads; code under check is run by one


@final
class Crew:
    """So many workers. Use it as a context: at its end the processes end."""

    def __init__(self, jobs: int | None = 1, dask: str | None = None) -> None:
        """Args: `jobs` is the number of processes, 0 one for each processor, None as many once the work is long;
        `dask` is the address of a cluster's scheduler, whose workers do it instead.

        Raises: UsageError for a negative number, or where no scheduler answers; MissingExtra without Dask.
        """
        if jobs is not None and jobs < 0:
            raise UsageError(
                f"--jobs is {jobs}; give a number of processes, or 0 for one each processor"
            )
        self._waits_till = float("inf") if jobs is not None else time.monotonic() + _PATIENCE_S
        self._pool: Any = None
        self._lifeline: Connection | None = None  # closed, it ends the processes
        self.width = jobs or os.cpu_count() or 1
        self.one_process = jobs == 1 and dask is None
        if dask is not None:
            from headway.integrations.dask import Cluster

            self._pool = Cluster(dask)
            self.width, self._waits_till = self._pool.width, float("inf")
        self._is_asked = self._is_wide = dask is not None or (jobs is not None and self.width > 1)

    def is_wide(self) -> bool:
        """Whether others work, now; once true it stays so."""
        if not self._is_wide and self.width > 1 and time.monotonic() > self._waits_till:
            self._is_wide = True
        return self._is_wide

    def map(
        self,
        work: Callable[[Common, Item], Result],
        common: Common,
        items: Sequence[Item],
    ) -> Iterator[Result]:
        """``work(common, item)`` for each item, in order; an error is raised in its turn.

        Raises: HeadwayError if a worker died.
        """
        rest = iter(items)
        left = len(items)
        while left:
            if left >= 2 * self.width and self.is_wide() and (sent := self._packed(common)):
                yield from self._spread(work, sent, list(rest))
                return
            left -= 1
            yield work(common, next(rest))

    def _packed(self, common: object) -> bytes:
        """What is sent for all work; nothing if it cannot be sent, and nobody asked for more than one worker."""
        try:
            return pickle.dumps(common)
        except UsageError:
            if not self._is_asked:
                self.width = 1
                return b""
            raise

    def _spread(
        self, work: Callable[[Common, Item], Result], sent: bytes, items: list[Item]
    ) -> Iterator[Result]:
        size = max(1, min(_LARGEST, len(items) // (4 * self.width)))
        rest = iter(items)
        ahead: deque[Any] = deque()
        try:
            while True:
                while len(ahead) < _AHEAD * self.width and (chunk := list(islice(rest, size))):
                    ahead.append(at_ease(self._submit, work, sent, chunk))
                if not ahead:
                    return
                for result, error in at_ease(ahead.popleft().result):
                    if error is not None:
                        raise error
                    yield result
        except BrokenExecutor as error:
            raise HeadwayError(f"a worker process died: {error}") from error
        finally:
            for future in ahead:
                at_ease(future.cancel)

    def _submit(self, *work: Any) -> Any:
        with _unsignalled():  # this may start a process
            if self._pool is None:
                theirs, self._lifeline = multiprocessing.Pipe(duplex=False)
                self._pool = ProcessPoolExecutor(
                    self.width,
                    multiprocessing.get_context("spawn"),
                    initializer=_bound,
                    initargs=(theirs,),
                )
            return self._pool.submit(done, *work)

    def close(self, at_once: bool = False) -> None:
        """End the processes; `at_once`: in the middle of what they do."""
        pool, self._pool = self._pool, None
        if at_once and self._lifeline is not None:
            self._lifeline.close()
        if isinstance(pool, ProcessPoolExecutor):
            pool.shutdown(cancel_futures=True)
        elif pool is not None:
            pool.close()
        if self._lifeline is not None:
            self._lifeline.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.close(at_once=kind is not None)


@contextmanager
def _unsignalled() -> Iterator[None]:
    """Signals that ask to end wait until the block is over; a process started in it never gets them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    try:
        resource_tracker.ensure_running()  # a process as well; it lets the other two in when it is started
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _bound(lifeline: Connection) -> None:
    """In a worker: end with the process that asked for the work. It may be killed alone, by SIGTERM."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    threading.Thread(target=_ends_with, args=(lifeline,), daemon=True).start()


def _ends_with(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)


def done(
    work: Callable[[Any, Any], Any], sent: bytes, items: Sequence[Any]
) -> list[tuple[Any, HeadwayError | None]]:
    """A chunk of work, in a worker: for each item its result, or the error that ends the chunk."""
    found: list[tuple[Any, HeadwayError | None]] = []
    with _alone:
        common = _unpacked(sent)
        with getattr(common, "around", nullcontext)():
            for item in items:
                try:
                    found.append((work(common, item), None))
                except HeadwayError as error:
                    found.append((None, error))
                    break
    return found


@lru_cache(maxsize=2)
def _unpacked(sent: bytes) -> Any:
    return pickle.loads(sent)
