"""What is reported of a run, and what is not: orders, waits, leaks, and what only looks like a pool."""

import asyncio
import contextlib
import gc
import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from headway import watch


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


def found(session, *, final=True):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=final)]


def run_threads(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_opposite_orders_of_a_lock_and_a_pool(session):
    lock, slots = threading.Lock(), queue.Queue()
    for slot in (object(), object()):
        slots.put(slot)

    def one():
        with lock:
            slots.put(slots.get())

    def two():
        slot = slots.get()
        with lock:
            pass
        slots.put(slot)

    run_threads(one)
    run_threads(two)
    assert found(session) == [("opposite-orders", "warning", 3)]


def test_one_order_everywhere(session):
    lock, slots = threading.Lock(), queue.Queue()
    slots.put(object())

    def one():
        with lock:
            slots.put(slots.get())

    run_threads(one)
    run_threads(one)
    assert found(session) == []


def test_orders_under_a_common_lock_are_no_risk(session):
    a, b, gate = threading.Lock(), threading.Lock(), threading.Lock()

    def take(first, second):
        with gate, first, second:
            pass

    run_threads(lambda: take(a, b))
    run_threads(lambda: take(b, a))
    assert found(session) == []


def when_waiting(session, what, act):
    """Start a thread that acts as soon as somebody waits for `what`."""

    def look():
        while not any(wait.what == what for wait in list(session.ledger.waits.values())):
            pass
        act()

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def test_a_blocking_wait_in_an_event_loop(session):
    pool, go = ThreadPoolExecutor(1), threading.Event()

    async def main():
        return pool.submit(go.wait).result()

    thread = when_waiting(session, "a result", go.set)
    assert asyncio.run(main())
    thread.join()
    pool.shutdown()
    assert found(session) == [("blocking-in-loop", "warning", 1)]


def test_the_same_awaited(session):
    pool = ThreadPoolExecutor(1)

    async def main():
        return await asyncio.wrap_future(pool.submit(int))

    assert asyncio.run(main()) == 0
    pool.shutdown()
    assert found(session) == []


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_wait_without_a_time_limit_while_holding(session, timeout):
    lock, event = threading.Lock(), threading.Event()

    def hold():
        with lock:
            event.wait(timeout)

    looking = when_waiting(session, "Event.wait()", event.set)
    run_threads(hold)
    looking.join()
    expected = [("wait-while-holding", "note", None)] if timeout is None else []
    assert found(session) == expected


def test_elements_never_given_back_by_call_site(session):
    slots = threading.Semaphore(2)

    def forget():
        slots.acquire()

    run_threads(forget)
    assert found(session, final=False) == [("leak", "warning", 2)]
    run_threads(forget)
    assert found(session, final=False) == [("leak", "risk", 2)]
    assert "in forget" in session.findings()[0].stacks["taken and not given back"][0]


def test_what_belonged_to_an_object_that_is_gone_is_held_by_nobody(session):
    lock = threading.Lock()

    def forget():
        threading.Semaphore(1).acquire()

    forget()
    gc.collect()
    with lock:
        pass
    assert session.ledger.current().held == []
    assert (
        found(session) == []
    )  # the thread that took it is alive, and nobody can wait for it any more


def test_a_semaphore_that_signals_is_no_pool(session):
    """Taken here, given there: who takes a second one holds nothing back."""
    items = threading.Semaphore(1)

    def produce():
        items.release()

    items.acquire()
    run_threads(produce)
    items.acquire()
    run_threads(produce)
    assert found(session) == []


def test_a_queue_that_is_a_road_is_no_pool(session):
    road, lock = queue.Queue(), threading.Lock()
    for number in range(20):
        road.put([number])
    with lock:
        first = road.get()
    for _ in range(19):
        road.get()
        with lock:
            pass
    assert first == [0]
    assert found(session) == []


@pytest.mark.parametrize("kind", [threading.Semaphore, threading.BoundedSemaphore])
def test_what_the_user_declares_decides(session, kind):
    slots = kind(2)
    with slots, slots:
        pass
    assert found(session) == [("nested", "warning", 2)]


@pytest.mark.parametrize(("most", "expected"), [(1, []), (2, [("nested", "risk", 2)])])
def test_a_declared_concurrency(most, expected):
    with watch.watching(watch.Options(concurrency=most)) as session:
        slots = threading.Semaphore(2)
        with slots, slots:
            pass
    assert found(session) == expected


def test_a_bounded_semaphore_of_asyncio_is_watched_too(session):
    async def main():
        slots = asyncio.BoundedSemaphore(2)
        async with slots, slots:
            pass

    asyncio.run(main())
    assert found(session) == [("nested", "warning", 2)]
    assert "test_judge.py" in session.findings()[0].pool


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_queue_that_is_a_road_keeps_nothing_alive(session, kind):
    """After 64 that nobody put back, what is got is not remembered; before, only the last few."""

    class Item:
        pass

    def drive(put, get):
        for _ in range(70):
            put(Item())
            gone = weakref.ref(get())
        gc.collect()
        assert gone() is None

    async def main():
        line = asyncio.Queue()
        for _ in range(70):
            line.put_nowait(Item())
            gone = weakref.ref(await line.get())
        gc.collect()
        assert gone() is None

    if kind == "tasks":
        asyncio.run(main())
    else:
        line = queue.Queue()
        drive(line.put, line.get)
    assert session.ledger.out == []
    assert session.ledger.current().held == []


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("kind", ["group", "gather"])
def test_who_lets_go_while_a_child_goes_on_did_not_wait_for_it(session, kind, waits):
    """A task group's body has a slot that its task wants, and lets go; the twin waits for the task while it has it."""

    async def main():
        slots = asyncio.Semaphore(2 if waits else 1)

        async def child():
            async with slots:
                pass

        async with contextlib.AsyncExitStack() as stack:
            if waits:
                await stack.enter_async_context(slots)
            if kind == "group":
                group = await stack.enter_async_context(asyncio.TaskGroup())
                start = group.create_task
            else:
                start = lambda one: stack.push_async_callback(asyncio.gather, one)  # noqa: E731
            if not waits:
                await slots.acquire()
            start(child())
            if not waits:
                await asyncio.sleep(0)  # so that the child really waits
                slots.release()

    asyncio.run(main())
    assert [f.kind for f in session.findings(final=True)] == (["nested"] if waits else [])
    assert session.ledger.doubts.open == {}
