"""E-D2 and E-D2b (2001): the kick in the wrong state eats the wake-up; without a kick nobody wakes.

All elements sit in requests on a plugged queue. In E-D2 the waiter joins the queue, marks itself
asleep, and only then runs the disk queue: that sleeps too, and the wake-up meant for the pool ends
*its* sleep. Back from there the task sleeps without looking again, beside an element in the reserve.
In E-D2b there is no kick at all: the requests stay plugged, and their elements with them.
Fixed, by the real pool: kick first, then join, look once more, and only then sleep.

Source: I. Molnar, "mempool-2.5.1-D2" (reported by Andrew Morton).
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.ladder import Wake
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park
from headway.incidents.stage import DEADLOCK, DONE, LOST_WAKE_UP, Fix, Incident, Stage


class _PluggedQueue:
    """A device queue that holds requests back until it is unplugged."""

    def __init__(self, stage: Stage, pool: FixedMempool[Any]) -> None:
        self.stage = stage
        self.pool = pool
        self.plugged: list[Any] = []

    def add(self, element: Any) -> None:
        self.pool.hand_over(element)
        self.plugged.append(element)
        self.stage.say("T1", "puts a request on the plugged queue")

    def unplug(self) -> None:
        self.stage.say("T1", "runs the disk queue", f"{len(self.plugged)} requests start")
        for number, element in enumerate(self.plugged, 1):
            self.stage.enter(f"D{number}", self._complete(f"D{number}", element))
        self.plugged = []

    def _complete(self, actor: str, element: Any) -> Plan[None]:
        self.stage.free(actor, self.pool, element, "completes, and frees")
        return
        yield  # type: ignore[unreachable]  # makes it a plan: a completion waits for nothing


def _wait_after_state(stage: Stage, pool: FixedMempool[Any], queue: _PluggedQueue) -> Plan[None]:
    """The broken order: join and fall asleep first, then run the disk queue."""
    ticket = Ticket("T1")
    pool.join(ticket)
    stage.say("T1", "joins the wait queue, and marks itself asleep")
    queue.unplug()
    stage.say("T1", "sleeps inside the disk queue")
    yield from park(ticket)
    stage.say("T1", "is woken inside the disk queue", "the pool's wake-up is spent")
    yield from park(Ticket("T1 asleep without looking"))


def _play(stage: Stage, *, kick: bool, kick_first: bool) -> str:
    wake = Wake.FIFO if kick_first else Wake.EXCLUSIVE
    pool: FixedMempool[Any] = FixedMempool(
        [object(), object()], runtime=stage.simulator, name="P", wake=wake
    )
    queue = _PluggedQueue(stage, pool)
    if kick and kick_first:
        pool.unplug = queue.unplug

    def task() -> Plan[None]:
        for _ in range(2):
            queue.add((yield from stage.alloc("T1", pool)))
        if kick and not kick_first:
            yield from _wait_after_state(stage, pool, queue)
            return
        element = yield from stage.alloc("T1", pool)
        stage.free("T1", pool, element)

    stage.enter("T1", task())
    ended = stage.play()
    if ended == DEADLOCK and pool.stats().reserve_count:
        stage.say("P", "has elements in its reserve", str(pool.stats().reserve_count))
        return LOST_WAKE_UP
    return ended


def play_d2(stage: Stage, fix: str | None) -> str:
    return _play(stage, kick=True, kick_first=fix == "kick-first")


def play_d2b(stage: Stage, fix: str | None) -> str:
    return _play(stage, kick=fix == "kick", kick_first=True)


D2 = Incident(
    "E-D2",
    "the kick runs in the wrong task state, and eats the wake-up",
    LOST_WAKE_UP,
    (Fix("kick-first", "run the disk queue first, then join, look again, and sleep", DONE),),
    play_d2,
)
D2B = Incident(
    "E-D2b",
    "nobody unplugs the queue that holds the elements",
    DEADLOCK,
    (Fix("kick", "run the disk queue before every sleep", DONE),),
    play_d2b,
)
