"""A work queue grows to its limit and no further; its rescuer gets on when nobody else can."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from headway.core.block.workqueue import Workqueue
from headway.core.plan import Park, Plan, Spawn, Ticket, call, offload, park
from headway.errors import UsageError
from headway.runtimes import tasks
from headway.runtimes.threads import THREADS
from tests.core.block.rig import Rig
from tests.steps import step


def wait(ticket: Ticket) -> Plan[None]:
    yield from park(ticket)


def test_it_grows_to_its_limit_and_no_further() -> None:
    rig = Rig()
    queue = rig.workers(limit=3)
    gates = [Ticket(f"gate {n}") for n in range(5)]
    for gate in gates:
        queue.queue(wait, gate)
    rig.run()
    assert (queue.stats().workers, queue.stats().pending) == (3, 2)
    for gate in gates:
        gate.wake()
    rig.run(queue.close())
    assert queue.stats().done == 5 and queue.stats().workers == 0


def test_a_worker_that_has_nobody_idle_behind_it_starts_one_first() -> None:
    """Else an item that comes while the only worker waits would wait for it, below the limit."""
    rig = Rig()
    queue = rig.workers(limit=8)
    queue.queue(wait, gate := Ticket("gate"))
    rig.run()
    done: list[str] = []
    queue.queue(done.append, "while the first waits")
    rig.run()
    assert done == ["while the first waits"]
    gate.wake()


@pytest.mark.parametrize("rescuer", [False, True])
def test_the_rescuer_gets_on_when_all_workers_wait_for_what_is_still_queued(rescuer: bool) -> None:
    rig = Rig()
    queue = rig.workers(limit=2, rescuer=rescuer)
    gate = Ticket("gate"), Ticket("gate")
    queue.queue(wait, gate[0])
    queue.queue(wait, gate[1])
    queue.queue(lambda: (gate[0].wake(), gate[1].wake()) and None)
    rig.run()
    assert queue.stats().done == (3 if rescuer else 0)
    assert queue.stats().rescued == (1 if rescuer else 0)


def test_the_rescuer_works_when_no_worker_can_be_started() -> None:
    """A thread needs memory: it is refused, the first worker is busy, the queue goes on all the same."""
    rig = Rig()
    queue = Workqueue(rig.simulator, "starved", limit=4, rescuer=True)
    starting = step(queue.start())
    plans = []
    while starting.request is not None:
        assert isinstance(starting.request, Spawn)
        plans.append(step(starting.request.plan))
        starting.answer()
    rescuer, worker = plans
    queue.queue(wait, Ticket("gate"))
    worker.answer(True)
    assert isinstance(worker.request, Spawn)
    worker.throw(RuntimeError("can't start new thread"))
    assert isinstance(worker.request, Park)
    done: list[str] = []
    queue.queue(done.append, "rescued")
    assert rescuer.request.ticket.woken
    rescuer.answer(True)
    assert done == ["rescued"] and queue.stats().refused == 1


@pytest.mark.parametrize("asleep", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_queue_that_cannot_start_leaves_no_rescuer_behind(
    error: BaseException, asleep: bool
) -> None:
    """Whether the rescuer has begun to wait, or has not begun at all, when the first worker is refused."""
    rig = Rig()
    queue = Workqueue(rig.simulator, "refused", rescuer=True)
    starting = step(queue.start())
    assert isinstance(starting.request, Spawn)
    plan = starting.request.plan
    rescuer = step(plan) if asleep else None
    starting.answer()
    assert isinstance(starting.request, Spawn)
    starting.request.plan.close()
    with pytest.raises(type(error)):
        starting.throw(error)
    if rescuer is None:
        rescuer = step(plan)
    assert rescuer.request is None or rescuer.request.ticket.woken
    rescuer.finish()
    assert rescuer.done
    step(queue.close()).finish()  # it waits for nobody


def test_a_queue_whose_rescuer_cannot_start_waits_for_none() -> None:
    queue = Workqueue(Rig().simulator, "refused", rescuer=True)
    starting = step(queue.start())
    assert isinstance(starting.request, Spawn)
    starting.request.plan.close()
    with pytest.raises(RuntimeError):
        starting.throw(RuntimeError("can't start new thread"))
    step(queue.close()).finish()


def test_what_an_item_raises_ends_only_that_item() -> None:
    rig = Rig()
    queue = rig.workers()
    queue.queue(int, "x")
    queue.queue(offload, int, "y")
    done: list[str] = []
    queue.queue(done.append, "next")
    rig.run(queue.close())
    assert done == ["next"] and len(rig.simulator.reports) == 2


def test_closing_finishes_what_is_queued() -> None:
    for seed in range(20):
        rig = Rig(seed)
        queue = rig.workers(limit=2, rescuer=bool(seed % 2))
        done: list[int] = []
        rig.run()
        for number in range(6):
            queue.queue(done.append, number)
        assert rig.run(queue.close()) == []
        assert sorted(done) == list(range(6))


def test_on_threads() -> None:
    queue = Workqueue(THREADS, "on threads", limit=3, rescuer=True)
    THREADS.run(queue.start())
    together = threading.Barrier(3)
    for _ in range(3):
        queue.queue(call, together.wait)  # each waits for the others: three workers are needed
    THREADS.run(queue.close())
    assert queue.stats().done == 3
    assert not any(thread.name.startswith("on threads") for thread in threading.enumerate())


def test_on_tasks() -> None:
    async def main() -> Any:
        queue = Workqueue(THREADS, "on tasks", limit=3)
        await tasks.run(queue.start())
        gate = Ticket("gate")
        queue.queue(wait, gate)
        queue.queue(lambda: gate.wake() and None)
        await tasks.run(queue.close())
        return queue.stats()

    assert asyncio.run(main()).done == 2


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Workqueue(THREADS, "none", limit=0)
