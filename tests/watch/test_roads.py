"""When a queue is a pool of elements, and when only a way for things to go: only of a pool can something be missing."""

import asyncio
import queue
import subprocess
import sys
import threading

import pytest

from headway import watch

KINDS = [queue.Queue, queue.LifoQueue, queue.PriorityQueue]


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


@pytest.mark.parametrize("item", [1, None, "stop", (1, 2), object()])
@pytest.mark.parametrize("kind", KINDS)
def test_put_and_got_again_is_no_pool(session, kind, item):
    if kind is queue.PriorityQueue:
        item = 1

    def run():
        line = kind()
        for _ in range(3):
            line.put(item)
            line.get()
        with threading.Lock():
            line.put(item)
            line.get()

    run_threads(run)
    assert found(session) == []


def test_put_and_got_again_written_out(session):
    def run():
        line = queue.Queue()
        line.put(1)
        line.get()
        line.put(1)
        line.get()
        line.put(1)
        line.get()

    run_threads(run)
    assert found(session) == []


@pytest.mark.parametrize("kind", ["queue.Queue", "asyncio.Queue"])
def test_in_a_program_of_its_own(kind):
    """Where the main thread has ended when the report is made."""
    pytest.importorskip("typer")
    program = f"import asyncio, queue\nasync def main():\n  q = {kind}()\n" + (
        "  for _ in range(3):\n    q.put(1); q.get()\nasyncio.run(main())"
        if kind == "queue.Queue"
        else "  for _ in range(3):\n    await q.put(1); await q.get()\nasyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-m", "headway", "watch", "--", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == "nothing found\n"


@pytest.mark.parametrize("item", [1, None, object()])
def test_tasks_that_hand_over(session, item):
    async def main():
        line = asyncio.Queue()

        async def produce():
            for _ in range(5):
                await line.put(item)
                await asyncio.sleep(0)

        async def consume():
            for _ in range(5):
                await line.get()

        await asyncio.gather(produce(), consume())
        made = asyncio.create_task(produce())  # a child that puts for its parent
        for _ in range(5):
            await line.get()
        await made

    asyncio.run(main())
    assert found(session) == []


@pytest.mark.parametrize("item", [1, None, object()])
def test_a_producer_and_consumers(session, item):
    line = queue.Queue(2)

    def produce():
        for _ in range(6):
            line.put(item)

    def consume():
        for _ in range(3):
            line.get()

    run_threads(produce, consume, consume)
    assert found(session) == []


@pytest.mark.parametrize("counts", [True, False])
def test_jobs_some_of_which_are_tried_again(session, counts):
    """Filled at the start, and some jobs put back by whoever got them: most are done, and gone."""
    jobs, left = queue.Queue(), threading.Lock()
    for number in range(12):
        jobs.put([number, 0])

    def work():
        while True:
            try:
                job = jobs.get(timeout=0)
            except queue.Empty:
                return
            with left:
                job[1] += 1
            if job[0] % 3 == 0 and job[1] == 1:
                jobs.put(job)
            if counts:
                jobs.task_done()

    run_threads(work, work, work)
    assert found(session) == []


def test_jobs_that_are_counted_make_no_pool_however_often_they_are_tried(session):
    jobs = queue.Queue()
    jobs.put([0])

    def work():
        for turn in range(9):
            job = jobs.get()
            if turn < 8:
                jobs.put(job)
            jobs.task_done()

    run_threads(work)
    assert found(session) == []


def test_a_stack(session):
    """Looked at by taking the top off and putting it back; in the end all of it is used up."""

    def run():
        stack = queue.LifoQueue()
        for token in [[1], [2], [3], [4]]:
            stack.put(token)
            top = stack.get()
            stack.put(top)
        with threading.Lock():
            for _ in range(4):
                stack.get()

    run_threads(run)
    assert found(session) == []


def test_results(session):
    results = queue.SimpleQueue(), queue.Queue()

    def work():
        for line in results:
            line.put(True)

    run_threads(*[work] * 4)

    def gather():
        for line in results:
            for _ in range(4):
                line.get()

    run_threads(gather)
    run_threads(work, gather, work, work, work)
    assert found(session) == []


def test_workers_that_wait_for_more_are_not_stuck(session):
    """Each has one job that does not come back, one was put back: nobody is to be accused of the wait for more."""
    jobs = queue.Queue()
    for number in range(3):
        jobs.put([number])
    jobs.put(jobs.get())

    meet = threading.Barrier(3)

    def work():
        for _ in range(2):
            jobs.get()
            meet.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while sum(wait.what == "queue" for wait in list(session.ledger.waits.values())) < 3:
        pass
    assert session.hang() is None
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()
    assert found(session) == []


# -- and the real ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [object, iter(range(9)).__next__, lambda: None])
@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue])
def test_an_element_that_does_not_come_back(session, make, kind):
    slots = kind()
    for _ in range(3):
        slots.put(make())

    def request(fails):
        slot = slots.get()
        if not fails:
            slots.put(slot)

    for fails in (False, False, False, True, False):
        run_threads(lambda fails=fails: request(fails))
    assert found(session, final=False) == [("leak", "warning", 3)]
    finding = session.findings()[0]
    assert finding.pool.startswith("queue of 3 made at")
    assert "in request" in finding.stacks["taken and not given back"][0]


def test_tasks_whose_element_does_not_come_back(session):
    async def main():
        slots = asyncio.Queue()
        for _ in range(2):
            slots.put_nowait(object())

        async def request(fails):
            slot = await slots.get()
            if not fails:
                await slots.put(slot)

        for fails in (False, False, True):
            await asyncio.create_task(request(fails))

    asyncio.run(main())
    assert found(session) == [("leak", "warning", 2)]


def test_an_element_that_is_replaced_is_not_missing(session):
    slots = queue.Queue()
    for _ in range(2):
        slots.put(object())

    def request(breaks):
        slot = slots.get()
        slots.put(object() if breaks else slot)

    for breaks in (False, False, True, False, False):
        run_threads(lambda breaks=breaks: request(breaks))
    assert found(session) == []
    assert session.ledger.out == []


def test_a_second_element_while_one_is_held(session):
    slots = queue.Queue()
    for _ in range(2):
        slots.put(object())

    def request():
        slot = slots.get()
        second = slots.get()
        slots.put(second)
        slots.put(slot)

    run_threads(request)
    assert found(session) == [("nested", "warning", 2)]


def test_what_is_remembered_of_a_road_is_bounded(session):
    line = queue.Queue()

    def consume():
        line.get()

    for _ in range(100):
        line.put(object())
        run_threads(consume)
    assert sum(len(pool.out) for pool in session.ledger.out) <= 1
    assert found(session) == []
