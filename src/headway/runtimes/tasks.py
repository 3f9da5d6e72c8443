"""Carry out plans on an asyncio event loop: a parked task awaits a future.

It decides nothing. Wake-ups are delivered once per turn of the loop, through an inbox of its own:
setting the future at once lets all holders' timers fall into step, and the loop then sleeps a whole
millisecond between turns (``epoll`` rounds up). From other threads one call into the loop is made for
a whole batch. What was handed over travels in the ticket, never in the future; a future that was
cancelled in between is left alone, because the cancellation is thrown into the plan, which hands on.

An effect that may block runs on a thread of its own, so that effects which wait for each other can
never exhaust an executor; its late result, after a cancellation, is given to the request's `undo`.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, final

from headway.core.plan import Call, Now, Offload, Park, Plan, Request, Spawn, Ticket, Unpark
from headway.runtimes import scopes

T = TypeVar("T")


@final
class Inbox:
    """The wake-ups of one loop that wait for its next turn."""

    __slots__ = ("_pending", "_scheduled", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._pending: deque[asyncio.Future[bool]] = deque()  # one object for ever: posts may race
        self._scheduled = False

    def post(self, future: asyncio.Future[bool]) -> bool:
        """Wake `future` in the loop's next turn; False if the loop is closed."""
        loop = self.loop()
        if loop is None or loop.is_closed():
            return False
        self._pending.append(future)
        if self._scheduled:  # not taken back since: `_deliver` will see our append
            return True
        self._scheduled = True
        try:
            if asyncio._get_running_loop() is loop:  # not a thread's number: a loop may move
                loop.call_soon(self._deliver)
            else:
                loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # closed since we looked
            self._scheduled = False
            return False
        return True

    def _deliver(self) -> None:
        self._scheduled = False
        for _ in range(len(self._pending)):  # what is posted from now on schedules another turn
            future = self._pending.popleft()
            if not future.done():
                future.set_result(True)


_inboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Inbox] = weakref.WeakKeyDictionary()
_latest: Inbox | None = None  # most programs have one loop; threads may race for it, harmlessly
_spawned: set[asyncio.Task[Any]] = set()  # the loop itself keeps only weak references


def _inbox(loop: asyncio.AbstractEventLoop) -> Inbox:
    global _latest
    inbox = _latest
    if inbox is None or inbox.loop() is not loop:
        inbox = _inboxes.get(loop)
        if inbox is None:
            inbox = _inboxes[loop] = Inbox(loop)
        _latest = inbox
    return inbox


async def run(plan: Plan[T]) -> T:
    """Carry out a plan in the running task; a cancellation is thrown into it."""
    ambient = scopes.ambient()
    awaited = None if ambient is None else getattr(ambient, "awaited", None)
    if awaited is not None:  # under check no loop runs: the requests go to the simulator
        return await awaited(plan)  # type: ignore[no-any-return]
    try:
        request = next(plan)
        answer: Any
        while True:
            try:
                if isinstance(request, Park) and request.timeout_s is None:  # the usual one first
                    future = _armed(request.ticket)
                    answer = True if future is None else await future
                elif request.__class__ is Now:
                    answer = time.monotonic()
                else:
                    answer = await _carry_out(request)
            except BaseException as error:
                request = plan.throw(error)
            else:
                request = plan.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _carry_out(request: Request) -> Any:
    match request:
        case Park(ticket, timeout_s):
            return await _park(ticket, timeout_s)
        case Call(effect, args, scope):
            with scopes.applied(scope):
                return effect(*args)
        case Offload():
            return await _offload(request)
        case Unpark(ticket):
            return ticket.wake()
        case Spawn(plan, name):
            task = asyncio.get_running_loop().create_task(run(plan), name=name)
            _spawned.add(task)
            task.add_done_callback(_spawned.discard)
            return None


def _armed(ticket: Ticket) -> asyncio.Future[bool] | None:
    """What to await until the ticket is woken; None if it was woken already."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()
    return future if ticket.arm(functools.partial(_inbox(loop).post, future)) else None


async def _park(ticket: Ticket, timeout_s: float | None) -> bool:
    future = _armed(ticket)
    if future is None:
        return True
    if timeout_s is None:
        return await future
    loop = asyncio.get_running_loop()
    timer = loop.call_later(timeout_s, _expire, future)
    try:
        return await future
    finally:
        timer.cancel()


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


async def _offload(request: Offload) -> Any:
    """Run the effect on a thread of its own; if we are cancelled first, its result is undone."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    handing = threading.Lock()  # held to decide who takes the outcome: the task, or undo
    outcome: list[
        tuple[Any, BaseException | None]
    ] = []  # here, not in the future: a loop may be closed
    abandoned = False

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def work() -> None:
        result, error = None, None
        try:
            with scopes.applied(request.scope):
                result = request.effect(*request.args)
        except BaseException as raised:
            error = raised
        with handing:
            if not abandoned:
                outcome.append((result, error))
                try:
                    loop.call_soon_threadsafe(settle)
                    return
                except RuntimeError:  # the loop is closed: nobody comes for it
                    outcome.clear()
        _undo(request, result, error)

    threading.Thread(
        target=scopes.in_copied_context(work), name="headway-offload", daemon=True
    ).start()
    try:
        await done
    except BaseException:
        with handing:
            abandoned = True
        for late, failure in outcome:
            _undo(request, late, failure)
        raise
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


async def in_worker(effect: Callable[..., T], *args: Any) -> T:
    """Run an effect that may block on a thread of its own."""
    answer: T = await _offload(Offload(effect, args, scopes.current()))
    return answer


def _undo(request: Offload, result: Any, error: BaseException | None) -> None:
    if error is None and request.undo is not None:
        request.undo(result)
