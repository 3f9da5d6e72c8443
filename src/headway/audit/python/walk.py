"""One function, statement by statement: what is held where, on the paths that meet.

Decides the order of events and the extent of a `with`; what an expression does is `uses`'. Loops are
walked once, branches one after the other from the same start, handlers from the start of their `try`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from headway.audit.python import names
from headway.audit.python.arguments import may_wait, says_timeout
from headway.audit.python.facts import Held, Pool
from headway.audit.python.shapes import BOUNDS, Kind
from headway.audit.python.track import Open
from headway.audit.python.uses import DEADLINES, Setting, Uses
from headway.audit.python.values import Element, Futures, Instance

_STACKS = frozenset({"enter_context", "enter_async_context", "push", "push_async_exit"})
_CLOSERS = frozenset({"contextlib.closing", "contextlib.aclosing"})
_WAITING = (ast.Await, ast.AsyncFor, ast.AsyncWith)


class Walk(Uses):
    """Walks one function body; the function's record is filled on the way."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.inner: list[names.Scope] = []  # functions and classes defined inside

    def run(self, body: Sequence[ast.stmt]) -> None:
        if self.block(body):
            self.track.leave(body[-1].end_lineno or body[-1].lineno, "end")
        self.track.finish()
        function = self.at.function
        function.losses = self.track.losses
        for index, use in enumerate(function.uses):
            if use.place in function.looked:  # who looks first does not wait, or means to
                function.uses[index] = replace(use, waits=False)

    def block(self, body: Sequence[ast.stmt]) -> bool:
        """Whether its end is reached."""
        return all(self.statement(each) for each in body)

    def statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.inner.append(node)
            case ast.With() | ast.AsyncWith():
                return self._with(node)
            case ast.If():
                return self._if(node)
            case ast.For() | ast.AsyncFor():
                self._loop(node)
            case ast.While():
                return self._while(node)
            case ast.Try() | ast.TryStar():
                return self._try(node)
            case ast.Match():
                return self._branches(node.subject, [case.body for case in node.cases], None)
            case ast.Return():
                self._return(node)
                return False
            case ast.Raise():
                for child in ast.iter_child_nodes(node):
                    self.expression(child)
                self.track.risk(node.lineno)
                self.track.leave(node.lineno, "raise")
                return False
            case ast.Break() | ast.Continue():
                return False
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                self._assign(node)
            case ast.Expr():
                self._expression_statement(node)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.expression(child)
        return True

    # --- statements that take, hand on or leave

    def _expression_statement(self, node: ast.Expr) -> None:
        if self._entered(node.value):
            return
        taken = self.taking(node.value)
        inside = node.value.value if isinstance(node.value, ast.Await) else node.value
        if taken is not None and isinstance(inside, ast.Call):
            if taken.kind is not Kind.POOL or isinstance(self.value(inside), Element):
                self.track.take(taken)

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        if node.value is None:
            return
        goals = node.targets if isinstance(node, ast.Assign) else [node.target]
        taken = None if self._entered(node.value) else self.taking(node.value)
        found = self.at.reader.value(node.value, self.at.env, self.at.own, self.at.owner)
        for goal in goals:
            if isinstance(goal, ast.Name):
                value = found
                if isinstance(found, Pool) and not found.place:
                    place = f"l|{self.at.function.ref}.{goal.id}"
                    if goal.id not in self.at.own:
                        place = f"g|{self.at.reader.module}.{goal.id}"
                    value = replace(found, place=place, label=goal.id)
                    self.at.pools[place] = value
                self._rebind(goal.id, node.value)
                self.at.env[goal.id] = None if isinstance(node, ast.AugAssign) else value
            else:
                self.expression(goal)
                for name in names.targets(goal):
                    self.at.env[name] = None
                self._stored(node.value)
        if taken is not None and len(goals) == 1 and isinstance(goals[0], ast.Name):
            if isinstance(found, Element):
                taken.element = goals[0].id
                self.track.take(taken)

    def _rebind(self, name: str, value: ast.expr) -> None:
        """The element moves to another variable, or its variable is lost."""
        if not any(each.element for each in self.track.opens):
            return
        if isinstance(value, ast.Name):
            for each in self.track.by_element(value.id):
                each.escaped = True
        elif not any(isinstance(c, ast.Name) and c.id == name for c in ast.walk(value)):
            for each in self.track.by_element(name):
                each.escaped = True

    def _stored(self, value: ast.expr) -> None:
        """Kept in an object: whoever owns that gives it back."""
        if not any(each.element for each in self.track.opens):
            return
        for child in ast.walk(value):
            if isinstance(child, ast.Name):
                for each in self.track.by_element(child.id):
                    self.track.drop(each)

    def _return(self, node: ast.Return) -> None:
        if node.value is not None:
            lease = self._lease(node.value)
            if lease is not None:
                held = Held(lease.place, node.lineno)
                self.at.function.leased = (*self.at.function.leased, held)
            self.expression(node.value)
            self._stored(node.value)
        self.track.leave(node.lineno, "return")

    def _entered(self, node: ast.expr) -> bool:
        """`stack.enter_context(pool.lease())`: held until the stack ends."""
        inside = node.value if isinstance(node, ast.Await) else node
        if not isinstance(inside, ast.Call) or not isinstance(inside.func, ast.Attribute):
            return False
        if inside.func.attr not in _STACKS or len(inside.args) != 1:
            return False
        stack = inside.func.value
        owner = stack.id if isinstance(stack, ast.Name) else "?"
        before = len(self.track.opens)
        self._enter(inside.args[0], "", [], isinstance(node, ast.Await))
        for each in self.track.opens[before:]:
            each.owner = owner
        return True

    # --- with

    def _lease(self, node: ast.expr) -> Pool | None:
        """The pool of which `with node` holds an element."""
        if isinstance(node, ast.Await):
            node = node.value
        if not isinstance(node, ast.Call):
            pool = self.pool(node)
            return pool if pool is not None and pool.shape.itself else None
        if isinstance(node.func, ast.Attribute):
            pool = self.pool(node.func.value)
            if pool is not None and node.func.attr in pool.shape.leases | pool.shape.takes:
                return pool if node.func.attr in pool.shape.leases else None
        pool = self.pool(node.func)
        if pool is not None:
            return pool if "()" in pool.shape.leases else None
        pool = self.pool(node)
        return pool if pool is not None and pool.shape.entered else None

    def _enter(
        self, node: ast.expr, name: str, body: Sequence[ast.stmt], is_async: bool
    ) -> Open | None:
        """One item of a `with`: what it holds from here."""
        pool = self._lease(node)
        if pool is not None:
            text = ast.unparse(node)
            if isinstance(node, ast.Call):
                for part in (*node.args, *node.keywords):
                    self.expression(part)
            timed = pool.shape.timed or self.at.deadlines > 0
            if isinstance(node, ast.Call):
                timed = timed or _bounded(node)
            waits = not isinstance(node, ast.Call) or may_wait(node, -1, pool)
            text = self.note(pool, node, waits, timed, _spans(body))
            fresh = Open(pool.place, pool.kind, node.lineno, text, managed=True, element=name)
            self.track.opens.append(fresh)
            if name:
                self.at.env[name] = Element(pool)
            return fresh
        if isinstance(node, ast.Call):
            if self.path(node.func) in _CLOSERS and node.args:
                node = node.args[0]
            target, same = self.target(node.func) if isinstance(node, ast.Call) else ("", False)
            self.entering = node
            self.expression(node, awaited=is_async)
            self.entering = None
            if target and (same or "." in target):
                fresh = Open(f"@{target}", None, node.lineno, "", managed=True)
                self.track.opens.append(fresh)
                return fresh
        elif not isinstance(node, ast.Name):
            self.expression(node)
        else:
            for each in self.track.by_element(node.id):
                each.managed = True
        return None

    def _with(self, node: ast.With | ast.AsyncWith) -> bool:
        before = list(self.track.opens)
        deadlines = self.at.deadlines
        for item in node.items:
            goal = item.optional_vars
            name = goal.id if isinstance(goal, ast.Name) else ""
            source = item.context_expr
            if isinstance(source, ast.Call) and self.path(source.func) in DEADLINES:
                self.at.deadlines += 1
                continue
            taken = self._entering(source, name, node)
            if taken is not None:  # `with closing(pool.getconn())`, `with pool.getconn()`
                taken.managed = True
                self.track.take(taken)
            elif name:
                self._bind_made(name, source)
        reached = self.block(node.body)
        self.at.deadlines = deadlines
        entered = {item.optional_vars.id for item in node.items
                   if isinstance(item.optional_vars, ast.Name)}  # fmt: skip
        for each in list(self.track.opens):
            if each.managed and not each.owner and each not in before:
                self.track.drop(each)
            elif each.owner and each.owner in entered:
                self.track.drop(each)
        for each in before:
            if each.managed and each.element and any(_is_name(i, each.element) for i in node.items):
                self.track.drop(each)
        return reached

    def _entering(self, source: ast.expr, name: str, node: ast.With | ast.AsyncWith) -> Open | None:
        """Enter one item; what a plain call in it took, if any did."""
        self.taken = None
        self._enter(source, name, node.body, isinstance(node, ast.AsyncWith))
        return self.taken

    def _bind_made(self, name: str, source: ast.expr) -> None:
        """`with ThreadPoolExecutor() as workers`, `with pool.session() as it`."""
        found = self.at.reader.value(source, self.at.env, self.at.own, self.at.owner)
        if isinstance(found, Element) or (name in self.at.env and found is None):
            self.at.env.setdefault(name, None)
            return
        if isinstance(found, Pool) and not found.place:
            found = replace(found, place=f"l|{self.at.function.ref}.{name}", label=name)
            self.at.pools[found.place] = found
        self.at.env[name] = found if isinstance(found, Pool | Instance | Futures) else None

    # --- branches and loops

    def _if(self, node: ast.If) -> bool:
        test = node.test
        refused = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        got = self.taking(test)
        self.at.tests.append(test)
        start = list(self.track.opens)
        if got is not None and not refused:
            self.track.take(got)
        first = self.block(node.body)
        after_first = self.track.opens
        self.track.opens = list(start)
        if got is not None and refused:
            self.track.take(got)
        second = self.block(node.orelse)
        self.at.tests.pop()
        if not first and not node.orelse and self._is_there(test):
            self.at.guarded = True
        paths = [p for p, ends in ((after_first, first), (self.track.opens, second)) if ends]
        if not paths:
            return False
        self.track.merge(paths)
        return True

    def _is_there(self, test: ast.expr) -> bool:
        """`self.it` or `CACHE is not None`: the first half of a double-checked lock."""
        match test:
            case ast.Compare(left=left, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
                test = left
        if isinstance(test, ast.Attribute):
            return True
        return isinstance(test, ast.Name) and test.id not in self.at.function.parameters

    def _branches(
        self, test: ast.expr, bodies: list[list[ast.stmt]], last: list[ast.stmt] | None
    ) -> bool:
        self.expression(test)
        start = list(self.track.opens)
        paths = [start] if last is None else []
        for body in bodies:
            self.track.opens = list(start)
            if self.block(body):
                paths.append(self.track.opens)
        self.track.merge(paths)
        return True

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        self.iterate(node.iter, node.target)
        self._round(node.body)
        self.block(node.orelse)

    def _while(self, node: ast.While) -> bool:
        self.expression(node.test)
        self._round(node.body)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        if endless and not any(isinstance(each, ast.Break) for each in names.inner(node)):
            return False
        return self.block(node.orelse)

    def _round(self, body: list[ast.stmt]) -> None:
        start = list(self.track.opens)
        self.at.loops += 1
        reached = self.block(body)
        self.at.loops -= 1
        held = self.track.opens if reached else start
        self.track.opens = [each for each in start if each in held]

    # --- try

    def _try(self, node: ast.Try | ast.TryStar) -> bool:
        cleaning = [*node.finalbody, *(each for h in node.handlers for each in h.body)]
        guard = self._gives(cleaning)
        self.track.protect(guard)
        start = list(self.track.opens)
        reached = self.block(node.body) and self.block(node.orelse)
        paths = [self.track.opens] if reached else []
        for handler in node.handlers:
            self.track.opens = list(start)
            if handler.name:
                self.at.env[handler.name] = None
            if self.block(handler.body):
                paths.append(self.track.opens)
        self.track.guards.pop()
        if paths:
            self.track.merge(paths)
        else:
            self.track.opens = list(start)
        return self.block(node.finalbody) and bool(paths)

    def _gives(self, body: Sequence[ast.stmt]) -> frozenset[str]:
        """Places and variables that this code gives back, or hands to something that may."""
        found: set[str] = set()
        for statement in body:
            for child in ast.walk(statement):
                if not isinstance(child, ast.Call):
                    continue
                found.update(arg.id for arg in child.args if isinstance(arg, ast.Name))
                if isinstance(child.func, ast.Attribute):
                    if isinstance(child.func.value, ast.Name):
                        found.add(child.func.value.id)
                    pool = self.pool(child.func.value)
                    if pool is not None and child.func.attr in pool.shape.gives:
                        found.add(pool.place)
        return frozenset(found)


def _is_name(item: ast.withitem, name: str) -> bool:
    source = item.context_expr
    return isinstance(source, ast.Name) and source.id == name


def _spans(body: Sequence[ast.stmt]) -> bool:
    """Whether the body gives other tasks a turn."""
    return any(
        isinstance(each, _WAITING) or any(isinstance(n, _WAITING) for n in names.inner(each))
        for each in body
    )


def _bounded(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    return says_timeout(node, BOUNDS.get(name, (-1, -1))[1])
