"""Connection pools of libraries against real servers: broken, corrected, and frozen; each explained."""

import asyncio
import contextlib
import threading

import pytest

from headway import watch
from tests.watch import freezing, servers


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


def frozen(session, *functions):
    """The hang that the functions, one thread each, run into; they must be able to end after it."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    while (hang := session.hang()) is None:
        assert any(thread.is_alive() for thread in threads), "they all ended"
    return hang, threads


# -- HTTP (item 13) --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site():
    pytest.importorskip("httpx")
    with servers.http_server() as address:
        yield address


def client(most=2):
    import httpx

    return httpx.Client(
        limits=httpx.Limits(max_connections=most), timeout=httpx.Timeout(5, pool=0.2)
    )


def test_13_a_response_not_read_keeps_its_connection(session, site):
    import httpx

    with client() as http:
        unread = http.send(http.build_request("GET", site), stream=True)
        again = http.send(http.build_request("GET", site), stream=True)
        with pytest.raises(httpx.PoolTimeout):
            http.get(site)
        assert found(session) == [("leak", "risk", 2), ("nested", "risk", 1)]
        unread.close()
        again.close()
    leak = session.findings()[0]
    assert "HTTP connection pool of 2" in leak.pool


def test_13_you_hold_2_of_2(session, site):
    import httpx

    with client() as http:
        unread = [http.send(http.build_request("GET", site), stream=True) for _ in range(2)]
        waiting = threading.Event()

        def third():
            with pytest.raises(httpx.PoolTimeout):
                waiting.set()
                http.get(site)

        thread = threading.Thread(target=third)
        thread.start()
        waiting.wait()
        thread.join()
        for response in unread:
            response.close()
    assert ("leak", "risk", 2) not in found(session)  # all closed by now


def test_13_read_to_the_end(session, site):
    with client() as http:
        for _ in range(4):
            with http.stream("GET", site) as response:
                response.read()
    assert found(session) == []


@pytest.mark.parametrize("nested", [True, False])
def test_13_the_same_as_tasks(session, site, nested):
    import httpx

    async def main():
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=2)) as http:
            async with http.stream("GET", site) as response:
                if nested:
                    await http.get(site)
                await response.aread()

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if nested else [])


# -- redis (item 22) -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_path(tmp_path_factory):
    pytest.importorskip("redis")
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as path:
        yield path


def redis_pool(path, most=2, timeout=0.2):
    import redis

    return redis.BlockingConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=path,
        max_connections=most,
        timeout=timeout,
    )


def test_22_one_subscription_leaks_for_each_session(session, redis_path):
    import redis

    pool = redis_pool(redis_path)
    kept = []

    def websocket():
        subscription = redis.Redis(connection_pool=pool).pubsub()
        subscription.subscribe("events")
        kept.append(subscription)

    for _ in range(2):
        thread = threading.Thread(target=websocket)
        thread.start()
        thread.join()
    with pytest.raises(redis.ConnectionError):  # the recovery job itself fails for want of one
        redis.Redis(connection_pool=pool).ping()
    assert found(session) == [("leak", "risk", 2)]
    finding = session.findings()[0]
    assert "redis pool of 2" in finding.pool
    assert "in websocket" in finding.stacks["taken and not given back"][0]
    for subscription in kept:
        subscription.close()
    pool.disconnect()


def test_22_closed_with_its_session(session, redis_path):
    import redis

    pool = redis_pool(redis_path)
    for _ in range(3):
        with redis.Redis(connection_pool=pool).pubsub() as subscription:
            subscription.subscribe("events")
    assert redis.Redis(connection_pool=pool).ping()
    assert found(session) == []
    pool.disconnect()


def test_redis_frozen_and_explained(session, redis_path):
    import redis

    pool, meet = redis_pool(redis_path, timeout=1), threading.Barrier(2)

    def nest():
        held = pool.get_connection()
        meet.wait()
        with contextlib.suppress(redis.ConnectionError):  # the first; the second then gets its own
            pool.release(pool.get_connection())
        pool.release(held)

    hang, threads = frozen(session, nest, nest)
    assert len(hang["waiters"]) == len(hang["holders"]) == 2
    assert all(waiter["timeout_s"] == 1 for waiter in hang["waiters"])
    assert hang["release"]["frees"] == 2
    for thread in threads:
        thread.join()
    pool.disconnect()


@pytest.mark.parametrize("nested", [True, False])
def test_redis_as_tasks(session, redis_path, nested):
    from redis.asyncio import BlockingConnectionPool, UnixDomainSocketConnection

    async def main():
        pool = BlockingConnectionPool(
            connection_class=UnixDomainSocketConnection,
            path=redis_path,
            max_connections=3,
            timeout=1,
        )
        one = await pool.get_connection()
        if nested:
            await pool.release(await pool.get_connection())
        await pool.release(one)
        await pool.disconnect()

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 3)] if nested else [])


def test_redis_as_tasks_frozen_and_explained(redis_path):
    from redis.asyncio import BlockingConnectionPool, UnixDomainSocketConnection

    async def tasks():
        pool = BlockingConnectionPool(
            connection_class=UnixDomainSocketConnection,
            path=redis_path,
            max_connections=2,
            timeout=None,
        )
        meet = asyncio.Barrier(2)
        return [freezing.nest_task(meet, pool.get_connection, pool.release) for _ in range(2)]

    with watch.watching(watch.Options(breaks=True)) as session:
        hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({"redis asyncio pool of 2"},) * 2
    assert hang["release"]["frees"] == 2 and len(hang["cycle"]) == 2


# -- PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres():
    pytest.importorskip("psycopg_pool")
    with servers.postgres_server() as address:
        yield address


@pytest.mark.parametrize("nested", [True, False])
def test_psycopg_pool(session, postgres, nested):
    import psycopg_pool

    with psycopg_pool.ConnectionPool(postgres, min_size=1, max_size=2) as pool:
        with pool.connection() as one:
            if nested:
                with pool.connection() as two:
                    assert two.execute("select 1").fetchone() == (1,)
            assert one.execute("select 1").fetchone() == (1,)
    assert found(session) == ([("nested", "warning", 2)] if nested else [])


@pytest.mark.parametrize("nested", [True, False])
def test_psycopg_pool_as_tasks(session, postgres, nested):
    import psycopg_pool

    async def main():
        async with psycopg_pool.AsyncConnectionPool(
            postgres, min_size=1, max_size=2, open=False
        ) as pool:
            async with pool.connection() as one:
                if nested:
                    async with pool.connection():
                        pass
                await one.execute("select 1")

    asyncio.run(main())
    assert found(session) == ([("nested", "warning", 2)] if nested else [])


def test_psycopg_frozen_and_explained(session, postgres):
    import psycopg_pool

    with psycopg_pool.ConnectionPool(postgres, min_size=2, max_size=2, timeout=1) as pool:
        meet = threading.Barrier(2)

        def nest():
            with pool.connection():
                meet.wait()
                with contextlib.suppress(psycopg_pool.PoolTimeout):
                    pool.putconn(pool.getconn())

        hang, threads = frozen(session, nest, nest)
        assert {holder["pool"] for holder in hang["holders"]} == {hang["release"]["pool"]}
        assert hang["release"]["frees"] == 2
        assert len(hang["cycle"]) == 2
        for thread in threads:
            thread.join()


def test_psycopg_as_tasks_frozen_and_explained(session, postgres):
    """The pool's own limit ends it, of 1 s."""
    import psycopg_pool

    async def tasks():
        pool = psycopg_pool.AsyncConnectionPool(
            postgres, min_size=2, max_size=2, open=False, timeout=1
        )
        await pool.open(wait=True)
        meet, ended = asyncio.Barrier(2), []

        async def run():
            try:
                await freezing.nest_task(meet, pool.getconn, pool.putconn)
            finally:
                ended.append(None)
                if len(ended) == 2:
                    await pool.close()

        return [run(), run()]

    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({"psycopg pool of 2"},) * 2
    assert hang["release"]["frees"] == 2 and len(hang["cycle"]) == 2
