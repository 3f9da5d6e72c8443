"""Who acts now: the running task, else the thread; and whom a task's context makes it act for.

It keeps no account of what they hold. A context variable carries the owner, so that a task's child
knows its parent, and a worker thread that runs in a task's copied context (`asyncio.to_thread`,
anyio's worker threads) acts as that task: what it takes, the task holds, wherever it gives it back.

Bound: about 150 ns where the context already names the right owner.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.tasks
import sys
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, final

from headway.watch.classes import Owner

_running_loop = asyncio._get_running_loop
if sys.version_info >= (3, 12):
    _current_task = asyncio.current_task  # in C
else:
    _current_task = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # what its function in Python does
_NO_THREAD = -1


@final
class Owners:
    """The owners of one process."""

    def __init__(self) -> None:
        self.flow: ContextVar[Owner | None] = ContextVar("headway_watch_flow", default=None)
        self._carried = self.flow.get
        self.starts = (
            0  # of threads, tasks and items of work; a clock that puts in order who starts whom
        )
        self._start: ContextVar[int] = ContextVar("headway_watch_start", default=0)
        self.foreign: Callable[[], Any] | None = (
            None  # the running task of a loop that is not asyncio's
        )
        self._local = threading.local()
        self._tasks: weakref.WeakKeyDictionary[Any, Owner] = weakref.WeakKeyDictionary()
        self._threads: weakref.WeakKeyDictionary[Any, Owner] = weakref.WeakKeyDictionary()

    def current(self) -> Owner:
        """Whoever runs this."""
        carried = self._carried
        owner = carried()
        if owner is not None and (ref := owner.task) is not None and owner.thread == get_ident():
            task = ref()
            if task is not None and _current_task(task.get_loop()) is task:
                return owner  # to ask for the running loop may cost a system call
        if self.foreign is not None and (task := self.foreign()) is not None:
            return self._of_foreign(task)
        loop = _running_loop()
        if loop is not None:
            task = _current_task(loop)
            if task is not None:
                return self._of_task(task, owner)
            if owner is not None and owner.task is not None:
                return owner  # a callback that the task left behind
        elif owner is not None and owner.key == get_ident():
            return owner
        return self._of_thread(get_ident(), owner)

    def of_task(self, task: Any) -> Owner | None:
        """The owner a task is, if it has been seen."""
        return self._tasks.get(task)

    def of_thread(self, thread: Any) -> Owner | None:
        """The owner a thread is, if it has been seen."""
        return self._threads.get(thread)

    def start_task(self, context: Context | None) -> None:
        """A task is about to be made, with a copy of this context, or in another."""
        self.starts += 1
        try:
            if context is None:
                self._start.set(self.starts)
            else:
                context.run(self._start.set, self.starts)
        except RuntimeError:
            pass  # a context that is in use by somebody: the task counts as old as that

    def start_thread(self, thread: Any) -> None:
        """A thread is about to be started by whoever calls."""
        self.starts += 1
        thread._headway_started = (self.current(), self.starts)

    def start_item(self, item: Owner) -> None:
        """Work is handed to others by whoever calls."""
        self.starts += 1
        item.started(self.current(), self.starts)

    @contextmanager
    def item(self, item: Owner) -> Iterator[None]:
        """Run an item of work on this thread, as an owner of its own."""
        item.key = get_ident()
        before = getattr(self._local, "owner", None)
        self._local.owner = item
        token = self.flow.set(item)
        try:
            yield
        finally:
            item.done = True
            self.flow.reset(token)
            self._local.owner = before

    def _of_task(self, task: Any, carried: Owner | None) -> Owner:
        known = self._tasks.get(task)
        if known is None:
            ref = weakref.ref(task)
            parent = carried if carried is not None and carried.alive() else None
            known = Owner(_NO_THREAD, f"task {task.get_name()}", _task_alive(ref), parent, ref)
            known.thread = get_ident()
            known.started(carried, self._started(task))
            self._tasks[task] = known
        self.flow.set(known)
        return known

    def _of_foreign(self, task: Any) -> Owner:
        known = self._tasks.get(task)
        if known is None:
            nursery = task.parent_nursery
            parent = None if nursery is None else self._tasks.get(nursery.parent_task)
            known = Owner(_NO_THREAD, f"task {task.name}", _runs(weakref.ref(task)), parent)
            known.inherits = True  # a nursery waits for its tasks
            self.starts += 1
            known.started(parent, self.starts)
            self._tasks[task] = known
            self.flow.set(known)
        return known

    def _of_thread(self, ident: int, carried: Owner | None) -> Owner:
        mine: Owner | None = getattr(self._local, "owner", None)
        if carried is not None and carried.key == _NO_THREAD and carried.alive():
            # In a task's copied context: an item of work made for it acts for itself, else we act as it.
            return mine if mine is not None and mine.parent is carried else carried
        if mine is None:
            mine = self._local.owner = self._new_thread(ident)
        self.flow.set(mine)
        return mine

    def _new_thread(self, ident: int) -> Owner:
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        if thread is None:
            return Owner(ident, f"thread {ident}", lambda: True)
        owner = Owner(ident, f"thread {thread.name}", _thread_alive(weakref.ref(thread)))
        owner.started(*getattr(thread, "_headway_started", (None, 0)))
        self._threads[thread] = owner
        return owner

    def _started(self, task: Any) -> int:
        """When a task was made; of a loop that is not asyncio's own that is not known, and it is now."""
        if isinstance(task.get_loop(), asyncio.base_events.BaseEventLoop):
            return self._start.get()
        self.starts += 1
        return self.starts


def _task_alive(ref: weakref.ref[Any]) -> Callable[[], bool]:
    def alive() -> bool:
        task = ref()
        return task is not None and not task.done()

    return alive


def _runs(ref: weakref.ref[Any]) -> Callable[[], bool]:
    def alive() -> bool:
        task = ref()
        return task is not None and task.coro.cr_frame is not None

    return alive


def _thread_alive(ref: weakref.ref[Any]) -> Callable[[], bool]:
    def alive() -> bool:
        thread = ref()
        return thread is not None and thread.is_alive()

    return alive


def waits_for(child: Owner) -> bool:
    """Whether somebody waits for the end of a task: it is awaited, gathered, or in a group.

    A callback that only forgets the task (``tasks.discard``) is nobody's wait.
    """
    task = None if child.task is None else child.task()
    callbacks = getattr(task, "_callbacks", None) or ()
    names = [getattr(callback, "__name__", "") for callback, _ in callbacks]
    return any(name not in ("discard", "remove", "_run_until_complete_cb") for name in names)


def related(one: Owner, two: Owner) -> bool:
    """Whether one is the other's parent: a child that gives back for its parent passes nothing on."""
    return (
        one.parent is two
        or two.parent is one
        or (one.parent is not None and one.parent is two.parent)
    )
