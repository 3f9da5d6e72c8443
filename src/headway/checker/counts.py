"""Whether a model can deadlock, and its shortest deadlock, by counting how many tasks are in each local state.

It does not carry out a step (`play`). Three facts make the search small, whatever the wake policy.
*Tasks of one actor are alike*, so a state is a count for each local state.
*No queue need be kept.* Take a run that ends with a stuck set S, and L, tasks that ended and kept units.
Leave out all other tasks; let the rest ask only when they were granted, and those of S for the last
time after all that, in their order of arrival. Fewer units are out at each moment, so each of these
requests fits; nobody waits yet, so each is granted at once, under FIFO too; and at the end there is free
what nobody but S and L holds, as before, so S is stuck as before. The run did not grow.
*What is given back is given back at once*: it only adds units, and who is in S or L does it anyhow.

So only takes that fit are explored, and a state is dead if all tasks in it could now ask and be stuck: any-fit
if no request fits; FIFO if each is behind, through pools in common, one that does not. There a task that
holds nothing may help by standing in front. Bound: the product over actors of the ways to spread `count`
tasks over its local states; each is opened once, fewest events first.

Source: counter abstraction (Emerson and Trefler 1999); T1 of the theory of reserves, made exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

from headway.checker.locals import Local, Locals, Script
from headway.checker.model import FIFO, Amounts
from headway.checker.play import Move
from headway.checker.telling import EVERY, tell

State: TypeAlias = tuple[int, ...]

MAX_STATES = 1_000_000


@final
@dataclass(slots=True)
class Found:
    """What a search found: `moves` leads to a deadlock, if there is one; `complete` if all was seen."""

    dead: bool = False
    complete: bool = True
    states: int = 0
    moves: list[Move] = field(default_factory=list)


@final
@dataclass(frozen=True, slots=True)
class _Way:
    """A request of a task at `source`, and the local state it moves on to when granted."""

    source: Local
    target: Local
    script: Script
    started: bool  # whether the task did anything before
    cost: int  # how many events more a trace has: steps, and the last request
    delta: Amounts  # how much more is held


@final
class Search:
    """One search over the states of a model with given capacities."""

    def __init__(self, locals_: Locals, capacities: Amounts, max_states: int = MAX_STATES) -> None:
        self._locals = locals_
        self._capacities = capacities
        self._budget = max_states
        self._fifo = locals_.model.wake == FIFO
        self._counts = [actor.count for actor in locals_.model.actors]
        self._actors = [local.actor for local in locals_.all]
        self._rules = [
            (w, w.source.number, w.target.number, w.source.actor, w.started, w.source.wants or ())
            for w in self._all_ways()
        ]
        self._rows = [tuple(map(bool, local.wants or ())) for local in locals_.all]
        self._asking = [local for local in locals_.all if local.wants is not None]
        firsts = [local.wants or () for row in locals_.starts for local in row]
        self._largest_first = tuple(max(n) for n in zip(*firsts, strict=True))
        self._came: dict[State, tuple[State, _Way] | None] = {}

    def _all_ways(self) -> Iterator[_Way]:
        starts = {local.number for row in self._locals.starts for local in row}
        for source in self._locals.all:
            started = source.number not in starts
            for target, script in source.after:
                if target is None:
                    continue  # ended with nothing held: in no shortest deadlock
                cost = target.steps - source.steps + (target.wants is not None) - started
                delta = tuple(t - s for t, s in zip(target.held, source.held, strict=True))
                yield _Way(source, target, script, started, cost, delta)

    def run(self, shortest: bool = True) -> Found:
        """Search; without `shortest` the first deadlock met will do, and no moves are told."""
        empty: State = (0,) * len(self._locals.all)
        self._came = {empty: None}
        found = Found()
        # A queue for each number of events; with a dead state come those who are to stand in front.
        queues: list[deque[tuple[State, Amounts, list[Local] | None]]] = [deque()]
        queues[0].append((empty, self._capacities, None))
        for level, queue in enumerate(queues):  # it grows as we go
            while queue:
                state, free, front = queue.popleft()
                if front is None:
                    if found.states == self._budget:
                        found.complete = False
                        return found
                    found.states += 1
                    if not found.states % EVERY:
                        tell("states", found.states, self._budget)
                    front = self._dead(state, free)
                    if front and shortest:
                        _push(queues, level + len(front), (state, free, front))
                        front = None
                if front is not None:
                    found.dead = True
                    found.moves = self._moves(state, free, front) if shortest else []
                    return found
                self._open(state, free, level, queues)
        return found

    def _open(self, state: State, free: Amounts, level: int, queues: list[deque[Any]]) -> None:
        left = self._left(state)
        came = self._came
        for way, number, target, actor, started, wants in self._rules:
            if not (state[number] if started else left[actor]):
                continue
            for n, f in zip(wants, free, strict=True):
                if n > f:
                    break
            else:
                after = list(state)
                if started:
                    after[number] -= 1
                after[target] += 1
                new = tuple(after)
                if new not in came:
                    came[new] = (state, way)
                    rest = tuple([f - d for f, d in zip(free, way.delta, strict=True)])
                    _push(queues, level + way.cost, (new, rest, None))

    def _left(self, state: State) -> list[int]:
        """Of each actor, how many tasks have not begun."""
        left = list(self._counts)
        for actor, n in zip(self._actors, state, strict=True):
            left[actor] -= n
        return left

    def _dead(self, state: State, free: Amounts) -> list[Local] | None:
        """Who else must ask first, so that all in this state are stuck; None if that cannot be."""
        here = [x for x in self._asking if state[x.number]]
        stuck = [not _fits(local.wants or (), free) for local in here]
        if here:
            if all(stuck):
                return []
            if not self._fifo:
                return None
            if _fits(self._largest_first, free) and not any(stuck):
                return None  # nobody waits, and whoever comes now is served
        left = self._left(state)
        fresh = [x for row in self._locals.starts for x in row if left[x.actor]]
        if not here:
            return next(([x] for x in fresh if not _fits(x.wants or (), free)), None)
        blocked = [False] * len(free)
        for local, is_stuck in zip(here, stuck, strict=True):
            if is_stuck:
                _join(blocked, self._rows[local.number])
        return self._fronts(here, blocked, fresh, left, free)

    def _fronts(
        self,
        here: list[Local],
        blocked: list[bool],
        fresh: list[Local],
        left: list[int],
        free: Amounts,
    ) -> list[Local] | None:
        """The fewest newcomers that, by standing in front, keep everybody here behind somebody stuck."""
        todo: deque[tuple[list[bool], list[Local]]] = deque([(blocked, [])])
        while todo:
            pools, fronts = todo.popleft()
            if self._spread(here, pools):
                return fronts
            for local in fresh:
                row = self._rows[local.number]
                adds = any(r and not p for r, p in zip(row, pools, strict=True))
                can = _meet(row, pools) or not _fits(local.wants or (), free)
                used = sum(1 for other in fronts if other.actor == local.actor)
                if adds and can and used < left[local.actor]:
                    more = list(pools)
                    _join(more, row)
                    todo.append((more, [*fronts, local]))
        return None

    def _spread(self, here: list[Local], pools: list[bool]) -> bool:
        """Put everybody behind somebody stuck who can be, which blocks more `pools`; whether all are."""
        waiting = list(here)
        while waiting:
            rest = [x for x in waiting if not _meet(self._rows[x.number], pools)]
            if len(rest) == len(waiting):
                return False
            for local in waiting:
                if local not in rest:
                    _join(pools, self._rows[local.number])
            waiting = rest
        return True

    def _moves(self, state: State, free: Amounts, fronts: list[Local]) -> list[Move]:
        """The steps of named tasks that lead to a state, and then to everybody in it asking."""
        actors = self._locals.model.actors
        firsts = [sum(a.count for a in actors[:i]) for i in range(len(actors))]
        idle = [deque(range(f, f + a.count)) for f, a in zip(firsts, actors, strict=True)]
        at: dict[int, deque[int]] = {x.number: deque() for x in self._locals.all}
        moves: list[Move] = []
        for way in self._path(state):
            tasks = at[way.source.number] if way.started else idle[way.source.actor]
            task = tasks.popleft()
            moves.append((task, way.source.choice))
            moves += [(task, choice) for choice in way.script]
            at[way.target.number].append(task)
        asking = [(x, t) for x in self._locals.all if x.wants is not None for t in at[x.number]]
        asking += [(x, idle[x.actor].popleft()) for x in fronts]
        blocked = [False] * len(free)
        while asking:  # those that do not fit first, then whoever is behind one of them
            now = [
                (local, task)
                for local, task in asking
                if not _fits(local.wants or (), free)
                or (self._fifo and _meet(self._rows[local.number], blocked))
            ]
            assert now, "a state was called dead, and somebody in it can go on"
            moves += [(task, local.choice) for local, task in now]
            for local, _ in now:
                _join(blocked, self._rows[local.number])
            asking = [pair for pair in asking if pair not in now]
        return moves

    def _path(self, state: State) -> list[_Way]:
        ways = []
        while (came := self._came[state]) is not None:
            state, way = came
            ways.append(way)
        return ways[::-1]


def _push(queues: list[deque[Any]], level: int, item: Any) -> None:
    while len(queues) <= level:
        queues.append(deque())
    queues[level].append(item)


def _fits(amounts: Amounts, free: Amounts) -> bool:
    for n, f in zip(amounts, free, strict=True):
        if n > f:
            return False
    return True


def _meet(row: Sequence[bool], pools: Sequence[bool]) -> bool:
    return any(r and p for r, p in zip(row, pools, strict=True))


def _join(pools: list[bool], row: Sequence[bool]) -> None:
    for pool, names in enumerate(row):
        if names:
            pools[pool] = True
