"""A fair pool for SQLAlchemy: ``create_engine(..., poolclass=FairPool)``, all else as with QueuePool.

It does not open, check or recycle connections: SQLAlchemy does. It decides who gets the next one: the
first who waits (QueuePool lets newcomers race with the one it woke), except that `reserve` connections
are only for code that gives back, run under ``headway.noreclaim()``. A time limit names who holds
connections, since when, and where they were taken.

A connection has a slot of a budget while it is out. The record is put among the idle ones before its
slot is freed, so whoever gets the slot finds it there, and there are never more than the limit.

Source: SQLAlchemy's ``QueuePool``, whose arguments and status it keeps.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp
from headway.errors import MissingExtra, PoolTimeout
from headway.runtimes import scopes, tasks

try:
    from sqlalchemy import exc, util
    from sqlalchemy.pool import ConnectionPoolEntry, Pool
except ImportError as error:
    raise MissingExtra("the pool for SQLAlchemy", "sqlalchemy") from error

NO_LIMIT = 1 << 40  # connections


class _Connections:
    """What a pool does not share with the one it is recreated as.

    `queue`, `use_lifo` and `empty` are what tools look at that know QueuePool's insides.
    """

    __slots__ = ("queue", "slots", "use_lifo")

    def __init__(self, slots: Budget, use_lifo: bool) -> None:
        self.slots = slots
        self.use_lifo = use_lifo
        self.queue: deque[ConnectionPoolEntry] = deque()  # the idle ones, oldest first

    def empty(self) -> bool:
        return not self.queue

    def take(self) -> ConnectionPoolEntry | None:
        """An idle one: the oldest, or with `use_lifo` the youngest."""
        try:
            return self.queue.pop() if self.use_lifo else self.queue.popleft()
        except IndexError:
            return None


class FairPool(Pool):
    """QueuePool's arguments, and `reserve`: so many of them only for code under ``noreclaim()``.

    `pool_size` connections are kept open, `max_overflow` more are opened when needed and closed after
    use (-1: without limit). `trace` records who holds connections, for the message of a timeout.

    Raises: UsageError unless the reserve is smaller than ``pool_size + max_overflow``.
    """

    _is_asyncio = False

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        reserve: int = 0,
        trace: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(creator, **options)
        self._size = pool_size
        self._max_overflow = -1 if pool_size == 0 else max_overflow
        self._timeout = timeout
        self._trace = trace
        limit = NO_LIMIT if self._max_overflow == -1 else pool_size + max_overflow
        name = self.logging_name or "connections"
        slots = Budget(limit, reserve=reserve, name=name, trace=trace)
        self._pool = _Connections(slots, use_lifo)

    @property
    def slots(self) -> Budget:
        """The budget of connections that may be out: who holds one, who waits."""
        return self._pool.slots

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            self._take_slot()
        except PoolTimeout as error:
            raise exc.TimeoutError(
                f"FairPool limit of size {self._size} overflow {self._max_overflow} reached, "
                f"connection timed out, timeout {self._timeout:.2f}: {error}",
                code="3o7r",
            ) from error
        try:
            return self._pool.take() or self._create_connection()
        except BaseException:
            self.slots.free(1)
            raise

    def _take_slot(self) -> None:
        self.slots.alloc(1, timeout_s=self._timeout)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            if self._size == 0 or len(self._pool.queue) < self._size:
                self._pool.queue.append(record)
            else:
                record.close()
        finally:
            self.slots.free(1)

    def dispose(self) -> None:
        """Close what is idle; what is out is closed or kept when it comes back, as its pool decides."""
        while self._pool.queue:
            self._pool.queue.popleft().close()
        self.logger.info("Pool disposed. %s", self.status())

    def recreate(self) -> FairPool:
        """A new pool with the same arguments."""
        self.logger.info("Pool recreating")
        return type(self)(
            self._creator,
            pool_size=self._size,
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            reserve=self.slots.reserve,
            trace=self._trace,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def size(self) -> int:
        return self._size

    def timeout(self) -> float | None:
        return self._timeout

    def checkedin(self) -> int:
        return len(self._pool.queue)

    def checkedout(self) -> int:
        return self.slots.used

    def overflow(self) -> int:
        """Connections beyond `pool_size`; below zero while fewer are open. Never above `max_overflow`."""
        if not self._size:
            return 0
        open_ = self.checkedout() + self.checkedin() - self._size
        return open_ if self._max_overflow == -1 else min(open_, self._max_overflow)

    @property
    def _overflow(self) -> int:
        return self.overflow()  # looked at by tools made for QueuePool

    def status(self) -> str:
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out connections: {self.checkedout()}"
        )


class AsyncFairPool(FairPool):
    """`FairPool` for ``create_async_engine``: waiting suspends the task."""

    _is_asyncio = True

    def _take_slot(self) -> None:
        if not self.slots.take_now(1):
            plan = self.slots.alloc_plan(
                1, Gfp.KERNEL, scopes.current(), scopes.owner(), self._timeout, False
            )
            util.await_only(tasks.run(plan))
