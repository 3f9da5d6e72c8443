"""Every interleaving of a few actors on a pool's real methods, down to each look at shared state.

An actor is a greenlet. It gives way before every operation that others can see: a read or write of the gate,
of `_wanted`, `_kicked` or `news`; a pop, an append or a length of the reserve; taking the guard. What lies
between two of them cannot be interrupted by anything that matters. The search is depth first, by replay. A
state is left when it was met before: what an actor will do is a function of its stack.

Bound: the space is finite because every actor is; `Explored.complete` is not assumed but reached.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import greenlet

from headway.core.mm.handover import HandOver
from headway.core.plan import Call, Now, Offload, Park, Plan, Ticket
from headway.runtimes.threads import Threads


class Cancelled(BaseException):
    pass


class Actor:
    """One greenlet. Its state is its stack: places, local variables, and what the statements it is in
    the middle of have seen so far (values that no variable has yet)."""

    def __init__(self, world: World, name: str, body: Callable[[], Any]) -> None:
        self.world = world
        self.name = name
        self.seen: list[tuple[int, int, Any]] = []  # frame, line, what was seen there
        self.waits: Callable[[], bool] | None = None
        self.parked: Ticket | None = None
        self.interrupt: object = None
        self.result: Any = None
        self.let = greenlet.greenlet(self._run)
        self.body = body

    def _run(self) -> None:
        try:
            self.result = self.body()
        except Cancelled:
            self.result = "cancelled"
        except TimeoutError:
            self.result = "timeout"

    def ready(self) -> bool:
        return not self.let.dead and (self.waits is None or self.waits())

    def sees(self, value: Any) -> None:
        frame = sys._getframe(2)
        while frame.f_code.co_filename == __file__ and frame.f_back is not None:
            frame = frame.f_back
        self.seen.append((id(frame), frame.f_lineno, value))

    def state(self) -> Any:
        if self.let.dead:
            return repr(self.result)
        frames, frame = [], self.let.gr_frame
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        lines = {id(frame): frame.f_lineno for frame in frames}
        self.seen = [one for one in self.seen if lines.get(one[0]) == one[1]]
        return (
            tuple(map(self.world.locals_of, frames)),
            tuple(value for _, _, value in self.seen),
            self.interrupt,
            self.parked and self.world.plain(self.parked),
        )


class World:
    """One run: its actors, and the schedule it follows. It is the runtime of the pools in it."""

    locked = False

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.pool: Any = None
        self.hub = greenlet.getcurrent()
        self.now_actor: Actor | None = None
        self.over = False  # the run was left in the middle, and its actors are being dropped

    def __getattr__(self, name: str) -> Any:
        return getattr(Threads(), name)

    def step(self, actor: Actor) -> None:
        """Let an actor do its next operation, and run to the one after it."""
        self.now_actor = actor
        actor.let.switch()
        self.now_actor = None

    def point(self, observe: Callable[[], Any] | None = None) -> None:
        """Others may come here; afterwards the actor notes what it is about to see."""
        actor = self.now_actor
        if actor is None:
            return
        self.hub.switch()
        self.now_actor = actor
        if observe is not None:
            actor.sees(observe())

    def wait(self, until: Callable[[], bool]) -> None:
        actor = self.now_actor
        assert actor is not None or self.over or until(), "the setting of the scene waits for ever"
        if actor is not None:
            actor.waits = until
            self.point()
            actor.waits = None

    def guard(self) -> Guard:
        return Guard(self)

    def now(self) -> float:
        return 0.0

    def owner(self) -> str:
        return self.now_actor.name if self.now_actor is not None else "scene"

    def run(self, plan: Plan[Any]) -> Any:
        try:
            request = next(plan)
            while True:
                answer: Any = None
                try:
                    match request:
                        case Call(effect, args) | Offload(effect, args):
                            self.point()
                            answer = effect(*args)
                        case Park(ticket):
                            answer = self._park(ticket)
                        case Now():
                            answer = 0.0
                except BaseException as error:
                    request = plan.throw(error)
                else:
                    request = plan.send(answer)
        except StopIteration as stop:
            return stop.value

    def _park(self, ticket: Ticket) -> bool:
        if ticket.woken:
            return True  # as `arm` says
        actor = self.now_actor
        assert actor is not None
        actor.parked = ticket
        self.wait(lambda: ticket.woken or actor.interrupt is not None)
        actor.parked = None
        interrupt, actor.interrupt = actor.interrupt, None
        if interrupt == "cancel":
            raise Cancelled
        return interrupt is None  # a time limit says False, though the wake-up may have come too

    def interrupt(self, victim: Actor, how: str) -> None:
        """Cancel, or end the time of, an actor as soon as it parks; nothing if it ends without."""
        self.wait(lambda: victim.parked is not None or victim.let.dead)
        if victim.parked is not None:
            victim.interrupt = how

    def fingerprint(self) -> Any:
        pool, backend = self.pool, self.pool._backend
        return (
            tuple(actor.state() for actor in self.actors),
            tuple(map(self.plain, pool._queue)),
            *pool.shared(),
            pool._guard.holder and pool._guard.holder.name,
            (pool.free_count, getattr(pool, "_alloc_count", 0), pool._wide),
            backend and (backend.room, backend.out, getattr(backend, "due", None)),
        )

    def plain(self, value: Any) -> Any:
        """What matters of a local variable's value."""
        match value:
            case None | int() | float() | str() | Enum():
                return value
            case Ticket():
                told = None if value.gift is None else tuple(value.gift)
                return (value.who, value.need, value.woken, told, value in self.pool._queue)
            case list() | tuple():
                return tuple(
                    map(self.plain, list.__iter__(value) if isinstance(value, list) else value)
                )
            case Park(ticket):
                return self.plain(ticket)
            case types.GeneratorType():
                inner = value.gi_frame and self.locals_of(value.gi_frame)
                # Of one that runs, CPython 3.11 takes the unit after its instruction for an opcode (it may be an
                # inline cache) and answers with no object. What it called is on the actor's stack anyhow.
                return inner if value.gi_running else (inner, self.plain(value.gi_yieldfrom))
        return type(value).__name__ if type(value) is not object else value is self.news()

    def news(self) -> object:
        return HandOver.news.__get__(self.pool)  # type: ignore[attr-defined]

    def locals_of(self, frame: types.FrameType) -> Any:
        values = tuple(
            (name, None if name in ("self", "pool") else self.plain(value))
            for name, value in frame.f_locals.items()
        )
        return (frame.f_code.co_name, frame.f_lasti, values)


