"""More libraries, each as a broken program, its corrected twin, and frozen: what is found, and what is explained."""

import asyncio
import contextlib
import multiprocessing
import multiprocessing.pool
import threading

import pytest

from headway import watch
from headway.errors import Deadlock
from tests.watch import freezing, servers


@pytest.fixture
def session():
    with watch.watching(watch.Options(breaks=True)) as session:
        yield session


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


@pytest.fixture(scope="module")
def site():
    with servers.http_server() as address:
        yield address


# -- urllib3 ---------------------------------------------------------------------------------------------


def urllib3_pool(most=2):
    urllib3 = pytest.importorskip("urllib3")
    return urllib3.PoolManager(maxsize=most, block=True)


@pytest.mark.parametrize("nested", [True, False])
def test_urllib3(session, site, nested):
    with urllib3_pool() as http:
        one = http.request("GET", site, preload_content=False)
        if nested:
            assert http.request("GET", site).status == 200
        one.drain_conn()
        assert http.request("GET", site).status == 200
    assert found(session) == ([("nested", "warning", 2)] if nested else [])


def test_urllib3_that_does_not_block_makes_nobody_wait(session, site):
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager(maxsize=1) as http:
        one = http.request("GET", site, preload_content=False)
        assert http.request("GET", site).status == 200
        one.close()
    assert found(session) == []


def test_urllib3_frozen(session, site):
    urllib3 = pytest.importorskip("urllib3")
    with urllib3_pool() as http:

        def take():
            return http.request("GET", site, preload_content=False)

        nest = freezing.nest(threading.Barrier(2), take, lambda response: response.drain_conn())

        def run():
            try:
                nest()
            except urllib3.exceptions.EmptyPoolError as error:
                ended.append(error.__cause__)

        ended = []
        hang = freezing.hung(session, run, run)
        assert [type(error) for error in ended] == [Deadlock]
        assert http.request("GET", site).status == 200  # and the pool has all its connections
    assert freezing.names(hang) == ({"urllib3 pool of 2"},) * 2
    assert hang["release"]["frees"] == 2


# -- aiosqlite -------------------------------------------------------------------------------------------


async def audited(lock, query, *, held):
    """A function of SQL that takes a lock, and a statement under that lock, or not."""
    aiosqlite = pytest.importorskip("aiosqlite")

    def audit(value):
        with lock:
            return value

    async with aiosqlite.connect(":memory:") as db:
        await db.create_function("audit", 1, audit)
        await db.execute("select audit(1)")
        if held:
            with lock:
                await db.execute(query)
        else:
            await db.execute(query)


@pytest.mark.parametrize("held", [True, False])
def test_aiosqlite(session, held):
    asyncio.run(audited(threading.Lock(), "select 2", held=held))
    assert found(session) == ([("opposite-orders", "warning", 2)] if held else [])


def test_aiosqlite_frozen(session):
    sqlite3 = pytest.importorskip("sqlite3")

    def run():
        with pytest.raises(sqlite3.OperationalError):  # the function of SQL was ended
            asyncio.run(audited(threading.Lock(), "select audit(2)", held=True))

    waits, held = freezing.names(freezing.hung(session, run, waits=2))
    assert waits == {"a statement", "lock"}
    assert held == {"lock", "aiosqlite connection of 1"}


# -- asyncpg ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres():
    pytest.importorskip("asyncpg")
    with servers.postgres_server() as address:
        words = dict(word.split("=") for word in address.split())
        yield {"host": words["host"], "user": words["user"], "database": words["dbname"]}


@pytest.mark.parametrize("nested", [True, False])
def test_asyncpg(session, postgres, nested):
    import asyncpg

    async def main():
        async with asyncpg.create_pool(**postgres, min_size=1, max_size=2) as pool:
            async with pool.acquire() as one:
                if nested:
                    assert await pool.fetchval("select 2") == 2
                assert await one.fetchval("select 1") == 1
            assert await pool.fetchval("select 3") == 3

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if nested else [])


def test_asyncpg_frozen(session, postgres):
    import asyncpg

    async def tasks():
        pool = await asyncpg.create_pool(**postgres, min_size=1, max_size=2)
        meet = asyncio.Barrier(2)

        async def take():
            return await pool.acquire()

        async def nest():
            try:
                await freezing.nest_task(meet, take, pool.release)
            finally:
                ended.append(None)
                if len(ended) == 2:
                    await pool.close()

        ended = []
        return [nest(), nest()]

    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({"asyncpg pool of 2"},) * 2
    assert hang["release"]["frees"] == 2


# -- trio (item 7) ---------------------------------------------------------------------------------------


