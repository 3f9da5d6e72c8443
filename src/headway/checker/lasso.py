"""Whether tasks can go round for ever: a livelock, or one that starves while others get on.

It looks at a complete graph of states (`product`), proposes a way in and a round, and judges nothing: that is done on
the real code, round after round (`rounds`). A task is *refused* when a request comes to nothing or its time is
up. A kind *spins* if it can come round only by being refused; other loops are work. A round is *fair* if every
task in it moves, or is at some moment unable to (it waits, or has ended): else the round lasts only as long as
the scheduler forgets somebody, and is no finding.

- livelock: a fair round in which only spinning tasks move;
- starvation: a fair round in which some task works, while another waits all the time, or spins.

Bound: linear in the graph, once for each task.

Source: fair cycles by strongly connected components (Emerson and Lei 1987); CHESS's fair search for the filter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias, final

from headway.checker.automata import Automata
from headway.checker.product import Edge, Explored, Move, State

REFUSED = ("none", "PoolTimeout")

Keep: TypeAlias = Callable[[State, Edge], bool]


@final
class Rounds:
    """Proposals of a way in and a round, from the graph of one search."""

    def __init__(self, automata: Automata, explored: Explored) -> None:
        self._automata = automata
        self._graph = explored.graph
        self._way = explored.way
        self._spins = [_spins(automata, kind) for kind in range(len(automata.kinds))]

    def proposed(self) -> Iterator[tuple[list[Move], list[Move]]]:
        """The way in and the round of each kind of finding there may be, livelocks first."""
        for states in self._components(lambda state, edge: self._spins[self._kind(state, edge[0])]):
            if (found := self._walk(states, self._moves_of_spinning)) is not None:
                yield found
        most = max((len(state.tasks) for state in self._graph), default=0)
        for task in range(most):

            def waits(state: State, edge: Edge, task: int = task) -> bool:
                return all(any(task in queue for queue in s.queues) for s in (state, edge[1]))

            for states in self._components(waits):
                if (found := self._walk(states, waits)) is not None and self._works(found[1]):
                    yield found
        for states in self._components(lambda state, edge: True):
            found = self._walk(states, lambda state, edge: True)
            if found is not None and self._works(found[1]) and self._any_spins(found[1]):
                yield found

    def _moves_of_spinning(self, state: State, edge: Edge) -> bool:
        return self._spins[self._kind(state, edge[0])]

    def _kind(self, state: State, move: Move) -> int:
        return state.tasks[move.task - 1][0]

    def _kinds_of(self, moves: list[Move]) -> set[int]:
        tasks = {move.task for move in moves}
        state = next(s for s in self._graph if len(s.tasks) >= max(tasks))
        return {state.tasks[task - 1][0] for task in tasks}

    def _works(self, moves: list[Move]) -> bool:
        return any(not self._spins[kind] for kind in self._kinds_of(moves))

    def _any_spins(self, moves: list[Move]) -> bool:
        return any(self._spins[kind] for kind in self._kinds_of(moves))

    # -- rounds ------------------------------------------------------------------------------------

    def _components(self, keep: Keep) -> Iterator[set[State]]:
        """The strongly connected parts with an edge inside, of the edges that `keep` lets stand."""
        for part in _strong(self._graph, keep):
            if any(keep(s, e) and e[1] in part for s in part for e in self._graph[s]):
                yield part

    def _walk(self, states: set[State], keep: Keep) -> tuple[list[Move], list[Move]] | None:
        """A fair round in a component, with the way to it; None if none is fair."""
        needed: list[Callable[[State, Move | None], bool]] = []
        moving = {
            task
            for state in states
            for edge in self._graph[state]
            if keep(state, edge) and edge[1] in states
            for task in (edge[0].task, *edge[0].served)
        }
        for task in range(1, len(next(iter(states)).tasks) + 1):
            if any(self._is_idle(state, task) for state in states):
                if task not in moving:
                    needed.append(partial(self._rests, task))
            elif task not in moving:
                return None  # it could go on all the time, and nobody lets it
            if task in moving:
                needed.append(partial(_moves, task))
        start = min(states, key=lambda state: len(self._way(state)))
        round_ = self._through(start, states, keep, needed)
        return None if round_ is None else (self._way(start), round_)

    def _rests(self, task: int, state: State, move: Move | None) -> bool:
        return self._is_idle(state, task)

    def _is_idle(self, state: State, task: int) -> bool:
        """Whether a task can do nothing by itself: ended, or waiting without a limit."""
        node = self._automata.nodes[state.tasks[task - 1][1]]
        if node.what[0] == "end":
            return True
        return any(task - 1 in queue for queue in state.queues) and not node.what[3]

    def _through(
        self, start: State, states: set[State], keep: Keep, needed: Iterable[Callable[..., bool]]
    ) -> list[Move] | None:
        """A walk from `start` back to it that meets every need once at least."""
        moves: list[Move] = []
        seen: list[tuple[State, Move | None]] = [(start, None)]
        here = start
        for need in needed:
            if any(need(state, move) for state, move in seen):
                continue
            path = self._path(here, states, keep, need)
            if path is None:
                return None
            moves += [move for move, _ in path]
            seen += [(state, move) for move, state in path]
            here = path[-1][1]
        if here != start or not moves:
            path = self._path(here, states, keep, lambda state, move: move and state == start)
            if path is None:
                return None
            moves += [move for move, _ in path]
        return moves

    def _path(
        self, start: State, states: set[State], keep: Keep, need: Callable[..., object]
    ) -> list[Edge] | None:
        came: dict[State, tuple[State, Edge]] = {}
        todo = deque([start])
        while todo:
            state = todo.popleft()
            for edge in self._graph[state]:
                if edge[1] not in states or not keep(state, edge):
                    continue
                if need(edge[1], edge[0]):
                    path = [edge]
                    while state != start:
                        state, before = came[state]
                        path.append(before)
                    return path[::-1]
                if edge[1] not in came and edge[1] != start:
                    came[edge[1]] = (state, edge)
                    todo.append(edge[1])
        return None


def _moves(task: int, state: State, move: Move | None) -> bool:
    return move is not None and task in (move.task, *move.served)


def _spins(automata: Automata, kind: int) -> bool:
    """Whether a kind of task can come round only by being refused; False if it cannot come round."""
    nodes = automata.nodes
    reached = {automata.kinds[kind].start.number}
    todo = list(reached)
    while todo:
        for target, _ in nodes[todo.pop()].after.values():
            if target.number not in reached:
                reached.add(target.number)
                todo.append(target.number)

    def rounds(results: Callable[[str], bool]) -> bool:
        left = set(reached)
        while True:  # peel off what leads nowhere
            leaves = {
                number
                for number in left
                if not any(
                    results(result) and target.number in left
                    for result, (target, _) in nodes[number].after.items()
                )
            }
            if not leaves:
                return bool(left)
            left -= leaves

    return rounds(lambda result: True) and not rounds(lambda result: result not in REFUSED)


def _strong(graph: dict[State, list[Edge]], keep: Keep) -> Iterator[set[State]]:
    """Strongly connected components (Tarjan), without recursion."""
    index: dict[State, int] = {}
    low: dict[State, int] = {}
    stack: list[State] = []
    on: set[State] = set()
    for root in graph:
        if root in index:
            continue
        work: list[tuple[State, Iterator[Edge]]] = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on.add(root)
        while work:
            state, edges = work[-1]
            for edge in edges:
                after = edge[1]
                if after not in graph or not keep(state, edge):
                    continue
                if after not in index:
                    index[after] = low[after] = len(index)
                    stack.append(after)
                    on.add(after)
                    work.append((after, iter(graph[after])))
                    break
                if after in on:
                    low[state] = min(low[state], index[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[state])
                if low[state] == index[state]:
                    part = set()
                    while True:
                        top = stack.pop()
                        on.discard(top)
                        part.add(top)
                        if top == state:
                            break
                    yield part
