"""All tasks at once over their learned automata: every state of tasks, pools and queues, the shortest way first.

It knows how a task goes on from `automata`, and carries the pools' rules out on counts (`guided` then holds
each finding to the real pools). A state says of each task which operation it is about to do, or that it waits
in it; of each pool what is free, and who waits in which order. Time limits may run out at any time, a request
that may come to nothing does if nothing is free, and asynchronous tasks may be cancelled, `cancels` times in all.

Where no task can come round, equal tasks are exchanged for one another; where one can, they keep their
names, for `lasso` asks of each by itself whether it is kept out for ever. Bound: each state once, at most `most`.

Source: counter abstraction and breadth first, as in `counts`; Holt's graph reduction for partial deadlock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar, final

from headway.checker.automata import Automata, Node
from headway.checker.learn import NotPlain
from headway.checker.telling import EVERY, tell
from headway.core.mm.ladder import Wake

T = TypeVar("T")
WAITS = "waits"


class Move(NamedTuple):
    """One task's step: its number in a run (the function itself is 1), how it ended, and who was served by it."""

    task: int
    result: str
    served: tuple[int, ...] = ()


class State(NamedTuple):
    """`tasks`: the kind and the node of each; `queues`: who waits for each pool, in order of arrival."""

    tasks: tuple[tuple[int, int], ...]
    free: tuple[int, ...]
    queues: tuple[tuple[int, ...], ...]
    cancels: int


Edge: TypeAlias = tuple[Move, State]


@final
@dataclass(slots=True)
class Explored:
    """What was found: a verdict and the moves that lead there; with the whole graph if it was kept."""

    verdict: str | None = None
    moves: list[Move] = field(default_factory=list)
    stuck: tuple[int, ...] = ()
    complete: bool = True
    states: int = 0
    graph: dict[State, list[Edge]] = field(default_factory=dict)
    came: dict[State, tuple[State, Move] | None] = field(default_factory=dict)

    def way(self, state: State) -> list[Move]:
        """The moves that lead to a state."""
        moves = []
        while (came := self.came[state]) is not None:
            state, move = came
            moves.append(move)
        return moves[::-1]


