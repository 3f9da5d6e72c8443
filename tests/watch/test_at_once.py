"""How many were there at once: what a start or an end of a thread, task or work puts in order was not."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headway import watch


@pytest.fixture
def session():
    with watch.watching() as session:
        yield session


@pytest.fixture
def orders(session):
    """Takes two locks, in one order and in the other."""
    a, b = threading.Lock(), threading.Lock()

    def take(first, second):
        with first, second:
            pass

    return lambda: take(a, b), lambda: take(b, a)


def told(session):
    (finding,) = session.findings()
    return finding.kind, finding.severity, finding.hangs_from, finding.seen


ONE_AT_A_TIME = ("opposite-orders", "warning", 2, 1)
AT_ONCE = ("opposite-orders", "risk", 2, 2)


def run(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_one_thread_in_both_orders(session, orders):
    f, g = orders
    f()
    g()
    assert told(session) == ONE_AT_A_TIME


@pytest.mark.parametrize("before", [True, False])
def test_a_thread_that_is_started_after_or_before(session, orders, before):
    """Whoever starts a thread and ends it was alive all the time, and yet not at the same time at the locks."""
    f, g = orders
    if before:
        f()
    run(g)
    if not before:
        f()
    assert told(session) == ONE_AT_A_TIME


def test_a_thread_started_by_a_thread(session, orders):
    f, g = orders
    f()
    run(lambda: run(g))
    run(lambda: run(lambda: run(g)))
    assert told(session) == ONE_AT_A_TIME


def test_threads_one_after_the_other(session, orders):
    for order in orders:
        run(order)
    assert told(session) == ONE_AT_A_TIME


def test_while_the_thread_lives(session, orders):
    """After it was started, and before it ends: whoever of the two comes first."""
    f, g = orders
    went, go = threading.Event(), threading.Event()

    def other():
        g()
        went.set()
        go.wait()

    thread = threading.Thread(target=other)
    thread.start()
    went.wait()
    f()
    go.set()
    thread.join()
    assert told(session) == AT_ONCE


def test_before_a_thread_and_again_while_it_lives(session, orders):
    f, g = orders
    f()
    meet = threading.Barrier(2)

    def other():
        g()
        meet.wait()
        meet.wait()

    thread = threading.Thread(target=other)
    thread.start()
    meet.wait()
    assert told(session) == ONE_AT_A_TIME
    f()
    assert told(session) == AT_ONCE
    meet.wait()
    thread.join()


def test_two_threads_in_turn(session, orders):
    """Nothing but chance kept them apart."""
    meet = threading.Barrier(2)

    def other(turn):
        for number in range(2):
            if number == turn:
                orders[turn]()
            meet.wait()

    threads = [threading.Thread(target=other, args=(turn,)) for turn in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(session) == AT_ONCE


def test_work_that_was_waited_for(session, orders):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        for pool, order in zip((one, two), orders, strict=True):
            pool.submit(order).result()
    assert told(session) == ONE_AT_A_TIME


def test_work_at_once(session, orders):
    meet = threading.Barrier(2)

    def both(order):
        meet.wait()
        order()
        meet.wait()

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        for pool, order in zip((one, two), orders, strict=True):
            pool.submit(both, order)
    assert told(session) == AT_ONCE


@pytest.fixture
def in_turns(session):
    """The same for tasks."""

    def make():
        a, b = asyncio.Lock(), asyncio.Lock()

        async def take(first, second):
            async with first, second:
                pass

        return lambda: take(a, b), lambda: take(b, a)

    return make


@pytest.mark.parametrize("own", [True, False])
def test_tasks_one_after_the_other(session, in_turns, own):
    async def main():
        f, g = in_turns()
        await (f() if own else asyncio.create_task(f()))
        await asyncio.create_task(g())

    asyncio.run(main())
    assert told(session) == ONE_AT_A_TIME


def test_a_task_that_was_made_before(session, in_turns):
    """It was there, and had only not begun."""

    async def main():
        f, g = in_turns()
        await asyncio.sleep(0)
        async with asyncio.Lock():
            pass  # seen before it makes the task
        task = asyncio.create_task(g())
        await f()
        await task

    asyncio.run(main())
    assert told(session) == AT_ONCE


def test_tasks_at_once(session, in_turns):
    async def main():
        a, b = asyncio.Lock(), asyncio.Lock()
        meet = asyncio.Barrier(2)

        async def take(turn, first, second):
            for number in range(2):
                if number == turn:
                    async with first, second:
                        pass
                await meet.wait()

        await asyncio.gather(take(0, a, b), take(1, b, a))

    asyncio.run(main())
    assert told(session) == AT_ONCE


def test_nested_before_a_thread_that_nests(session):
    slots = threading.Semaphore(2)

    def nest():
        with slots, slots:
            pass

    nest()
    run(nest)
    nest()
    assert told(session) == ("nested", "warning", 2, 1)


def test_a_chain_of_tasks_is_not_kept(session):
    """Each makes the next, and ends: whoever has ended is forgotten."""

    async def main():
        lock, done = asyncio.Lock(), asyncio.Event()

        async def link(left):
            async with lock:
                pass
            if left:
                kept.append(asyncio.create_task(link(left - 1)))
            else:
                owner, depth = session.ledger.current(), 0
                while owner.starter is not None:
                    owner, depth = owner.starter, depth + 1
                found.append(depth)
                done.set()

        kept, found = [], []
        await link(50)
        await done.wait()
        return found

    assert asyncio.run(main())[0] <= 4
