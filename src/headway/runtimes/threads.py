"""Carry out plans on the calling thread: a parked thread sleeps on a lock of its own.

It decides nothing. One lock per wait, released by whoever wakes the ticket; an interrupt
(KeyboardInterrupt) that ends the sleep is thrown into the plan, which hands on what it was given.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TypeVar, final

from headway.core.plan import Call, Guard, Now, Offload, Park, Plan, Request, Spawn, Ticket, Unpark
from headway.runtimes import scopes

T = TypeVar("T")


@final
class Threads:
    """The runtime of ordinary programs: `THREADS` is the only one needed."""

    __slots__ = ()

    @property
    def locked(self) -> bool:
        """True on a free-threaded build, where the fast path's store-then-look is not ordered."""
        return not getattr(sys, "_is_gil_enabled", lambda: True)()

    def guard(self) -> Guard:
        return threading.Lock()

    def run(self, plan: Plan[T]) -> T:
        """Carry out a plan; blocks the thread as long as the plan waits."""
        try:
            request = next(plan)
            while True:
                try:
                    answer = self._carry_out(request)
                except BaseException as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(answer)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _carry_out(self, request: Request) -> Any:
        kind = request.__class__
        if kind is Call or kind is Offload:
            assert isinstance(request, (Call, Offload))
            if request.scope:
                with scopes.applied(request.scope):
                    return request.effect(*request.args)
            return request.effect(*request.args)
        match request:
            case Park(ticket, timeout_s):
                return _park(ticket, timeout_s)
            case Unpark(ticket):
                return ticket.wake()
            case Now():
                return time.monotonic()
            case Spawn(plan, name):
                run = scopes.in_copied_context(self.run, plan)
                threading.Thread(target=run, name=name, daemon=True).start()
                return None
            case _:
                raise AssertionError(f"not a request: {request!r}")

    def scope(self) -> int:
        return scopes.current()

    def owner(self) -> str:
        return scopes.owner()

    def where(self) -> tuple[str, ...]:
        return scopes.where()

    def now(self) -> float:
        return time.monotonic()

    def key(self, element: object) -> int:
        return id(element)

    def report(self, message: str, *, once: bool = False) -> None:
        scopes.report(message, once=once)

    def __repr__(self) -> str:
        return "<Threads>"


def _park(ticket: Ticket, timeout_s: float | None) -> bool:
    sleeping = threading.Lock()
    sleeping.acquire()

    def waker() -> bool:
        sleeping.release()
        return True

    if not ticket.arm(waker):
        return True
    if timeout_s is None:
        return sleeping.acquire()
    return sleeping.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))


THREADS = Threads()
