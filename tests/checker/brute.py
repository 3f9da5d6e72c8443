"""The rules of a model and nothing else: every interleaving, every task by itself, every queue, no reductions.

This is what the checker's search is held to. A state is: where each task is, and who waits, in order of
arrival, with the alternative it chose. A verdict is read off the last states alone, where no step is left.
The shortest trace ends where some waiting tasks are stuck: no subset of them can be served though all
others gave back what they hold, save those that ended.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, combinations

from headway.checker.model import Act, Model

State = tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, Act], ...]]


class Brute:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.fifo = model.wake == "fifo"
        self.steps = [a.steps for a in model.actors for _ in range(a.count)]

    def explore(self) -> tuple[str, int | None, int]:
        """The verdict, the number of events of the shortest deadlock, and how many states there are."""
        zero = (0,) * len(self.model.pools)
        first: State = ((0,) * len(self.steps), (zero,) * len(self.steps), ())
        queue, depth = deque([first]), {first: 0}
        verdicts, shortest = set(), None
        while queue:
            state = queue.popleft()
            if shortest is None and self.stuck(state):
                shortest = depth[state]
            later = list(self.next(state))
            if not later:
                verdicts.add(self.verdict(state))
            for after in later:
                if after not in depth:
                    depth[after] = depth[state] + 1
                    queue.append(after)
        verdict = next(v for v in ("deadlock", "leak", "ok") if v in verdicts)
        return verdict, shortest, len(depth)

    def verdict(self, state: State) -> str:
        at, held, waiting = state
        if waiting:
            return "deadlock"
        assert all(a == len(s) for a, s in zip(at, self.steps, strict=True))
        return "leak" if any(map(any, held)) else "ok"

    def next(self, state: State):
        at, held, waiting = state
        asked = dict(waiting)
        for task, steps in enumerate(self.steps):
            if task in asked:
                if not self.fifo and self.fits(held, asked[task]):
                    yield self.grant(state, task, asked[task])
            elif at[task] < len(steps):
                for act in steps[at[task]]:
                    if not act.takes:
                        yield self.served(self.move(state, task, act, -1))
                    elif self.fits(held, act) and not (self.fifo and self.ahead(waiting, act)):
                        yield self.grant(state, task, act)
                    else:
                        yield at, held, (*waiting, (task, act))

    def grant(self, state: State, task: int, act: Act) -> State:
        at, held, waiting = self.move(state, task, act, 1)
        return at, held, tuple(pair for pair in waiting if pair[0] != task)

    def served(self, state: State) -> State:
        """After a return under FIFO: whoever is at the head of all its queues, and fits, has it."""
        if self.fifo:
            for place, (task, act) in enumerate(state[2]):
                if self.fits(state[1], act) and not self.ahead(state[2][:place], act):
                    return self.served(self.grant(state, task, act))
        return state

    def move(self, state: State, task: int, act: Act, sign: int) -> State:
        at, held, waiting = state
        mine = tuple(h + sign * n for h, n in zip(held[task], act.amounts, strict=True))
        return (
            (*at[:task], at[task] + 1, *at[task + 1 :]),
            (*held[:task], mine, *held[task + 1 :]),
            waiting,
        )

    def fits(self, held, act: Act) -> bool:
        out = map(sum, zip(*held, strict=True))
        return all(
            n <= c - o for n, c, o in zip(act.amounts, self.model.capacities, out, strict=True)
        )

    def ahead(self, waiting, act: Act) -> bool:
        return any(a and b for _, w in waiting for a, b in zip(w.amounts, act.amounts, strict=True))

    def stuck(self, state: State) -> bool:
        at, held, waiting = state
        subsets = chain.from_iterable(combinations(waiting, n) for n in range(1, len(waiting) + 1))
        for those in subsets:
            inside = {task for task, _ in those}
            kept = [
                h if task in inside or at[task] == len(self.steps[task]) else (0,) * len(h)
                for task, h in enumerate(held)
            ]
            if all(
                not self.fits(kept, act) or (self.fifo and self.ahead(those[:place], act))
                for place, (_, act) in enumerate(those)
            ):
                return True
        return False
