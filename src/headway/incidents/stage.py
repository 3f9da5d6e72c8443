"""Where an incident is played: named actors in a simulator, and every event said in words.

It does not know any incident. An incident is a function that sets the stage broken or with one of its
fixes, runs the *real* pool code, and returns how it ended; beside it stands how it is documented to
end. Broken pools are made in the incidents, from the parts of the real one; core has no broken mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.plan import Park, Plan, Ticket
from headway.runtimes.simulator import Option, Simulator, Task

# How an incident can end.
DONE = "done"
DEADLOCK = "deadlock"
LOST_WAKE_UP = "lost wake-up"
DROPPED_WORK = "dropped work"
RECURSION = "recursion"
CLEAN_ERROR = "clean error"
STALL = "stall"
LIVELOCK = "livelock"
SPURIOUS = "spurious failure"
EARLY_KILL = "early kill"


@final
@dataclass(frozen=True, slots=True)
class Fix:
    """One remedy, and how the incident ends with it."""

    name: str
    title: str
    ends: str = DONE


@final
@dataclass(frozen=True, slots=True)
class Event:
    """One line: who does what, with which result."""

    actor: str
    action: str
    result: str = ""

    def __str__(self) -> str:
        return f"{self.actor}: {self.action}" + (f" -> {self.result}" if self.result else "")


@final
class Stage:
    """A simulator whose tasks take turns in the order of their entrance, and the events so far."""

    def __init__(self) -> None:
        self.simulator = Simulator(self._next, fine=False)
        self.events: list[Event] = []
        self._last = 0

    def _next(self, options: Sequence[Option]) -> int:
        """Round robin: the first after the one that went last."""
        later = (i for i, option in enumerate(options) if option.task > self._last)
        index = next(later, 0)
        self._last = options[index].task
        return index

    def say(self, actor: str, action: str, result: str = "") -> None:
        self.events.append(Event(actor, action, result))

    def enter(self, actor: str, plan: Plan[Any]) -> None:
        """A new actor, whose first step comes when it is its turn."""
        self.simulator.start(plan, actor)

    def turn(self) -> Plan[None]:
        """Let the other actors go first."""
        ticket = Ticket("a turn")
        ticket.wake()
        yield Park(ticket)

    def alloc(
        self, actor: str, pool: Mempool[Any], what: str = "alloc", **options: Any
    ) -> Plan[Any]:
        """Take one element and say so."""
        gfp = options.pop("gfp", Gfp.KERNEL)
        before = pool.stats().reserve_count
        if before == 0 and gfp.may_park:
            self.say(actor, f"{what} from {pool.name}", "the reserve is empty: it waits")
        taken = yield from pool.alloc_plan(gfp, 0, actor, 1, None)
        left = pool.stats().reserve_count
        self.say(actor, f"{what} from {pool.name}", f"an element, {left} left" if taken else "none")
        return taken[0] if taken else None

    def free(self, actor: str, pool: Mempool[Any], element: Any, what: str = "free") -> None:
        """Give one element back and say so."""
        waiters = pool.stats().waiters
        self.say(
            actor, f"{what} to {pool.name}", "handed to the first who waits" if waiters else ""
        )
        pool.free(element)

    def play(self, over: Callable[[], bool] | None = None) -> str:
        """Run to the end: done, or deadlock; who is stuck is said. With `over`, no further than that."""
        if over is None:
            stuck = self.simulator.go(10_000)
        else:
            stuck = self._play_until(over)
        for task in self.simulator.tasks:
            if task.failure is not None:
                raise task.failure
        if over is None or not over():
            for task in stuck:
                self.say(task.name, "waits", "for ever")
        self.simulator.close()
        return DEADLOCK if stuck else DONE

    def _play_until(self, over: Callable[[], bool]) -> list[Task]:
        simulator = self.simulator
        while not over() and (options := simulator.options()):
            simulator.take(options[self._next(options)])
        return simulator.stuck()


Play: TypeAlias = Callable[[Stage, str | None], str]


@final
@dataclass(frozen=True, slots=True)
class Incident:
    """A bug of the kernel threads, replayed: `play(stage, fix)` gives how it ended."""

    id: str
    title: str
    ends: str  # broken
    fixes: tuple[Fix, ...]
    play: Play

    def run(self, fix: str | None = None) -> tuple[list[Event], str]:
        """Its events, and how it ended, broken or with a fix."""
        stage = Stage()
        ended = self.play(stage, fix)
        return stage.events, ended

    def documented(self, fix: str | None) -> str:
        """How it is documented to end."""
        return next((its.ends for its in self.fixes if its.name == fix), self.ends)
