"""headway's own executors: work that submits to the one it runs on, or waits there; its twin; and frozen."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor as StandardExecutor

import pytest

import headway as hw
from headway import aio, watch
from headway.integrations.executor import ThreadPoolExecutor
from tests.watch import freezing


@pytest.fixture
def session():
    with watch.watching(watch.Options(breaks=True)) as session:
        yield session


def found(session):
    return [(f.kind, f.severity, f.hangs_from) for f in session.findings(final=True)]


def one(*_):
    return 1


# -- work that weighs ------------------------------------------------------------------------------------


def test_who_submits_holds_nothing_of_what_the_work_weighs(session):
    with hw.BudgetExecutor(2, cost=one, max_workers=2) as executor:
        assert list(executor.map(one, range(9))) == [1] * 9
        assert session.ledger.current().held == []
    assert found(session) == []
    assert session.ledger.out == []


@pytest.mark.parametrize("own", [True, False])
def test_work_that_submits_to_the_executor_it_runs_on(session, own):
    """It waits for units while it has some; the twin gives nested work an executor of its own."""
    with contextlib.ExitStack() as stack:
        outer = stack.enter_context(hw.BudgetExecutor(3, cost=one, max_workers=8))
        inner = outer if own else stack.enter_context(hw.BudgetExecutor(3, cost=one, max_workers=8))
        outer.submit(lambda: inner.submit(one)).result().result()
    # of the budget alone; and of threads that wait for units that work without a thread has
    expected = [("own-executor", "risk", 3), ("own-executor", "warning", 11)]
    assert found(session) == (expected if own else [])
    if own:
        first = session.findings()[0]
        assert (
            "1 share of work under way held while it waits for one more of the same 3" in first.why
        )
        assert "nor for room to submit some" in first.remedy
        assert all("test_executors.py" in lines[0] for lines in first.stacks.values())


@pytest.mark.parametrize("own", [True, False])
def test_work_that_submits_to_the_executor_it_runs_on_in_tasks(session, own):
    async def main():
        async with aio_executors() as (outer, inner):

            async def work():
                await (await (outer if own else inner).submit(one))

            await (await outer.submit(work))

    @contextlib.asynccontextmanager
    async def aio_executors():
        outer, inner = (aio.BudgetExecutor(2, cost=one, max_workers=1) for _ in range(2))
        yield outer, inner
        await outer.aclose()
        await inner.aclose()

    asyncio.run(main())
    assert found(session) == ([("own-executor", "warning", 2)] if own else [])


def test_frozen_in_submit(session):
    """Two of two submit while they run: explained; who closes the executor ends it."""
    executor = hw.BudgetExecutor(2, cost=one, max_workers=4)
    meet = threading.Barrier(2)

    def work():
        meet.wait()
        executor.submit(one)

    futures = [executor.submit(work) for _ in range(2)]
    hang = None
    while hang is None or len(hang["waiters"]) < 2:
        assert not any(future.done() for future in futures)
        hang = session.hang()
    assert freezing.names(hang) == (
        {"budget 'executor' of 2"},
        {"budget 'executor' of 2", "executor of 4"},
    )
    assert hang["release"]["frees"] >= 1
    executor.shutdown()
    for future in futures:
        assert isinstance(future.exception(), RuntimeError)


# -- threads with a reserve ------------------------------------------------------------------------------


@pytest.mark.parametrize("entitled", [False, True])
def test_work_that_waits_for_work_behind_it(session, entitled):
    """Three threads, one kept: ordinary work hangs from two; the twin waits for what the kept thread does."""
    with ThreadPoolExecutor(3, reserve=1) as executor:
        behind = executor.entitled if entitled else executor
        assert executor.submit(lambda: behind.submit(one).result()).result() == 1
    assert found(session) == ([] if entitled else [("own-executor", "warning", 2)])


def test_what_entitled_work_takes_is_wanted_by_whoever_waits_for_it(session):
    slots = threading.Semaphore(2)

    def take():
        with slots:
            pass

    with ThreadPoolExecutor(3, reserve=1) as executor, slots:
        executor.entitled.submit(take).result()
    assert found(session) == [("nested", "warning", 2)]


def test_without_a_reserve_entitled_work_is_like_any_other(session):
    with ThreadPoolExecutor(2) as executor:
        executor.submit(lambda: executor.entitled.submit(one).result()).result()
    assert found(session) == [("own-executor", "warning", 2)]


def test_frozen_behind_itself(session):
    with ThreadPoolExecutor(3, reserve=1) as executor:
        meet = threading.Barrier(2)

        def work():
            meet.wait()
            return executor.submit(one).result()

        waits = [lambda: executor.submit(work).result()] * 2
        hang = freezing.hung(session, *waits, waits=1)
    assert {holder["pool"].partition(" made")[0] for holder in hang["holders"]} == {"executor of 2"}
    assert {waiter["what"] for waiter in hang["waiters"]} == {"a result"}


def test_the_standard_one_is_watched_as_before(session):
    with StandardExecutor(2) as executor:
        executor.submit(lambda: executor.submit(one).result()).result()
    assert found(session) == [("own-executor", "warning", 2)]


# -- queues that weigh -----------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_what_a_queue_holds_nobody_holds(session, face):
    """Items that are put are the queue's: who puts two, and leaves some in it, holds nothing and has lost nothing."""

    async def main():
        line = aio.BudgetQueue(2, cost=one)
        line.put_nowait(1)  # which works under watch as without
        await line.put(2)
        with pytest.raises(asyncio.QueueFull):
            line.put_nowait(3)
        await line.get()

    if face == "tasks":
        asyncio.run(main())
    else:
        line = hw.BudgetQueue(2, cost=one)
        line.put(1)
        line.put(2)
        line.get()
    assert found(session) == []
