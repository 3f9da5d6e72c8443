"""Work that others carry out: a queue, workers that grow in number to a limit, and a rescuer.

It does not decide what work does. `queue` never waits, never fails and may be called from anywhere (a
completion, a plug's kick), so the number of items is bounded by whoever queues: one for each element
of a pool, say. A worker that takes an item and leaves nobody idle starts another worker first, up to
`limit`; so an item waits only if all of them are busy.

Starting a worker may fail (a thread needs memory). Then, and when all `limit` workers are busy, the
*rescuer* takes items one after the other. It is a worker of its own that exists from the start and
takes nothing in easy times, so whatever the others wait for, one more item at a time gets on.
The rule for the rescuer: an item must not wait for another item of the same queue.

Bound: `limit` workers and one rescuer, for ever; with the rescuer every item starts after those before
it in the queue have been taken, provided that items end.

Source: Linux ``kernel/workqueue.c`` (pool workers, ``WQ_MEM_RECLAIM`` and its rescuer, 6.12). Departure:
the rescuer also helps when the limit is reached, at once and not after a delay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from headway.core.plan import Guard, Plan, Runtime, Ticket, park, spawn
from headway.errors import UsageError

Work: TypeAlias = Callable[..., Plan[Any] | None]


@final
@dataclass(frozen=True, slots=True)
class WorkqueueStats:
    """A snapshot: `refused` workers could not be started, `rescued` items were taken by the rescuer."""

    name: str
    workers: int
    idle: int
    pending: int
    done: int
    refused: int
    rescued: int


@final
class Workqueue:
    """A bounded work queue. All fields but the counters change under `_guard`."""

    __slots__ = (
        "_asleep", "_closing", "_ended", "_guard", "_idle", "_limit", "_pending", "_refused_last",
        "_rescuer", "_runtime", "_workers", "done", "name", "refused", "rescued",
    )  # fmt: skip

    def __init__(
        self, runtime: Runtime, name: str, *, limit: int = 4, rescuer: bool = False
    ) -> None:
        if limit < 1:
            raise UsageError(f"work queue {name!r}: limit is {limit}; it needs at least 1 worker")
        self.name = name
        self._runtime = runtime
        self._limit = limit
        self._guard: Guard = runtime.guard()
        self._pending: deque[tuple[Work, tuple[Any, ...]]] = deque()
        self._idle: list[Ticket] = []
        self._workers = 0  # started and not ended, without the rescuer
        self._rescuer = rescuer
        self._asleep: Ticket | None = None  # where the rescuer waits
        self._refused_last = False  # no worker could be started when it was tried last
        self._closing = False
        self._ended: Ticket | None = None  # who waits for the last worker to end
        self.done = self.refused = self.rescued = 0

    def start(self) -> Plan[None]:
        """Start the rescuer and the first worker. Raises: whatever a worker that cannot start raises."""
        began = False
        try:
            if self._rescuer:
                yield from spawn(self._rescue(), f"{self.name} rescuer")
            began = True
            with self._guard:
                self._workers += 1
            yield from self._spawn_worker()
        except BaseException:  # whoever was started ends again, and nobody waits for that
            for ticket in self._dismiss():
                ticket.wake()
            if not began:
                self._rescuer = False
            raise

    def queue(self, work: Work, *args: Any) -> None:
        """Have ``work(*args)`` called by a worker, and the plan it may give carried out.

        Waits: never. What it raises is reported, and ends only this item.
        """
        with self._guard:
            assert not self._closing, f"{self.name} is closed"
            self._pending.append((work, args))
            ticket = self._whom()
        if ticket is not None:
            ticket.wake()

    def close(self) -> Plan[None]:
        """Let the workers end when the queue is empty; returns when they have."""
        wake = self._dismiss()
        with self._guard:
            ticket = self._ended = Ticket(self.name)
            over = not self._workers and not self._rescuer
        for idle in wake:
            idle.wake()
        if not over:
            yield from park(ticket)

    def stats(self) -> WorkqueueStats:
        return WorkqueueStats(
            self.name, self._workers, len(self._idle), len(self._pending), self.done,
            self.refused, self.rescued,
        )  # fmt: skip

    # -- steps under the guard -----------------------------------------------------------------------

    def _dismiss(self) -> list[Ticket]:
        """No more items come: whom to wake, to end."""
        with self._guard:
            self._closing = True
            wake, self._idle = self._idle, []
            if self._asleep is not None:
                wake.append(self._asleep)
                self._asleep = None
            return wake

    def _whom(self) -> Ticket | None:
        """Whom to wake for one more item: an idle worker, or the rescuer if there will be none."""
        if self._idle:
            return self._idle.pop()
        ticket = self._asleep
        if ticket is not None and self._stuck():
            self._asleep = None
            return ticket
        return None

    def _stuck(self) -> bool:
        """Nobody but the rescuer can take another item now."""
        return not self._idle and (self._workers >= self._limit or self._refused_last)

    def _take(self, ticket: Ticket, rescuing: bool) -> tuple[Work, tuple[Any, ...]] | None:
        """An item; if there is none, `ticket` is left to be woken by."""
        with self._guard:
            if self._pending and (not rescuing or self._stuck() or self._closing):
                return self._pending.popleft()
            if self._closing:
                return None
            if rescuing:
                self._asleep = ticket
            else:
                self._idle.append(ticket)
            return None

    def _wants_worker(self) -> bool:
        with self._guard:
            useful = bool(self._pending) or not self._closing
            wanted = useful and not self._idle and self._workers < self._limit
            if wanted:
                self._workers += 1
            return wanted

    # -- workers ---------------------------------------------------------------------------------------

    def _spawn_worker(self) -> Plan[None]:
        number = self._workers
        try:
            yield from spawn(self._work(), f"{self.name} {number}")
        except BaseException:
            with self._guard:
                self._workers -= 1
            raise

    def _grow(self) -> Plan[None]:
        """Before a worker turns to its item: one more worker, if nobody is idle and one can be had."""
        if self._wants_worker():
            try:
                yield from self._spawn_worker()
                self._refused_last = False
                return
            except Exception:
                self.refused += 1
                self._refused_last = True
        with self._guard:  # what is pending now came before the last worker was busy
            ticket = self._whom() if self._pending else None
        if ticket is not None:
            ticket.wake()

    def _work(self) -> Plan[None]:
        yield from self._serve(rescuing=False)

    def _rescue(self) -> Plan[None]:
        yield from self._serve(rescuing=True)

    def _serve(self, rescuing: bool) -> Plan[None]:
        try:
            while True:
                ticket = Ticket(self.name)
                item = self._take(ticket, rescuing)
                if item is None:
                    if self._closing:
                        return
                    yield from park(ticket)
                    continue
                if rescuing:
                    self.rescued += 1
                else:
                    yield from self._grow()
                yield from self._do(*item)
        finally:
            self._leave(rescuing)

    def _do(self, work: Work, args: tuple[Any, ...]) -> Plan[None]:
        try:
            plan = work(*args)
            if plan is not None:
                yield from plan
        except Exception as error:
            self._runtime.report(f"work queue {self.name!r}: an item failed: {error!r}")
        self.done += 1

    def _leave(self, rescuing: bool) -> None:
        with self._guard:
            if rescuing:
                self._rescuer = False
            else:
                self._workers -= 1
            ended = self._ended if not self._workers and not self._rescuer else None
        if ended is not None:
            ended.wake()

    def __repr__(self) -> str:
        return (
            f"<Workqueue {self.name!r}: {self._workers} of {self._limit} workers, "
            f"{len(self._idle)} idle, {len(self._pending)} pending>"
        )