@final
class Product:
    """The states of a program with given sizes of its pools."""

    def __init__(
        self, automata: Automata, sizes: Sequence[int], cancels: int = 0, leaks: bool = True
    ) -> None:
        self._kinds = automata.kinds
        self._nodes = automata.nodes
        self._fifo = [facts.pool.wake is Wake.FIFO for facts in automata.pools]
        self._sizes = tuple(sizes)
        self._cancels = cancels
        self._leaks = leaks  # whether they are a finding
        self.has_loops = automata.has_loops
        if any(kind.children for kind in self._kinds[1:]):
            raise NotPlain("a task starts others before it does anything itself")

    def first(self) -> State:
        """The function itself before its first operation, with whom it has started by then."""
        tasks = [(kind, self._kinds[kind].start.number) for kind in (0, *self._kinds[0].children)]
        empty: tuple[tuple[int, ...], ...] = ((),) * len(self._sizes)
        return State(tuple(tasks), self._sizes, empty, self._cancels)

    # -- search ------------------------------------------------------------------------------------

    def explore(self, most: int, keep: bool = False, shortest: bool = True) -> Explored:
        """Breadth first until something is found; with `keep`, edges and all.

        What is found is the shortest if `shortest`; else returns to quiet pools are taken first, which is quicker.
        """
        quiet = () if keep or self.has_loops else self._quiet()
        if quiet and shortest:
            quick = self._explore(most, keep, quiet)
            if quick.verdict is None:
                return quick
            found = self._explore(most, keep, ())
            return found if found.verdict is not None else quick
        return self._explore(most, keep, quiet)

    def _quiet(self) -> tuple[int, ...]:
        """Pools served in order, from which nobody asks in a way that may come to nothing.

        A return to one of these commutes with everything: whoever could have been served before it is, in
        the same order, after it. So where a task is about to make one, nothing else need be tried.
        """
        if self._cancels:
            return ()
        noisy = {n.what[1] for n in self._nodes if n.what[0] == "take" and n.what[3]}
        return tuple(p for p, fifo in enumerate(self._fifo) if fifo and p not in noisy)

    def _explore(self, most: int, keep: bool, quiet: Sequence[int]) -> Explored:
        first = self.first()
        found = Explored(came={first: None})
        seen = {self._canonical(first)}
        todo = deque([first])
        while todo:
            state = todo.popleft()
            found.states += 1
            if not found.states % EVERY:
                tell("states", found.states, most)
            if found.states > most:
                found.complete = False
                return found
            edges = self._return_to(state, quiet) if quiet else None
            edges = edges or list(self.edges(state))
            if (verdict := self.verdict(state, edges)) is not None:
                found.verdict, found.stuck, last = verdict
                found.moves = [*found.way(state), *last]
                found.complete = False
                return found
            if keep:
                found.graph[state] = edges
            for move, after in edges:
                key = self._canonical(after)
                if key not in seen:
                    seen.add(key)
                    found.came[after] = (state, move)
                    todo.append(after)
        return found

    def _canonical(self, state: State) -> object:
        if self.has_loops:
            return state
        waiting = [task for queue in state.queues for task in queue]
        if waiting:
            others = sorted([p for task, p in enumerate(state.tasks) if task not in waiting])
        else:
            others = sorted(state.tasks)
        queues = tuple(tuple(state.tasks[task] for task in queue) for queue in state.queues)
        return (tuple(others), queues, state.free, state.cancels)

    def verdict(
        self, state: State, edges: list[Edge]
    ) -> tuple[str, tuple[int, ...], tuple[Move, ...]] | None:
        """What is wrong with a state, who is stuck in it, and the moves that show it."""
        for task, (_, number) in enumerate(state.tasks):
            what = self._nodes[number].what
            if what[0] == "end" and what[1] not in (None, "Cancelled", "PoolTimeout"):
                return "error", (task + 1,), ()
        if stuck := self.stuck(state):
            return "deadlock", tuple(task + 1 for task in stuck), ()
        if edges and all(move.result == "PoolTimeout" for move, _ in edges):
            for move, after in edges:  # nobody was merely slow: the time limit was right
                if self._at(after, move.task - 1).what == ("end", "PoolTimeout"):
                    return "error", (move.task,), (move,)
        if edges:
            return None
        if any(state.queues):
            return "deadlock", tuple(task + 1 for queue in state.queues for task in queue), ()
        return ("leak", (), ()) if self._leaks and state.free != self._sizes else None

    def stuck(self, state: State) -> list[int]:
        """Tasks that wait, without a limit, for what only each other hold, or who ended."""
        if not any(state.queues):
            return []
        circle = [t for queue in state.queues for t in queue if not self._at(state, t).what[3]]
        while circle:
            kept = list(self._sizes)
            for task in range(len(state.tasks)):
                node = self._at(state, task)
                if task in circle or node.what[0] == "end":
                    kept = [k - h for k, h in zip(kept, node.held, strict=True)]
            heads: set[int] = set()
            freed = []
            for task in circle:
                _, pool, n, _ = self._at(state, task).what
                if n <= kept[pool] and not (self._fifo[pool] and pool in heads):
                    freed.append(task)
                heads.add(pool)
            if not freed:
                return circle
            circle = [task for task in circle if task not in freed]
        return []

    def _at(self, state: State, task: int) -> Node:
        return self._nodes[state.tasks[task][1]]

    # -- steps -------------------------------------------------------------------------------------

    def edges(self, state: State) -> Iterator[Edge]:
        """Every step that can be taken."""
        waiting = {task for queue in state.queues for task in queue}
        seen = set()
        for task, pair in enumerate(state.tasks):
            what = self._nodes[pair[1]].what
            if what[0] == "end":
                continue
            if task not in waiting:
                if not self.has_loops:
                    if pair in seen:
                        continue  # an equal task takes the same step
                    seen.add(pair)
                if what[0] == "give":
                    yield self._gives(state, task)
                else:
                    yield self._asks(state, task)
            elif what[3]:
                yield self._leaves(state, task, what[3])
            if state.cancels and what[0] == "take" and self._kinds[pair[0]].is_async:
                yield self._leaves(state._replace(cancels=state.cancels - 1), task, "Cancelled")

    def _return_to(self, state: State, quiet: Sequence[int]) -> list[Edge] | None:
        """A return to one of some pools, if a task is about to make one."""
        for task, (_, number) in enumerate(state.tasks):
            what = self._nodes[number].what
            if what[0] == "give" and what[1] in quiet:
                return [self._gives(state, task)]
        return None

    def _asks(self, state: State, task: int) -> Edge:
        _, pool, n, how = self._at(state, task).what
        if n <= state.free[pool] and not (self._fifo[pool] and state.queues[pool]):
            return self._edge(task, "granted", self._granted(state, task), [task])
        if how == "none":
            return self._edge(task, "none", self._moved(state, task, "none"), [task])
        queues = _replaced(state.queues, pool, (*state.queues[pool], task))
        return Move(task + 1, WAITS), State(state.tasks, state.free, queues, state.cancels)

    def _gives(self, state: State, task: int) -> Edge:
        state, served = self._given(state, task)
        return self._edge(task, "done", state, served, served)

    def _leaves(self, state: State, task: int, result: str) -> Edge:
        """Stop waiting, or do not even ask."""
        pool = self._at(state, task).what[1]
        queue = tuple(other for other in state.queues[pool] if other != task)
        queues = _replaced(state.queues, pool, queue)
        state = State(state.tasks, state.free, queues, state.cancels)
        after, served = self._served(self._moved(state, task, result), pool)
        return self._edge(task, result, after, [task, *served], served)

    def _edge(
        self, task: int, result: str, state: State, go_on: list[int], served: Sequence[int] = ()
    ) -> Edge:
        """Let those who moved go on: a coroutine gives back in the turn in which it got, or was refused."""
        told = list(served)
        go_on = list(go_on)
        for other in go_on:  # it grows as we go
            while self._kinds[state.tasks[other][0]].is_async and (
                self._at(state, other).what[0] == "give"
            ):
                state, more = self._given(state, other)
                go_on += more
                told += more
        return Move(task + 1, result, tuple(number + 1 for number in told)), state

    def _given(self, state: State, task: int) -> tuple[State, list[int]]:
        _, pool, n = self._at(state, task).what
        after = self._moved(state, task, "done")
        free = _replaced(after.free, pool, after.free[pool] + n)
        return self._served(State(after.tasks, free, after.queues, after.cancels), pool)

    def _served(self, state: State, pool: int) -> tuple[State, list[int]]:
        """After units came, or somebody left: who waits and can be served now is."""
        served: list[int] = []
        for task in state.queues[pool]:
            if self._at(state, task).what[2] <= state.free[pool]:
                queue = tuple(other for other in state.queues[pool] if other != task)
                queues = _replaced(state.queues, pool, queue)
                waiting = State(state.tasks, state.free, queues, state.cancels)
                state = self._granted(waiting, task)
                served.append(task)
            elif self._fifo[pool]:
                break
        return state, served

    def _granted(self, state: State, task: int) -> State:
        _, pool, n, _ = self._at(state, task).what
        free = _replaced(state.free, pool, state.free[pool] - n)
        return self._moved(State(state.tasks, free, state.queues, state.cancels), task, "granted")

    def _moved(self, state: State, task: int, result: str) -> State:
        kind, number = state.tasks[task]
        target, started = self._nodes[number].after[result]
        tasks = list(state.tasks)
        tasks[task] = (kind, target.number)
        for child in started:
            tasks.append((child, self._kinds[child].start.number))
        return State(tuple(tasks), state.free, state.queues, state.cancels)


def _replaced(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])