class Guard:
    def __init__(self, world: World) -> None:
        self.world = world
        self.holder: Actor | None = None
        self.held = False

    def acquire(self, blocking: bool = True) -> bool:
        if self.world.over:
            return False
        if blocking:
            self.world.wait(lambda: not self.held)
        else:
            self.world.point(lambda: self.held)
            if self.held:
                return False
        assert not self.held
        self.held, self.holder = True, self.world.now_actor
        return True

    def release(self) -> None:
        self.world.point()  # that it is held can be seen, even if nothing else was done under it
        self.held, self.holder = False, None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


Scene = Callable[[World], list[tuple[str, Callable[[], Any]]]]


@dataclass
class Explored:
    runs: int = 0
    states: int = 0
    complete: bool = False
    failure: str | None = None
    schedule: list[str] = field(default_factory=list)
    endings: set[Any] = field(default_factory=set)


def explore(
    scene: Scene, check: Callable[[World], None], *, parked: int = 0, max_runs: int = 20_000
) -> Explored:
    """Run the scene under every schedule; stop at the first in which an actor is stuck or `check` fails.

    The first `parked` actors are brought to where they park, one after the other, before the search begins.
    """
    found = Explored()
    seen: set[Any] = set()
    todo: list[list[int]] = [[]]
    while todo:
        if found.runs == max_runs:
            return found
        found.runs += 1
        prefix = todo.pop()
        failure, names = _one(scene, check, parked, prefix, seen, todo, found)
        if failure is not None:
            found.failure, found.schedule = failure, names
            return found
    found.states, found.complete = len(seen), True
    return found


def _one(
    scene: Scene,
    check: Callable[[World], None],
    parked: int,
    prefix: list[int],
    seen: set[Any],
    todo: list[list[int]],
    found: Explored,
) -> tuple[str | None, list[str]]:
    world = World()
    world.actors = [Actor(world, name, body) for name, body in scene(world)]
    taken: list[int] = []
    names: list[str] = []
    try:
        for actor in world.actors:
            world.step(actor)  # to its first operation
        for actor in world.actors[:parked]:
            while actor.parked is None:
                assert not actor.let.dead, (
                    f"{actor.name} ended with {actor.result}, and did not park"
                )
                world.step(actor)
        while True:
            ready = [index for index, actor in enumerate(world.actors) if actor.ready()]
            if not ready:
                break
            if len(taken) < len(prefix):
                choice = prefix[len(taken)]
            else:
                state = hash(world.fingerprint())
                if state in seen:
                    return None, names
                seen.add(state)
                choice = ready[0]
                todo.extend([*taken, other] for other in ready[1:])
            taken.append(choice)
            names.append(world.actors[choice].name)
            world.step(world.actors[choice])
        stuck = [actor.name for actor in world.actors if not actor.let.dead]
        if stuck:
            return f"{', '.join(stuck)} waits for ever: {world.pool!r}", names
        found.endings.add(tuple((actor.name, repr(actor.result)) for actor in world.actors))
        check(world)
    except AssertionError as error:
        return f"{error}", names
    finally:
        world.now_actor = None
        world.over = True
        for actor in world.actors:
            if not actor.let.dead and actor.let.gr_frame is not None:
                actor.let.throw(greenlet.GreenletExit)
    return None, names