def trio_nested(trio, limiter, nested):
    async def helper():
        await limiter.acquire_on_behalf_of("helper")
        limiter.release_on_behalf_of("helper")

    async def main():
        async with limiter:
            if nested:
                await helper()
        async with trio.open_nursery() as nursery:  # two at once, one token each
            for _ in range(2):
                nursery.start_soon(one)

    async def one():
        async with limiter:
            await trio.sleep(0)

    trio.run(main)


@pytest.mark.parametrize("nested", [True, False])
def test_trio(session, nested):
    trio = pytest.importorskip("trio")
    trio_nested(trio, trio.CapacityLimiter(3), nested)
    assert found(session) == ([("nested", "warning", 3)] if nested else [])


def test_trio_tasks_of_a_nursery_act_for_whom_it_is_opened(session):
    trio = pytest.importorskip("trio")
    limiter = trio.CapacityLimiter(3)

    async def child():
        async with limiter:
            pass

    async def main():
        async with limiter, trio.open_nursery() as nursery:
            nursery.start_soon(child)

    trio.run(main)
    assert found(session) == [("nested", "warning", 3)]


@pytest.mark.parametrize("kind", ["CapacityLimiter", "Semaphore"])
def test_trio_frozen(session, kind):
    trio = pytest.importorskip("trio")
    slots = getattr(trio, kind)(2)
    told = []

    async def nest(both):
        token = object()
        take = (
            (slots.acquire_on_behalf_of, token) if kind == "CapacityLimiter" else (slots.acquire,)
        )
        async with slots:
            both.append(None)
            while len(both) < 2:
                await trio.sleep(0)
            await take[0](*take[1:])

    async def main():
        both = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nest, both)
            nursery.start_soon(nest, both)
            while (hang := session.hang()) is None:
                await trio.sleep(0)
            told.append(hang)
            told.append(session.end_youngest())
            nursery.cancel_scope.cancel()

    trio.run(main)
    hang, ended = told
    label = "trio limiter of 2" if kind == "CapacityLimiter" else "trio semaphore of 2"
    assert freezing.names(hang) == ({label},) * 2
    assert all("a way of its own" in line for line in ended) and len(ended) == 2


# -- multiprocessing (items 10, 25) ----------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("how", ["apply", "map", "imap", "imap_unordered", "imap in chunks"])
def test_a_thread_pool(session, shared, how):
    pool = multiprocessing.pool.ThreadPool(4)
    other = pool if shared else multiprocessing.pool.ThreadPool(4)

    def parent(_):
        if how == "apply":
            return other.apply(int)
        if how == "imap in chunks":
            return max(other.imap(abs, [-1, 0, 1], 2))
        return max(getattr(other, how)(abs, [-1]))

    with pool, other:
        assert pool.apply(parent, (0,)) in (0, 1)
        assert pool.map(parent, [0])[0] in (0, 1)
    assert {kind for kind, _, _ in found(session)} == ({"own-executor"} if shared else set())


@pytest.mark.parametrize("chunks", [None, 1, 2])
def test_a_thread_pool_frozen(session, chunks):
    with multiprocessing.pool.ThreadPool(2) as pool:
        meet = threading.Barrier(2)

        def parent(_):
            meet.wait()
            return pool.apply(int) if chunks is None else list(pool.imap(abs, [0, 0, 0], chunks))

        def ask():
            pool.map(parent, [0, 1], chunksize=1)

        waits, held = freezing.names(freezing.hung(session, ask))
    assert waits == {"a result"} and held == {"thread pool of 2"}


@pytest.mark.parametrize("how", ["apply_async", "imap"])
def test_a_callback_that_waits_for_a_result_of_its_own_pool(session, how):
    """Results come by the hand of the thread that runs the callbacks; without a time limit, for ever."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:

        def callback(_):
            with contextlib.suppress(multiprocessing.TimeoutError):
                if how == "imap":
                    pool.imap(abs, [-1]).next(1)
                else:
                    pool.apply_async(int).get(1)

        waiting = threading.Thread(target=pool.apply_async(int, callback=callback).wait)
        waiting.start()
        while (hang := session.hang()) is None or len(hang["waiters"]) < 2:
            assert waiting.is_alive()
        waiting.join()
    owners = [waiter["owner"] for waiter in hang["waiters"]]
    assert any("_handle_results" in owner for owner in owners)


def test_a_process_pool_used_well_is_not_accused(session):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert pool.apply(abs, (-3,)) == 3
        assert list(pool.imap(abs, [-1, -2, -3])) == [1, 2, 3]
        assert sorted(pool.imap_unordered(abs, [-1, -2, -3], 2)) == [1, 2, 3]
        with pytest.raises(TypeError):
            next(pool.imap(abs, ["one"]))
    assert session.ledger.waits == {}
    assert found(session) == []
