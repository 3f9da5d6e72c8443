"""Freezes that users reported, as small programs on the real libraries: found in one run that does not hang.

Each has a corrected twin, which is silent. The numbers are those of the collection of reports.
"""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headway import watch


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def found(session, *, final=True):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=final)]


# -- 1: a second connection while holding one ----------------------------------------------------------


@pytest.fixture
def engine():
    """Makes engines on SQLite with pools of a size."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    made = []

    def make(size):
        made.append(
            sqlalchemy.create_engine(
                "sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=size, max_overflow=0,
                connect_args={"check_same_thread": False},
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.dispose()


def test_1_nested_checkout(session, engine):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    db = engine(5)
    with db.connect() as outer, db.connect() as inner:
        inner.execute(sqlalchemy.text("select 1"))
        outer.execute(sqlalchemy.text("select 1"))
    assert found(session) == [("nested", "warning", 5)]
    finding = session.findings()[0]
    assert "SQLAlchemy pool of 5 made at" in finding.pool
    assert "in make" in finding.pool
    assert all("test_items.py" in lines[0] for lines in finding.stacks.values())


def test_1_nested_checkout_by_as_many_as_it_takes(session, engine):
    """Two at once nest, one after the other in time, with two connections: the numbers reach it."""
    db, meet = engine(2), threading.Barrier(2)

    def handle():
        with db.connect(), db.connect():
            pass

    def request(turn):
        for number in range(2):
            if number == turn:
                handle()
            meet.wait()

    run_threads(lambda: request(0), lambda: request(1))
    assert found(session) == [("nested", "risk", 2)]


def test_1_a_pool_that_is_large_enough_is_not_accused(session, engine):
    """The bound n*(m-1) + 1: three connections are enough for two that nest, and a semaphore lets in two."""
    db, gate = engine(3), threading.Semaphore(2)
    with gate, db.connect(), db.connect():
        pass
    assert found(session) == []


def test_1_with_one_connection(session, engine):
    with engine(5).connect():
        pass
    assert found(session) == []


def run_threads(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- 2: all worker threads wait for a connection, and giving one back needs a worker thread --------------


async def endpoint(limiter, db, release_limiter):
    anyio = pytest.importorskip("anyio")
    session = await anyio.to_thread.run_sync(db.connect, limiter=limiter)
    await anyio.to_thread.run_sync(session.close, limiter=release_limiter)


def test_2_the_release_path_needs_a_worker_thread(session, engine):
    anyio = pytest.importorskip("anyio")

    async def main():
        limiter = anyio.CapacityLimiter(4)
        await endpoint(limiter, engine(3), limiter)

    anyio.run(main)
    assert found(session) == [("release-path", "warning", 7)]


def test_2_a_worker_kept_for_the_release_path(session, engine):
    anyio = pytest.importorskip("anyio")

    async def main():
        await endpoint(anyio.CapacityLimiter(4), engine(3), anyio.CapacityLimiter(1))

    anyio.run(main)
    assert found(session) == []


# -- 6, 10: work that waits for work behind it in its own executor ------------------------------------------


def test_6_each_exchange_pins_three_workers(session):
    pool = ThreadPoolExecutor(8)

    def exchange(depth):
        return pool.submit(exchange, depth - 1).result() if depth else 0

    assert pool.submit(exchange, 2).result() == 0
    pool.shutdown()
    assert found(session) == [("own-executor", "warning", 4)]  # three each: n are safe on n*2 + 1


def test_10_a_parent_waits_for_a_child_queued_behind_it(session):
    pool = ThreadPoolExecutor(2)
    assert pool.submit(lambda: pool.submit(int).result()).result() == 0
    pool.shutdown()
    assert found(session) == [("own-executor", "warning", 2)]


def test_10_with_an_executor_for_children(session):
    parents, children = ThreadPoolExecutor(2), ThreadPoolExecutor(2)
    assert parents.submit(lambda: children.submit(int).result()).result() == 0
    parents.shutdown()
    children.shutdown()
    assert found(session) == []


# -- 7, 8: two modules that each wrap with the same limiter ---------------------------------------------


def test_7_a_limiter_taken_twice_on_one_path(session):
    anyio = pytest.importorskip("anyio")

    async def main():
        limiter = anyio.CapacityLimiter(3)

        async def helper():
            await limiter.acquire_on_behalf_of("helper")
            limiter.release_on_behalf_of("helper")

        async with limiter:
            await helper()

    anyio.run(main)
    assert found(session) == [("nested", "warning", 3)]


@pytest.mark.parametrize("shared", [True, False])
def test_8_two_modules_share_a_semaphore(session, shared):
    async def main():
        one = asyncio.Semaphore(2)
        two = one if shared else asyncio.Semaphore(2)

        async def call():
            async with two:
                await asyncio.sleep(0)

        async with one:
            await asyncio.gather(call(), call()) if shared is None else await call()

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if shared else [])


# -- 9: a slot is kept while upstream tasks cannot start ----------------------------------------------------


@pytest.mark.parametrize("keeps", [True, False])
def test_9_a_slot_kept_while_waiting_for_upstream(session, keeps):
    async def main():
        slots = asyncio.Semaphore(2)

        async def upstream():
            async with slots:
                await asyncio.sleep(0)

        async def downstream():
            if not keeps:
                await asyncio.gather(upstream())
            async with slots:
                if keeps:
                    await asyncio.gather(upstream())

        await asyncio.create_task(downstream())

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if keeps else [])


# -- 26: a finaliser, run by the collector, wants the lock of the pool it interrupts ------------------------


class Client:
    """Gives its connection back when it is collected."""

    def __init__(self, pool, lock, tries):
        self.pool, self.lock, self.tries, self.itself = pool, lock, tries, self
        with lock:
            self.connection = pool.pop()

    def __del__(self):
        if self.lock.acquire(blocking=not self.tries):
            self.pool.append(self.connection)
            self.lock.release()


@pytest.mark.parametrize("tries", [False, True])
def test_26_a_wait_in_a_finaliser(session, tries):
    pool, lock = [1, 2], threading.Lock()
    Client(pool, lock, tries)
    gc.collect()
    assert len(pool) == 2
    assert found(session) == ([] if tries else [("wait-in-finaliser", "risk", 1)])
