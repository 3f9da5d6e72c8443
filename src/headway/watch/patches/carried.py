"""Waits that watch carries itself, so that another may end them: with `--break`, the youngest of a hang.

Any wait of a thread on a condition (so of a semaphore, a queue, a future, an event, a connection pool), of one
on a watched lock, and of a task. It does not decide which wait ends (`breaking` does). A condition's wait
is carried only where it may be ended; else it is Python's own. A lock is asked again every so often, a task is
cancelled.

A wait that gets what it wanted while it is being ended has it, and goes on: nothing is lost.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from headway.watch.classes import Pool, Wait
from headway.watch.ledger import Ledger

_SLICE_S: Final = 0.1
_RAW = threading.Lock


@contextmanager
def entered(ledger: Ledger, wait: Wait) -> Iterator[None]:
    """The body waits; for a task, it may be ended from outside.

    Raises: Deadlock if it was.
    """
    task = None if wait.owner.task is None else wait.owner.task()
    if ledger.breaks and task is not None and asyncio._get_running_loop() is task.get_loop():
        wait.wake = lambda: task.get_loop().call_soon_threadsafe(_cancel, task, wait)
    try:
        yield
    except asyncio.CancelledError:
        if task is None or wait.broken is None or not wait.cancelled:
            raise
        if task.uncancel() > 0:  # somebody else wants it cancelled as well
            raise
        raise wait.broken from None
    finally:
        ledger.waited(wait)


def _cancel(task: Any, wait: Wait) -> None:
    """In the loop of the task: it may have got what it waited for meanwhile."""
    if wait.owner.wait is wait and not task.done():
        wait.cancelled = True
        task.cancel()


def in_line(
    ledger: Ledger,
    pool: Pool,
    take: Callable[[bool, float], Any],
    timeout: float,
    *,
    sliced: bool = True,
) -> bool:
    """Wait for a lock or semaphore: asked for, entered as a wait, and granted; False if time ran out.

    `timeout` in seconds, -1: no limit; `sliced`: `take` waits by itself alone. Raises: Deadlock if the wait was ended.
    """
    limit = None if timeout == -1 else timeout
    owner = ledger.ask(pool, limit is not None)
    wait = ledger.wait(pool.cls.kind, pool, limit, owner=owner)
    with entered(ledger, wait):
        if not (_sliced(wait, take, limit) if sliced and ledger.breaks else take(True, timeout)):
            return False
    ledger.grant(pool, None, owner)
    return True


def _sliced(wait: Wait, take: Callable[[bool, float], Any], timeout_s: float | None) -> bool:
    wait.wake = lambda: None  # it looks by itself
    end_s = None if timeout_s is None else monotonic() + timeout_s
    while True:
        left_s = _SLICE_S if end_s is None else min(_SLICE_S, end_s - monotonic())
        if take(True, max(0.0, left_s)):
            return True
        if wait.broken is not None:
            raise wait.broken
        if end_s is not None and monotonic() >= end_s:
            return False


def on_condition(condition: Any, timeout: float | None, wait: Wait) -> bool:
    """`Condition.wait`, which whoever ends the wait can wake like one who notifies.

    Raises: RuntimeError if the caller has not got the lock; Deadlock if the wait was ended.
    """
    if not condition._is_owned():
        raise RuntimeError("cannot wait on un-acquired lock")
    mine: Any = _RAW()
    mine.acquire()
    condition._waiters.append(mine)
    wait.carry(mine.release)
    saved = condition._release_save()
    try:
        mine.acquire(True, -1 if timeout is None else max(0.0, timeout))
    finally:
        wait.wake = None
        condition._acquire_restore(saved)
        notified = mine not in condition._waiters
        if not notified:
            condition._waiters.remove(mine)
    if wait.broken is not None and not notified:
        raise wait.broken
    return notified
