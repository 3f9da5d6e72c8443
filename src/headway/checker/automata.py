"""Every way a task can go: an automaton for each kind of task, learned from the real code by answering it in turn.

It does not search over tasks (`product`). A node is an operation about to be done, an edge one of its results; the
code is run from its start for each path that is new. Where the code comes to a place it has been at before, with
the same in its hands (`folding`), the path ends there: so a loop becomes a cycle. Before that is believed, the
code is run on a little, and must do what the automaton says.

Bound: `_MOST_NODES` for a kind, `_MOST_PATH` operations for a path; beyond, `NotPlain`.

Source: learning by queries (Angluin 1987), with the code itself as the one who answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, final

from headway.checker.facts import PoolFacts
from headway.checker.folding import place
from headway.checker.learn import Enough, NotPlain, Probe
from headway.checker.shared import is_plain
from headway.checker.trial import Settings

What: TypeAlias = tuple[Any, ...]
Answers: TypeAlias = tuple[str, ...]

_MOST_NODES = 600
_MOST_PATH = 300
_LOOK = 4  # operations that are compared after a fold


@final
@dataclass(slots=True, eq=False)
class Node:
    """About to do `what`: ``("take", pool, n, how)``, ``("give", pool, n)``, or ``("end", error or None)``."""

    number: int
    what: What
    held: tuple[int, ...]
    after: dict[str, tuple[Node, tuple[int, ...]]] = field(
        default_factory=dict
    )  # with kinds started


@final
@dataclass(slots=True)
class Kind:
    """One kind of task: where it begins, and which kinds it starts before its first operation."""

    name: str
    is_async: bool
    start: Node
    children: tuple[int, ...]


@final
@dataclass(slots=True)
class Automata:
    """All kinds of a program, the function itself first; and its pools."""

    kinds: list[Kind]
    pools: list[PoolFacts]
    nodes: list[Node]
    runs: int
    notes: list[str]

    @property
    def has_loops(self) -> bool:
        """Whether some task can come round again."""
        done: set[int] = set()
        for kind in self.kinds:
            if _cyclic(kind.start, done, set()):
                return True
        return False


def _cyclic(start: Node, done: set[int], path: set[int]) -> bool:
    stack: list[tuple[Node, bool]] = [(start, False)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            path.discard(node.number)
            done.add(node.number)
            continue
        if node.number in path:
            continue
        path.add(node.number)
        stack.append((node, True))
        for target, _ in node.after.values():
            if target.number in path:
                return True
            if target.number not in done:
                stack.append((target, False))
    return False


@final
class _Path:
    """One run: the tasks that lead to the one in question, each answered as before; then that one."""

    def __init__(
        self, chain: tuple[tuple[int, Answers], ...], number: int, answers: Answers
    ) -> None:
        self._chain = dict(chain)
        self._number = number
        self._answers = answers
        self._done: dict[int, int] = {}
        self.steps: list[tuple[What, Any, tuple[int, ...], str]] = []  # what, place, held, result
        self.stop: Callable[[], bool] = lambda: False

    def runs(self, number: int) -> bool:
        return number == self._number or number in self._chain

    def meets(self, probe: Probe, number: int, what: What) -> str:
        at = self._done.get(number, 0)
        self._done[number] = at + 1
        if number != self._number:
            if at >= len(self._chain[number]):
                raise Enough
            return self._chain[number][at]
        held = probe.ledger.locals[number - 1].held
        has = tuple(held[pool] for pool in range(len(probe.pools)))
        here = place(Probe._run, lambda value: _name(probe, number, value))
        result = self._answers[at] if at < len(self._answers) else results(what)[0]
        self.steps.append((what, here, has, result))
        if len(self.steps) > _MOST_PATH:
            probe.refuse(f"a task does {_MOST_PATH} operations and is never where it was before")
        if at >= len(self._answers) and self.stop():
            raise Enough
        return result


def results(what: What, cancels: bool = False) -> tuple[str, ...]:
    """How an operation may end, the best first."""
    if what[0] == "give":
        return ("done",)
    found = ("granted", what[3]) if what[3] else ("granted",)
    return (*found, "Cancelled") if cancels else found


def _name(probe: Probe, number: int, value: Any) -> Any:
    """Words for a pool, or for an element that the task holds."""
    for index, facts in enumerate(probe.pools):
        if value is facts.pool or getattr(value, "pool", None) is facts.pool:
            return ("pool", index, type(value))
        if getattr(value, "__self__", None) is facts.pool:
            return ("pool", index, value.__name__)
        if number in probe.ledger.holders(index, value):
            return ("unit", index, value if is_plain(value) else None)
    return None


def automata(program: Callable[[], Any], settings: Settings, cancels: bool = False) -> Automata:
    """Learn all kinds of tasks of a program; `cancels` lets asynchronous tasks be cancelled where they wait.

    Raises: NotPlain if it cannot be learned this way.
    """
    learner = _Learner(program, settings, cancels)
    return learner.all()


@final
class _Learner:
    def __init__(self, program: Callable[[], Any], settings: Settings, cancels: bool) -> None:
        self._program = program
        self._settings = settings
        self.cancels = cancels
        self._identities: dict[Any, int] = {}
        self._todo: list[tuple[tuple[tuple[int, Answers], ...], int]] = []
        self._found = Automata([], [], [], 0, [])

    def all(self) -> Automata:
        found = self._found
        self._todo.append(((), 1))
        while self._todo:
            chain, number = self._todo.pop(0)
            _OneKind(self, chain, number).learn()
        _merge(found)
        return found

    def run(self, path: _Path, mirrored: bool = False) -> Probe:
        found = self._found
        found.runs += 1
        probe = Probe(replace(self._settings, mirrored=mirrored), path)
        probe.learn(self._program)
        found.pools = found.pools or probe.pools
        found.notes += [note for note in probe.notes if note not in found.notes]
        return probe

    def node(self, what: What, held: tuple[int, ...]) -> Node:
        nodes = self._found.nodes
        if len(nodes) > _MOST_NODES:
            raise NotPlain(f"its tasks have more than {_MOST_NODES} local states")
        nodes.append(Node(len(nodes), what, held))
        return nodes[-1]

    def kind_of(self, probe: Probe, number: int, chain: tuple[tuple[int, Answers], ...]) -> int:
        """The kind of a task just started; one that is new is learned later."""
        identity = probe.ledger.locals[number - 1].identity
        if identity not in self._identities:
            self._identities[identity] = len(self._identities) + 1
            self._todo.append((chain, number))
        return self._identities[identity]


def _merge(found: Automata) -> None:
    """Make one node of all that do the same now and for ever after: the coarsest partition that stands."""
    classes = {node.number: 0 for node in found.nodes}
    found_in: dict[int, int] = {}
    count = 0
    while True:
        looks: dict[Any, int] = {}
        for node in found.nodes:
            after = tuple(
                (r, classes[t.number], c)
                for r, (t, c) in sorted(node.after.items(), key=lambda pair: pair[0])
            )
            look = (classes[node.number], node.what, node.held, after)
            found_in[node.number] = looks.setdefault(look, len(looks))
        classes, found_in = found_in, {}
        if len(looks) == count:
            break
        count = len(looks)
    chosen: dict[int, Node] = {}
    for node in found.nodes:
        chosen.setdefault(classes[node.number], node)
    for node in found.nodes:
        node.after = {r: (chosen[classes[t.number]], c) for r, (t, c) in node.after.items()}
    for kind in found.kinds:
        kind.start = chosen[classes[kind.start.number]]


@final
class _OneKind:
    """The automaton of one kind of task, path by path."""

    def __init__(self, learner: _Learner, chain: Any, number: int) -> None:
        self._learner = learner
        self._chain = chain
        self._number = number
        self._nodes: dict[Any, Node] = {}
        self._kind: Kind | None = None
        self._expected: list[What] = []
        self._differs = False
        self._usual: list[What] = []  # the first path

    def learn(self) -> None:
        todo: list[Answers] = [()]
        while todo:
            todo += self._follow(todo.pop())
        path = _Path(self._chain, self._number, ())
        path.stop = lambda: len(path.steps) >= len(self._usual)
        self._learner.run(path, mirrored=True)
        if [step[0] for step in path.steps][: len(self._usual)] != self._usual:
            raise NotPlain("with other elements a task does something else, or it goes by chance")

    def _follow(self, answers: Answers) -> list[Answers]:
        """Run one path and enter what is new; the other ways its new operations may end."""
        path = _Path(self._chain, self._number, answers)
        fold: list[int] = []  # the place in the path where it came to a known node
        path.stop = lambda: self._is_known(path.steps, fold)
        probe = self._learner.run(path)
        if self._differs:
            raise NotPlain("a loop does not do the same each time it comes round")
        self._usual = self._usual or [step[0] for step in path.steps]
        if self._number not in probe.functions:
            raise NotPlain("it does not start the same tasks each time it is run")
        learned = probe.tasks[self._number - 1]
        if self._kind is None:
            self._begin(probe, learned)
        assert self._kind is not None
        steps = path.steps[: fold[0] + 1] if fold else path.steps
        others: list[Answers] = []
        told = tuple(step[3] for step in steps)
        before: tuple[Node, str] | None = None
        for at, (what, here, held, result) in enumerate(steps):
            key = (what, here, held) if here is not None else (what, told[:at])
            node = self._nodes.get(key)
            if node is None:
                node = self._nodes[key] = self._learner.node(what, held)
                ways = results(what, self._learner.cancels and self._kind.is_async)
                others += [(*told[:at], way) for way in ways if way != result]
            self._link(probe, learned, before, node, at, told)
            before = (node, result)
        if not fold:
            end = self._ended(probe)
            self._link(probe, learned, before, end, len(steps), told)
        return others

    def _begin(self, probe: Probe, learned: Any) -> None:
        name = learned.local.identity[0]
        children = self._children(probe, learned, 0, ())
        fn = probe.functions[self._number]
        start = self._learner.node(("start",), (0,) * len(probe.pools))
        self._kind = Kind(name, inspect.iscoroutinefunction(fn), start, children)
        self._learner._found.kinds.append(self._kind)

    def _link(
        self, probe: Probe, learned: Any, before: Any, node: Node, at: int, told: Answers
    ) -> None:
        if before is None:
            assert self._kind is not None
            self._kind.start = node
            return
        source, result = before
        children = self._children(probe, learned, at, told[:at])
        known = source.after.get(result)
        if known is not None and known != (node, children):
            raise NotPlain(f"{learned.local.identity[0]} does not do the same each time it is run")
        source.after[result] = (node, children)

    def _children(self, probe: Probe, learned: Any, at: int, told: Answers) -> tuple[int, ...]:
        """The kinds of the tasks started right after operation number `at`."""
        chain = (*self._chain, (self._number, told))
        return tuple(
            self._learner.kind_of(probe, number, chain)
            for done, number in learned.started
            if done == at
        )

    def _ended(self, probe: Probe) -> Node:
        error = probe.outcomes.get(self._number)
        held = probe.ledger.locals[self._number - 1].held
        has = tuple(held[pool] for pool in range(len(probe.pools)))
        said = None if error is None else type(error).__name__
        key = ("end", said, has)
        if key not in self._nodes:
            self._nodes[key] = self._learner.node(("end", said), has)
        return self._nodes[key]

    def _is_known(self, steps: list[Any], fold: list[int]) -> bool:
        """Whether the path came to a node that is there, and did what that says for a little while."""
        what, here, held, _ = steps[-1]
        if not fold:
            if here is None or (what, here, held) not in self._nodes:
                earlier = [step[:3] for step in steps[:-1]]
                if here is None or (what, here, held) not in earlier:
                    return False
                self._expected = [s[0] for s in steps[earlier.index((what, here, held)) :]][:-1]
            else:
                self._expected = []
                node = self._nodes[what, here, held]
                while len(self._expected) < _LOOK and node.what[0] != "end":
                    self._expected.append(node.what)
                    following = node.after.get(results(node.what)[0])
                    if following is None:
                        break
                    node = following[0]
            fold.append(len(steps) - 1)
        since = len(steps) - 1 - fold[0]
        if since < len(self._expected) and self._expected[since] != what:
            self._differs = True
        return since >= min(_LOOK, len(self._expected))
