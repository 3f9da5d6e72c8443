"""--break: the youngest of a hang gets an exception, and the others go on; of what cannot be ended it is said why."""

import asyncio
import contextlib
import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headway import watch
from headway.errors import Deadlock


@pytest.fixture
def session():
    with watch.watching(watch.Options(breaks=True)) as session:
        yield session


def broken(session, *functions):
    """Run the functions, one thread each, into a hang that is broken: what each came to, and what was told."""
    results = {}

    def run(number):
        try:
            results[number] = functions[number]()
        except Deadlock as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    told = ending(session, lambda: any(thread.is_alive() for thread in threads))
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(functions))], told


def ending(session, going_on):
    """End waits until nobody is stuck; what was said of it."""
    told = []
    while going_on():
        if session.hang() is not None:
            told += [line for line in session.end_youngest() if line.startswith("broken: ")]
    return told


def twice(take, give):
    """Two functions that each take two, and meet in between."""
    meet = threading.Barrier(2)

    def nest():
        one = take()
        meet.wait()
        try:
            give(take())
        finally:
            give(one)
        return "both"

    return nest, nest


def lock_pair():
    return threading.Lock(), threading.Lock()


def reentrant_pair():
    return threading.RLock(), threading.RLock()


@pytest.mark.parametrize("make", [lock_pair, reentrant_pair])
def test_locks_in_opposite_orders(session, make):
    a, b = make()
    meet = threading.Barrier(2)

    def take(first, second):
        with first:
            meet.wait()
            with second:
                return "both"

    results, told = broken(session, lambda: take(a, b), lambda: take(b, a))
    assert sorted(map(str, results))[0] == "both"
    (error,) = [one for one in results if one != "both"]
    assert len(error.stuck) == 2 and "waited the shortest" in str(error)
    assert len(told) == 1 and "got Deadlock" in told[0]
    assert a.acquire(blocking=False) and b.acquire(blocking=False)  # all came back


@pytest.mark.parametrize("kind", [threading.Semaphore, threading.BoundedSemaphore])
def test_a_semaphore(session, kind):
    slots = kind(2)
    results, _ = broken(session, *twice(slots.acquire, lambda _: slots.release()))
    assert sorted(map(type, results), key=repr) == sorted([str, Deadlock], key=repr)
    assert slots.acquire(blocking=False) and slots.acquire(blocking=False)
    assert not slots.acquire(blocking=False)


def test_a_queue_of_slots(session):
    slots = queue.Queue()
    slots.put(object())
    slots.put(object())
    slots.put(slots.get())  # from now on it is a pool
    results, _ = broken(session, *twice(slots.get, slots.put))
    assert "both" in results
    assert slots.qsize() == 2


def test_connections_of_sqlalchemy(session):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_size=2, max_overflow=0,
        pool_timeout=None, connect_args={"check_same_thread": False},
    )  # fmt: skip
    results, _ = broken(session, *twice(engine.connect, lambda connection: connection.close()))
    assert "both" in results and any(isinstance(one, Deadlock) for one in results)
    assert engine.pool.checkedout() == 0
    engine.dispose()


