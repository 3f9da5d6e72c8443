"""Each patch of the standard library, and of libraries without a server, in a hang that the explainer explains."""

import asyncio
import contextlib
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import headway as hw
from headway import watch
from headway.errors import PoolTimeout
from headway.watch import explain, naming
from headway.watch.classes import Owner
from tests.watch import freezing, servers


@pytest.fixture
def session():
    with watch.watching(watch.Options(breaks=True)) as session:
        yield session


def test_locks(session):
    a, b, meet = threading.Lock(), threading.RLock(), threading.Barrier(2)

    def take(first, second):
        with first:
            meet.wait()
            with second:
                pass

    hang = freezing.hung(session, lambda: take(a, b), lambda: take(b, a))
    assert freezing.names(hang) == ({"lock", "reentrant lock"},) * 2
    assert len(hang["cycle"]) == 2 and hang["release"]["frees"] == 2
    assert all("in take" in waiter["at"][0] for waiter in hang["waiters"])


def test_a_semaphore(session):
    slots = threading.Semaphore(2)
    run = freezing.nest(threading.Barrier(2), slots.acquire, lambda _: slots.release())
    hang = freezing.hung(session, run, run)
    assert freezing.names(hang) == ({"semaphore of 2"},) * 2
    assert hang["release"]["frees"] == 2


def test_a_queue_of_slots(session):
    slots = queue.Queue()
    for slot in ("one", "two"):
        slots.put(slot)
    for _ in range(3):
        slots.put(slots.get())
    run = freezing.nest(threading.Barrier(2), slots.get, slots.put)
    hang = freezing.hung(session, run, run)
    assert freezing.names(hang) == ({"queue of 2"},) * 2
    assert hang["release"]["frees"] == 2
    assert any("freezing.py" in line for line in hang["waiters"][0]["at"])


def test_an_executor(session):
    pool, meet = ThreadPoolExecutor(2), threading.Barrier(2)

    def parent():
        meet.wait()
        return pool.submit(int).result()

    def ask():
        for future in [pool.submit(parent) for _ in range(2)]:
            future.exception()

    hang = freezing.hung(session, ask)
    waits, held = freezing.names(hang)
    assert waits == {"a result"} and held == {"executor of 2"}
    assert {waiter["owner"] for waiter in hang["waiters"]} >= {"work parent #1", "work parent #2"}
    pool.shutdown()


def test_alike_are_told_apart_and_said_once(session):
    slots, meet, pool = threading.Semaphore(3), threading.Barrier(3), ThreadPoolExecutor(3)
    run = freezing.nest(meet, slots.acquire, lambda _: slots.release())

    def ask():
        for future in [pool.submit(run) for _ in range(3)]:
            future.exception()

    hang = freezing.hung(session, ask, waits=2)
    names = {f"work run #{number}" for number in (1, 2, 3)}
    assert {waiter["owner"] for waiter in hang["waiters"]} > names
    assert {holder["owner"] for holder in hang["holders"]} == names
    assert all(line.count("work run #") == 2 for line in hang["cycle"])
    lines = explain.text(hang).splitlines()
    starts = [line.partition(" of 3")[0].strip() for line in lines if not line.startswith("    ")]
    assert starts[1:-2].count("work run #1, #2 and #3 wait for semaphore") == 1
    assert starts[1:-2].count("work run #1, #2 and #3 have held semaphore") == 1
    assert len(starts) == 7  # the head, two that wait, two that are held, the cycle and the release
    pool.shutdown()


def test_a_number_stays_with_its_owner():
    owners = [Owner(0, name, lambda: True) for name in ("job", "job", "job #1", "other")]
    naming.tell_apart(owners)
    naming.tell_apart(owners[1:])
    assert [owner.name for owner in owners] == ["job #2", "job #3", "job #1", "other"]


def test_many_are_counted():
    names = [f"task Task-{number}" for number in range(40)]
    assert naming.together(names[:3]) == "task Task-0, task Task-1 and task Task-2"
    assert naming.together(names).endswith("task Task-4 and 35 more")
    assert naming.together(["job #2", "job #1", "job #2"]) == "job #1 and #2 (2 times)"


def at_semaphore():
    slots = asyncio.Semaphore(2)
    return slots.acquire, lambda _: slots.release()


def at_bounded():
    slots = asyncio.BoundedSemaphore(2)
    return slots.acquire, lambda _: slots.release()


def at_queue():
    slots = asyncio.Queue()
    for slot in ("one", "two"):
        slots.put_nowait(slot)
    return slots.get, slots.put_nowait


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (at_semaphore, "asyncio semaphore of 2"),
        (at_bounded, "asyncio semaphore of 2"),
        (at_queue, "asyncio queue of 2"),
    ],
)
def test_tasks(session, make, name):
    async def tasks():
        take, give = make()
        for _ in range(3):
            give(await take())  # from now on a queue is a pool
        meet = asyncio.Barrier(2)
        return [freezing.nest_task(meet, take, give) for _ in range(2)]

    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({name},) * 2
    assert hang["release"]["frees"] == 2 and len(hang["cycle"]) == 2


