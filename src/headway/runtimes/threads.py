"""Carry out plans on the calling thread: a parked thread sleeps on a lock of its own.

It decides nothing. One lock per wait, released by whoever wakes the ticket; an interrupt
(KeyboardInterrupt) that ends the sleep is thrown into the plan, which hands on what it was given.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TypeVar, final

from headway.core.plan import Call, Guard, Now, Offload, Park, Plan, Request, Spawn, Unpark
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
            answer: Any
            while True:
                try:
                    if request.__class__ is Park:  # the usual one first
                        answer = _park(request)
                    elif request.__class__ is Now:
                        answer = time.monotonic()
                    else:
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
            case Unpark(ticket):
                return ticket.wake()
            case Spawn(plan, name):
                run = scopes.in_copied_context(self.run, plan)
                threading.Thread(target=run, name=name, daemon=True).start()
                return None
            case _:
                raise AssertionError(f"not a request: {request!r}")

    # The functions themselves: every wait asks for three of them.
    scope = staticmethod(scopes.current)
    owner = staticmethod(scopes.owner)
    where = staticmethod(scopes.where)
    now = staticmethod(time.monotonic)
    key = staticmethod(id)

    def report(self, message: str, *, once: bool = False) -> None:
        scopes.report(message, once=once)

    def __repr__(self) -> str:
        return "<Threads>"


def _park(request: Park) -> bool:
    ticket, timeout_s = request.ticket, request.timeout_s
    sleeping = threading.Lock()
    sleeping.acquire()
    if not ticket.arm(sleeping.release):
        return True
    if timeout_s is None:
        return sleeping.acquire()
    return sleeping.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))


THREADS = Threads()