@pytest.mark.parametrize("both", [True, False])
def test_a_wait_with_a_limit_of_its_own_is_left_to_it(session, both):
    """The older wait has no limit, and is ended though it is not the youngest; if both have one, none is."""
    a, b = threading.Lock(), threading.Lock()
    meet, results = threading.Barrier(2), {}

    def take(name, first, second, limit):
        with first:
            meet.wait()
            try:
                results[name] = second.acquire(timeout=limit)
            except Deadlock:
                results[name] = "ended"
            else:
                if results[name]:
                    second.release()

    limits = (0.3, 0.3) if both else (-1, 600)
    pairs = (("old", a, b, limits[0]), ("young", b, a, limits[1]))
    threads = [threading.Thread(target=take, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    told = []
    while any(thread.is_alive() for thread in threads):
        told += session.end_youngest()
    if both:
        assert "ended" not in results.values() and False in results.values()
        assert told and all(line.startswith("not broken: ") for line in told)
        assert "at most 0.3 s: its own limit ends it" in told[0]
    else:
        assert results == {"old": "ended", "young": True}
        [broken] = [line for line in told if line.startswith("broken: ")]
        assert "(take) got Deadlock" in broken


def test_a_limit_that_has_passed_is_none(session):
    """A library that waits on after its limit is ended like any other."""
    lock, ledger = threading.Lock(), session.ledger
    lock.acquire()

    def wait():
        with contextlib.suppress(Deadlock):
            lock.acquire()

    thread = threading.Thread(target=wait)
    thread.start()
    while not ledger.waits:
        assert thread.is_alive()
    [waiting] = ledger.waits.values()
    waiting.timeout_s = 600
    ledger.out[0].out[0].owner._alive = lambda: False  # whoever has it is gone
    assert session.end_youngest()[0].startswith("not broken: ")
    waiting.since_s -= 700
    assert session.end_youngest()[0].startswith("broken: ")
    thread.join()
    lock.release()


def test_work_that_waits_for_its_own_executor(session):
    pool, meet = ThreadPoolExecutor(2), threading.Barrier(2)

    def parent():
        meet.wait()
        return pool.submit(int).result()

    futures = [pool.submit(parent) for _ in range(2)]
    ending(session, lambda: not all(future.done() for future in futures))
    ended = [future for future in futures if isinstance(future.exception(), Deadlock)]
    assert len(ended) == 1
    pool.shutdown()


def test_a_condition_that_is_notified_while_it_is_carried(session):
    """Carrying a wait changes nothing for who is not ended: woken in order, and in time."""
    condition, waiting, woken = threading.Condition(), threading.Semaphore(0), []

    def wait(name):
        with condition:
            waiting.release()
            woken.append((name, condition.wait()))

    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        waiting.acquire()
    for count in (1, 2, 3):
        with condition:
            condition.notify()
        while len(woken) < count:
            pass
    for thread in threads:
        thread.join()
    assert woken == [(name, True) for name in "abc"]
    with condition:
        assert condition.wait(0) is False
    with pytest.raises(RuntimeError, match="un-acquired"):
        condition.wait()


def in_tasks(session, take, give):
    """Two tasks that each take two; the watcher is another thread, as the station is."""

    async def main():
        both = asyncio.Barrier(2)

        async def nest():
            one = await take()
            await both.wait()
            try:
                give(await take())
            finally:
                give(one)
            return "both"

        tasks = [asyncio.create_task(nest()) for _ in range(2)]
        over = False
        watcher = asyncio.create_task(asyncio.to_thread(ending, session, lambda: not over))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        over = True
        await watcher
        assert all(task.cancelling() == 0 for task in tasks)
        return results

    results = asyncio.run(main())
    assert sorted(type(one).__name__ for one in results) == ["Deadlock", "str"]


def test_tasks_at_a_semaphore(session):
    slots = asyncio.Semaphore(2)
    in_tasks(session, slots.acquire, lambda _: slots.release())
    assert slots._value == 2


def test_tasks_at_a_queue_of_slots(session):
    slots = asyncio.Queue()
    for slot in (object(), object()):
        slots.put_nowait(slot)
    slots.put_nowait(slots.get_nowait())

    async def warm():
        slots.put_nowait(await slots.get())

    asyncio.run(warm())
    in_tasks(session, slots.get, slots.put_nowait)
    assert slots.qsize() == 2


def test_tasks_at_a_limiter(session):
    anyio = pytest.importorskip("anyio")
    limiter = None

    async def take():
        nonlocal limiter
        limiter = limiter or anyio.CapacityLimiter(2)
        token = object()
        await limiter.acquire_on_behalf_of(token)
        return token

    in_tasks(session, take, lambda token: limiter.release_on_behalf_of(token))
    assert limiter.borrowed_tokens == 0


def test_without_break_nothing_is_ended_and_it_says_so():
    with watch.watching() as session:
        a, b, meet = threading.Lock(), threading.Lock(), threading.Barrier(2)

        def take(first, second):
            with first:
                meet.wait()
                second.acquire(timeout=1) and second.release()

        threads = [threading.Thread(target=take, args=pair) for pair in ((a, b), (b, a))]
        for thread in threads:
            thread.start()
        while session.hang() is None:
            assert any(thread.is_alive() for thread in threads)
        told = session.end_youngest()
        for thread in threads:
            thread.join()
    assert len(told) == 2
    assert all("unless the program was started with --break" in line for line in told)


JOINED = """
import sys, threading
threads, meet = [], threading.Barrier(3)
def join(other):
    meet.wait()
    threads[other].join()
for other in (1, 0):
    threads.append(threading.Thread(target=join, args=(other,), daemon=True))
for thread in threads:
    thread.start()
meet.wait()
sys.stdin.read()
"""


def test_of_a_wait_that_it_does_not_carry_it_says_why(tmp_path):
    pytest.importorskip("typer")
    app = tmp_path / "app.py"
    app.write_text(JOINED)
    with subprocess.Popen(
        [sys.executable, "-m", "headway", "watch", "--break", "--stall", "0.3", "--json", "--",
         sys.executable, str(app)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for line in process.stderr:
            if "not broken: " in line:
                break
        assert "waits for Thread.join(): the library waits in a way of its own" in line
        said, _ = process.communicate()  # and so it reads to the end
    hang = json.loads(said)["hang"]
    assert hang["broken"] and all(line.startswith("not broken") for line in hang["broken"])


PROGRAM = """
import contextlib
import threading
from headway import Deadlock
a, b, meet, said = threading.Lock(), threading.Lock(), threading.Barrier(2), []
def take(first, second):
    try:
        with first:
            meet.wait()
            with second:
                said.append("both")
    except Deadlock as error:
        said.append(f"ended: {len(error.stuck)}")
threads = [threading.Thread(target=take, args=pair) for pair in ((a, b), (b, a))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(said))
"""


def test_a_program_that_hangs_comes_to_its_end(tmp_path):
    pytest.importorskip("typer")
    app = tmp_path / "app.py"
    app.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "headway", "watch", "--break", "--stall", "0.3", "--",
         sys.executable, str(app)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['both', 'ended: 3']\n"
    assert "got Deadlock where it waited for lock made at" in done.stderr
    first, _, last = done.stderr.rpartition("hang: ")
    assert "hang: these wait for each other, and nobody else can end it" in first
    said, told = last.splitlines()[:2]
    assert (
        said == "these waited for each other until --break ended 1 of the waits; then all went on"
    )
    assert told.startswith("  broken: ")
    assert " waited for lock made at" in last and "nobody else" not in last