def test_locks_of_tasks(session):
    async def tasks():
        a, b, meet = asyncio.Lock(), asyncio.Lock(), asyncio.Barrier(2)

        async def take(first, second):
            async with first:
                await meet.wait()
                async with second:
                    pass

        return [take(a, b), take(b, a)]

    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({"asyncio lock"},) * 2
    assert len(hang["cycle"]) == 2


def test_a_limiter_of_anyio(session):
    anyio = pytest.importorskip("anyio")

    async def tasks():
        limiter, meet = anyio.CapacityLimiter(2), asyncio.Barrier(2)

        async def take():
            token = object()
            await limiter.acquire_on_behalf_of(token)
            return token

        return [freezing.nest_task(meet, take, limiter.release_on_behalf_of) for _ in range(2)]

    assert freezing.names(freezing.hung_tasks(session, tasks)) == ({"limiter of 2"},) * 2


@pytest.mark.parametrize("kind", ["Semaphore", "Lock"])
def test_semaphores_and_locks_of_anyio(session, kind):
    anyio = pytest.importorskip("anyio")

    async def tasks():
        meet = asyncio.Barrier(2)
        if kind == "Semaphore":
            slots = anyio.Semaphore(2)
            give = lambda _: slots.release()  # noqa: E731
            return [freezing.nest_task(meet, slots.acquire, give) for _ in range(2)]
        a, b = anyio.Lock(), anyio.Lock()

        async def take(first, second):
            async with first:
                await meet.wait()
                async with second:
                    pass

        return [take(a, b), take(b, a)]

    name = "anyio semaphore of 2" if kind == "Semaphore" else "anyio lock"
    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({name},) * 2
    assert hang["release"]["frees"] == 2


@pytest.mark.parametrize("kind", ["mempool", "budget"])
def test_headways_own(session, kind):
    """A limit of its own ends the wait: what waits in headway's pools is not carried by watch."""
    if kind == "mempool":
        pool = hw.Mempool.of(range(2), name="bio")
        take, give = (lambda: pool.alloc(timeout_s=0.5)), pool.free
    else:
        pool = hw.Budget(2, name="slots")
        take, give = (lambda: pool.alloc(1, timeout_s=0.5)), (lambda _: pool.free(1))
    meet = threading.Barrier(2)

    def run():
        with contextlib.suppress(PoolTimeout):
            freezing.nest(meet, take, give)()

    hang = freezing.hung(session, run, run, waits=1)
    name = "mempool 'bio' of 2" if kind == "mempool" else "budget 'slots' of 2"
    assert freezing.names(hang) == ({name},) * 2
    assert hang["release"]["frees"] == len(hang["waiters"])
    pool.close()
    assert session.ledger.waits == {}


@pytest.fixture(scope="module")
def site():
    with servers.http_server() as address:
        yield address


def test_responses_of_httpx(session, site):
    httpx = pytest.importorskip("httpx")
    limits = httpx.Limits(max_connections=2)
    with httpx.Client(limits=limits, timeout=None) as http:

        def take():
            return http.send(http.build_request("GET", site), stream=True)

        run = freezing.nest(threading.Barrier(2), take, lambda response: response.close())
        hang = freezing.hung(session, run, run)
    assert freezing.names(hang) == ({"HTTP connection pool of 2"},) * 2
    assert hang["release"]["frees"] == 2


def test_responses_of_httpx_as_tasks(session, site):
    httpx = pytest.importorskip("httpx")

    async def tasks():
        http = httpx.AsyncClient(limits=httpx.Limits(max_connections=2), timeout=None)
        left = 2

        async def take():
            return await http.send(http.build_request("GET", site), stream=True)

        async def run(meet):
            nonlocal left
            try:
                await freezing.nest_task(meet, take, lambda response: response.aclose())
            finally:
                left -= 1
                if not left:
                    await http.aclose()

        meet = asyncio.Barrier(2)
        return [run(meet) for _ in range(2)]

    hang = freezing.hung_tasks(session, tasks)
    assert freezing.names(hang) == ({"HTTP connection pool of 2"},) * 2


def test_connections_of_sqlalchemy(session):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=2, max_overflow=0,
        pool_timeout=None, connect_args={"check_same_thread": False},
    )  # fmt: skip
    run = freezing.nest(threading.Barrier(2), engine.connect, lambda one: one.close())
    hang = freezing.hung(session, run, run)
    assert freezing.names(hang) == ({"SQLAlchemy pool of 2"},) * 2
    engine.dispose()
