"""What the program asked for happens, whatever watch's own accounts do meanwhile, in this thread or another."""

import asyncio
import queue
import sys
import threading
import weakref

import pytest

from headway import watch
from headway.watch.alive import living
from headway.watch.classes import Holding, Owner, Pool, PoolClass
from headway.watch.doubts import Doubts
from headway.watch.graph import Edge, Graph


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def cls(name):
    found = PoolClass("lock", name, (), False)
    found.size = 1
    return found


def holding_of(owner):
    return Holding((Pool(cls("held"), 1), owner, (), 0.0, None))


# -- in another thread -------------------------------------------------------------------------------------


def test_what_comes_back_while_the_doubts_are_looked_at():
    """A look in the station's thread takes away what a return in the program's is about to settle."""
    graph = Graph()
    doubts, owner = Doubts(graph), Owner(0, "holder", lambda: True)
    looking, settling, looked = threading.Event(), threading.Event(), threading.Event()

    def alive():
        if threading.current_thread() is station:
            looking.set()
            settling.wait(60)
        else:
            settling.set()
            looked.wait(60)
        return False

    def look():
        doubts.look()
        looked.set()

    holding, edges = holding_of(owner), [Edge(cls("held"), cls("wanted"), False) for _ in range(3)]
    for edge in edges:
        doubts.note(holding, Owner(0, "child", alive), edge)
    station = threading.Thread(target=look)
    station.start()
    looking.wait(60)
    doubts.settle(holding, owner)
    station.join()
    assert set(graph.edges.values()) == set(edges)
    assert doubts.open == {}


def test_only_so_many_holdings_are_in_doubt():
    doubts, owner = Doubts(Graph()), Owner(0, "holder", lambda: True)
    kept = [holding_of(owner) for _ in range(300)]
    for holding in kept:
        doubts.note(holding, owner, Edge(cls("held"), cls("wanted"), False))
    assert [holding for holding, _ in doubts.open.values()] == kept[-256:]


@pytest.fixture
def often():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_who_is_alive_while_others_are_added(often):
    owners = [Owner(0, str(number), lambda: True) for number in range(200)]
    some, failed = weakref.WeakSet(owners[:100]), []

    def ask():
        try:
            for _ in range(500):
                assert set(owners[:100]) <= set(living(some))
        except RuntimeError as error:
            failed.append(error)

    asker = threading.Thread(target=ask)
    asker.start()
    while asker.is_alive():
        for owner in owners[100:]:
            some.add(owner)
        for owner in owners[100:]:
            some.discard(owner)
    asker.join()
    assert failed == []


# -- in this thread: the accounts fail, here by a child of which nobody can say whether it lives ------------


def unaccountable(session):
    """From now on watch's own account of what is out, and comes back, fails."""

    def alive():
        raise KeyboardInterrupt

    [pool] = session.ledger.out
    [holding] = pool.out
    session.ledger.doubts.note(
        holding, Owner(0, "child", alive), Edge(pool.cls, pool.cls, same=True)
    )


def is_free(lock):
    """Whether another thread gets it at once."""
    got = []

    def ask():
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return got[0]


LOCKS = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"]


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_comes_back(session, kind):
    lock = getattr(threading, kind)()
    lock.acquire()
    unaccountable(session)
    with pytest.raises(KeyboardInterrupt):
        lock.release()
    assert is_free(lock)
    with pytest.raises(KeyboardInterrupt), lock:
        unaccountable(session)
    assert is_free(lock)
    assert session.ledger.out == []


def test_a_condition_is_waited_for_without_its_lock(session):
    ready = threading.Condition()
    with ready:
        unaccountable(session)
        with pytest.raises(KeyboardInterrupt):
            ready.wait(0)
        assert is_free(ready)
        ready._lock._raw.acquire()  # what `wait` would have taken again


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_a_lock_of_tasks_comes_back(session, kind):
    async def main():
        lock = getattr(asyncio, kind)()
        with pytest.raises(KeyboardInterrupt):
            async with lock:
                unaccountable(session)
        assert not lock.locked()

    asyncio.run(main())


def test_what_is_put_is_there(session):
    line = queue.Queue()
    line.put(one := object())
    line.get()
    unaccountable(session)
    with pytest.raises(KeyboardInterrupt):
        line.put(one)
    assert line.get_nowait() is one


def test_what_a_task_puts_is_there(session):
    async def main():
        line = asyncio.Queue()
        await line.put(one := object())
        await line.get()
        unaccountable(session)
        with pytest.raises(KeyboardInterrupt):
            await line.put(one)
        assert line.get_nowait() is one

    asyncio.run(main())


def test_a_connection_comes_back(session):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    db = sqlalchemy.create_engine(
        "sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=1, max_overflow=0
    )
    connection = db.raw_connection()
    unaccountable(session)
    with pytest.raises(KeyboardInterrupt):
        connection.close()
    assert db.pool.checkedout() == 0
    db.dispose()


def interrupted(name):
    """A signal comes as the next function of this name begins."""

    def trace(frame, event, arg):
        if frame.f_code.co_name == name:
            raise KeyboardInterrupt

    sys.settrace(trace)
    return pytest.raises(KeyboardInterrupt)


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_a_lock_is_not_kept_by_who_was_interrupted(session, kind):
    lock, before = getattr(threading, kind)(), sys.gettrace()
    try:
        with interrupted("enter"):
            lock.acquire()
        assert is_free(lock)
        with interrupted("enter"), lock:
            pass
        assert is_free(lock)
        with interrupted("grant"):
            lock.acquire(blocking=False)
        assert is_free(lock)
    finally:
        sys.settrace(before)
    assert session.ledger.out == []
