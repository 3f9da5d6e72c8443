"""The pool for SQLAlchemy: QueuePool's behaviours, and fairness, a reserve, and timeouts that name holders."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import headway as hw

sqlalchemy = pytest.importorskip("sqlalchemy")

from sqlalchemy import create_engine, event, exc, text  # noqa: E402
from sqlalchemy.util import greenlet_spawn  # noqa: E402

from headway.integrations.sqlalchemy import AsyncFairPool, FairPool  # noqa: E402


class Connection:
    """A DBAPI connection that counts what is done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name not in ("close", "rollback", "commit"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)


class Database:
    """A creator of connections, which can be told to fail."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.down = False

    def __call__(self) -> Connection:
        if self.down:
            raise OSError("no route to database")
        self.made.append(Connection())
        return self.made[-1]

    @property
    def closed(self) -> int:
        return sum("close" in connection.calls for connection in self.made)


def later(work: Callable[[], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="request").start()
    return future


def until(condition: Callable[[], object]) -> None:
    while not condition():
        pass


def test_a_real_engine_runs_on_it() -> None:
    engine = create_engine(
        "sqlite://", poolclass=FairPool, pool_size=2, max_overflow=1, pool_timeout=5, reserve=1,
        pool_use_lifo=True, connect_args={"check_same_thread": False},
    )  # fmt: skip
    with engine.connect() as one, engine.connect() as two:
        assert one.execute(text("select 1")).scalar() == 1
        assert two.execute(text("select 2")).scalar() == 2
        assert engine.pool.checkedout() == 2  # type: ignore[attr-defined]
        with hw.noreclaim(), engine.connect() as cleanup:
            assert cleanup.execute(text("select 3")).scalar() == 3
    assert "Connections in pool: 2 Current Overflow: 0" in engine.pool.status()
    engine.dispose()
    assert isinstance(engine.pool, FairPool) and engine.pool.slots.reserve == 1
    assert engine.pool.timeout() == 5 and engine.pool._pool.use_lifo


def test_connections_are_kept_up_to_the_size_and_overflow_is_closed() -> None:
    database = Database()
    pool = FairPool(database, pool_size=2, max_overflow=1)
    assert (pool.overflow(), pool.checkedin()) == (-2, 0), "it opened some before they were needed"
    out = [pool.connect() for _ in range(3)]
    assert (pool.overflow(), pool.checkedout(), len(database.made)) == (1, 3, 3)
    for connection in out:
        connection.close()
    assert (pool.checkedin(), pool.checkedout(), database.closed) == (2, 0, 1)
    pool.connect().close()
    assert len(database.made) == 3
    pool.dispose()
    assert (pool.checkedin(), database.closed) == (0, 3)


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"pool_size": 2, "max_overflow": -1}])
def test_without_a_limit(options: dict[str, int]) -> None:
    pool = FairPool(Database(), **options)  # type: ignore[arg-type]
    out = [pool.connect() for _ in range(40)]
    assert pool.checkedout() == 40
    for connection in out:
        connection.close()
    assert pool.checkedin() == (options["pool_size"] or 40)


@pytest.mark.parametrize(("use_lifo", "expected"), [(False, [0, 1]), (True, [1, 0])])
def test_the_order_of_idle_connections(use_lifo: bool, expected: list[int]) -> None:
    database = Database()
    pool = FairPool(database, pool_size=2, max_overflow=0, use_lifo=use_lifo)
    a, b = pool.connect(), pool.connect()
    a.close(), b.close()
    again = [pool.connect(), pool.connect()]
    assert [database.made.index(c.dbapi_connection) for c in again] == expected  # type: ignore[arg-type]


def test_those_who_wait_are_served_in_order_and_nobody_passes_them() -> None:
    pool = FairPool(Database(), pool_size=1, max_overflow=0)
    held = pool.connect()
    first = later(pool.connect)
    until(lambda: pool.slots.waiters == 1)
    second = later(pool.connect)
    until(lambda: pool.slots.waiters == 2)
    held.close()
    newcomer = later(pool.connect)
    one = first.result(60)
    until(lambda: pool.slots.waiters == 2)
    assert not second.done() and not newcomer.done()
    one.close()
    two = second.result(60)
    assert not newcomer.done()
    two.close()
    newcomer.result(60).close()
    assert len(pool.slots.holders()) == 0


def test_a_timeout_names_who_holds_and_where() -> None:
    pool = FairPool(Database(), pool_size=1, max_overflow=0, timeout=0.001)
    held = pool.connect()
    with pytest.raises(exc.TimeoutError, match=r"FairPool limit of size 1 overflow 0") as caught:
        pool.connect()
    said = str(caught.value)
    assert "held by MainThread for" in said and "1 of 1 out" in said
    assert any("test_a_timeout_names" in place for place in pool.slots.holders()[0].where)
    held.close()


def test_a_failed_connect_gives_its_slot_back() -> None:
    database = Database()
    pool = FairPool(database, pool_size=1, max_overflow=0)
    database.down = True
    for _ in range(3):
        with pytest.raises(OSError, match="no route"):
            pool.connect()
    database.down = False
    pool.connect().close()
    assert (pool.checkedout(), pool.checkedin()) == (0, 1)


def test_an_invalidated_connection_is_replaced_by_a_new_one() -> None:
    database = Database()
    pool = FairPool(database, pool_size=1, max_overflow=0)
    connection = pool.connect()
    connection.invalidate()
    connection.close()
    assert pool.checkedout() == 0
    pool.connect().close()
    assert (len(database.made), database.closed) == (2, 1)


def test_a_forgotten_connection_comes_home_with_the_garbage() -> None:
    pool = FairPool(Database(), pool_size=1, max_overflow=0)
    connection = pool.connect()
    assert pool.checkedout() == 1
    del connection
    assert (pool.checkedout(), pool.checkedin()) == (0, 1)


def test_events_and_a_failing_checkout() -> None:
    pool = FairPool(Database(), pool_size=1, max_overflow=0)
    seen: list[str] = []
    event.listen(pool, "connect", lambda *_: seen.append("connect"))
    event.listen(pool, "checkin", lambda *_: seen.append("checkin"))

    def refuse(*_: object) -> None:
        seen.append("checkout")
        if seen.count("checkout") == 2:
            raise RuntimeError("refused")

    event.listen(pool, "checkout", refuse)
    pool.connect().close()
    with pytest.raises(RuntimeError, match="refused"):
        pool.connect()
    assert seen == ["connect", "checkout", "checkin", "checkout", "checkin"]
    assert pool.checkedout() == 0


def test_the_reserve_serves_the_code_that_gives_back() -> None:
    """Every request needs a second connection to finish: with a reserve the first of them does."""
    pool = FairPool(Database(), pool_size=3, max_overflow=0, reserve=1, timeout=60)
    ready = threading.Barrier(2)

    def request() -> None:
        working = pool.connect()
        ready.wait(60)
        with hw.noreclaim():
            audit = pool.connect()
        audit.close()
        working.close()

    requests = [later(request) for _ in range(2)]
    for done in requests:
        done.result(60)
    assert pool.slots.stats().reserve_uses >= 1 and pool.checkedout() == 0


def test_many_threads_never_open_more_than_the_limit() -> None:
    database = Database()
    pool = FairPool(database, pool_size=2, max_overflow=2, timeout=60)
    peaks: list[int] = []

    def work() -> None:
        for _ in range(50):
            connection = pool.connect()
            peaks.append(len(database.made) - database.closed)
            connection.close()

    for done in [later(work) for _ in range(8)]:
        done.result(60)
    assert max(peaks) <= 4 and pool.checkedout() == 0 and pool.checkedin() <= 2


def test_under_asyncio_a_wait_suspends_the_task() -> None:
    pool = AsyncFairPool(Database(), pool_size=1, max_overflow=0)

    async def main() -> None:
        held = await greenlet_spawn(pool.connect)
        waiting = asyncio.ensure_future(greenlet_spawn(pool.connect))
        while not pool.slots.waiters:
            await asyncio.sleep(0)
        await greenlet_spawn(held.close)
        await greenlet_spawn((await waiting).close)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert pool.checkedout() == 0
