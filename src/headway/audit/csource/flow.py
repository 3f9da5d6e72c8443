"""The statement graph of a function: who may run after whom, with the tests taken apart.

Decides the order of steps: `&&`, `||` and `!` become branches of their own, loops, switches and
gotos become edges. Nothing about values. One node per simple statement or test, so the graph is
linear in the function.

Source: textbook control-flow construction, backwards from the function's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headway.audit.csource.tree import Expr, Stmt, assignments, calls, updates

__all__ = ["Flow", "Step", "flow"]


@dataclass(slots=True)
class Step:
    """One node. A test goes to ``then`` or ``other``; everything else goes to all of ``then``."""

    kind: str  # do test many return end join
    line: int
    expr: Expr | None = None
    then: list[int] = field(default_factory=list)
    other: int = -1
    _sets: list[Expr] | None = None
    _calls: list[Expr] | None = None
    _updates: list[str] | None = None
    _changes: frozenset[str] | None = None

    def sets(self) -> list[Expr]:
        """Every assignment in this step, inner ones first."""
        if self._sets is None:
            self._sets = assignments(self.expr) if self.expr is not None else []
        return self._sets

    def calls(self) -> list[Expr]:
        """Every call in this step, inner ones first."""
        if self._calls is None:
            self._calls = calls(self.expr)
        return self._calls

    def updates(self) -> list[str]:
        """What ``++`` and ``--`` change in this step."""
        if self._updates is None:
            self._updates = updates(self.expr) if self.expr is not None else []
        return self._updates

    def changes(self) -> frozenset[str]:
        """Every variable that this step changes."""
        if self._changes is None:
            names = [one.args[0].text for one in self.sets()]
            self._changes = frozenset([*names, *self.updates()])
        return self._changes

    def next(self) -> list[int]:
        """All successors."""
        return [*self.then, self.other] if self.other >= 0 else self.then


@dataclass(slots=True)
class Flow:
    """The graph: ``steps`` by number, the first one, and the end."""

    steps: list[Step]
    start: int
    end: int
    _reached: dict[tuple[int, int], frozenset[int]] = field(default_factory=dict)
    _leading: dict[int, frozenset[int]] = field(default_factory=dict)

    def dominates(self, one: int, two: int) -> bool:
        """Whether every way from the start to ``two`` passes ``one``."""
        return one != two and two not in self.reachable(self.start, without=one)

    def reachable(self, first: int, without: int = -1) -> frozenset[int]:
        """Every step that may run from here on, itself included, if step ``without`` never runs."""
        if first == without:
            return frozenset()
        found = self._reached.get((first, without))
        if found is None:
            found = self._reached[first, without] = self._reach(first, without)
        return found

    def leading_to(self, last: int) -> frozenset[int]:
        """Every step after which ``last`` may run, itself included: those that reach it."""
        if last not in self._leading:
            before: list[list[int]] = [[] for _ in self.steps]
            for number, step in enumerate(self.steps):
                for after in step.next():
                    before[after].append(number)
            seen = {last}
            stack = [last]
            while stack:
                for number in before[stack.pop()]:
                    if number not in seen:
                        seen.add(number)
                        stack.append(number)
            self._leading[last] = frozenset(seen)
        return self._leading[last]

    def _reach(self, first: int, without: int) -> frozenset[int]:
        seen = {first, without}
        stack = [first]
        while stack:
            for after in self.steps[stack.pop()].next():
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return frozenset(seen - {without})


_WARNINGS = ("WARN_ON", "WARN_ON_ONCE", "WARN", "WARN_ONCE", "XFS_IS_CORRUPT")  # the test itself


class _Builder:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.labels: dict[str, int] = {}

    def add(self, kind: str, line: int, expr: Expr | None = None, then: int = -1) -> int:
        self.steps.append(Step(kind, line, expr, [then] if then >= 0 else []))
        return len(self.steps) - 1

    def label(self, name: str, line: int) -> int:
        if name not in self.labels:
            self.labels[name] = self.add("join", line)
        return self.labels[name]

    def block(self, body: list[Stmt], after: int, brk: int, cont: int) -> int:
        for stmt in reversed(body):
            after = self.one(stmt, after, brk, cont)
        return after

    def one(self, stmt: Stmt, after: int, brk: int, cont: int) -> int:
        kind = stmt.kind
        if kind == "expr":
            return self.add("do", stmt.line, stmt.expr, after)
        if kind == "if" and stmt.expr is not None:
            yes = self.block(stmt.body, after, brk, cont)
            no = self.block(stmt.orelse, after, brk, cont)
            return self.test(stmt.expr, yes, no)
        if kind in ("while", "do", "for"):
            return self.loop(stmt, after)
        if kind == "switch":
            return self.switch(stmt, after, cont)
        if kind == "return":
            return self.add("return", stmt.line, stmt.expr, self.end)
        if kind == "label":
            self.steps[self.label(stmt.name, stmt.line)].then = [after]
            return self.label(stmt.name, stmt.line)
        if kind == "goto":
            target = self.label(stmt.name, stmt.line) if stmt.name else self.end
            return self.add("join", stmt.line, None, target)
        if kind in ("break", "continue"):
            target = brk if kind == "break" else cont
            return self.add("join", stmt.line, None, target if target >= 0 else self.end)
        return after

    def loop(self, stmt: Stmt, after: int) -> int:
        head = self.add("join", stmt.line)
        again = head
        if stmt.kind == "for" and stmt.step is not None:
            again = self.add("do", stmt.step.line, stmt.step, head)
        if stmt.kind == "do":
            tail = self.add("join", stmt.line)
            body = self.block(stmt.body, tail, after, tail)
            self.steps[head].then = [body]
            test = self.test(stmt.expr, head, after) if stmt.expr is not None else head
            self.steps[tail].then = [test]
            return head
        body = self.block(stmt.body, again, after, again)
        test = self.test(stmt.expr, body, after) if stmt.expr is not None else body
        self.steps[head].then = [test]
        return self.block(stmt.first, head, -1, -1)

    def switch(self, stmt: Stmt, after: int, cont: int) -> int:
        head = self.add("many", stmt.line, stmt.expr)
        cases, has_default, target = [], False, after
        for inner in reversed(stmt.body):
            if inner.kind == "case":
                joint = self.add("join", inner.line, None, target)
                cases.append(joint)
                has_default = has_default or inner.name == "default"
                target = joint
            else:
                target = self.one(inner, target, after, cont)
        self.steps[head].then = cases if has_default else [*cases, after]
        return head

    def test(self, expr: Expr, yes: int, no: int) -> int:
        if expr.kind == "un" and expr.op == "!":
            return self.test(expr.args[0], no, yes)
        if expr.kind == "bin" and expr.op == "&&":
            return self.test(expr.args[0], self.test(expr.args[1], yes, no), no)
        if expr.kind == "bin" and expr.op == "||":
            return self.test(expr.args[0], yes, self.test(expr.args[1], yes, no))
        if expr.kind == "call" and expr.op in _WARNINGS and expr.args:
            return self.test(expr.args[0], yes, no)
        if expr.text in ("1", "true"):
            return yes
        if expr.text in ("0", "false"):
            return no
        at = self.add("test", expr.line, expr, yes)
        self.steps[at].other = no
        return at

    end = -1


def flow(body: list[Stmt], end_line: int) -> Flow:
    """The graph of a function's body."""
    builder = _Builder()
    builder.end = builder.add("end", end_line)
    fall = builder.add("return", end_line, None, builder.end)
    start = builder.block(body, fall, -1, -1)
    for step in builder.steps:
        if step.kind == "join" and not step.then:
            step.then = [builder.end]  # a goto to a label of another function, or behind a macro
    return Flow(builder.steps, start, builder.end)
