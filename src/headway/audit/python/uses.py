"""What one expression does with pools: takes, waits, gives back, submits, calls.

Decides for each call whether it waits and whether the wait has an end, from its arguments and from the
deadline around it. What is held meanwhile is `track`'s; the order of statements is `walk`'s.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field

from headway.audit.python.arguments import may_wait, name_of, says_timeout, tested, text_of
from headway.audit.python.facts import Call, Function, Held, Pool, Root, Submit, Use
from headway.audit.python.shapes import BOUNDS, Kind
from headway.audit.python.track import Open, Track
from headway.audit.python.values import Element, Env, Futures, Instance, Reader

TOGETHER = frozenset(
    {"asyncio.gather", "asyncio.wait", "asyncio.shield", "asyncio.wait_for", "asyncio.run"}
)
DEADLINES = frozenset(
    {
        "asyncio.timeout", "asyncio.timeout_at", "async_timeout.timeout", "anyio.fail_after",
        "anyio.move_on_after", "trio.fail_after", "trio.move_on_after", "trio.fail_at", "trio.move_on_at",
    }
)  # fmt: skip
_STANDARD = sys.stdlib_module_names
_GATHERERS = frozenset({"concurrent.futures.as_completed", "concurrent.futures.wait"})
_CONSUMERS = frozenset(
    {"list", "tuple", "sum", "sorted", "set", "dict", "max", "min", "any", "all"}
)
# Methods that raise only when memory is out, or when their caller has gone wrong already.
_SAFE = frozenset({"append", "appendleft", "is_set", "locked", "notify", "notify_all", "notifyAll"})
_MOVES = frozenset({"hand_over", "transfer"})
_LOOKS = frozenset({"empty", "qsize", "full"})
_COLLECT = frozenset({"append", "add", "appendleft", "insert"})


@dataclass(slots=True)
class Setting:
    """Where the expressions stand."""

    reader: Reader
    function: Function
    owner: str  # the class, in a method
    own: frozenset[str]
    env: Env
    nested: dict[str, str]  # functions defined inside, by name
    pools: dict[str, Pool]
    roots: list[Root]
    puts: dict[str, list[tuple[int, bool]]]
    tests: list[ast.expr] = field(default_factory=list)  # of the branches around
    loops: int = 0
    deadlines: int = 0
    guarded: bool = False  # from here on: `if self.it is not None: return` came before


class Uses:
    """Reads expressions, and notes what they do."""

    def __init__(self, setting: Setting) -> None:
        self.at = setting
        self.track = Track()
        self.taken: Open | None = None  # the last plain take of the statement
        self.entering: ast.expr | None = None  # the call whose result a `with` enters

    # --- values

    def value(self, node: ast.expr) -> object:
        at = self.at
        found = at.reader.value(node, at.env, at.own, at.owner)
        if isinstance(found, Pool) and found.place:
            at.pools.setdefault(found.place, found)
        return found

    def pool(self, node: ast.expr) -> Pool | None:
        found = self.value(node)
        return found if isinstance(found, Pool) and found.place else None

    def path(self, node: ast.expr) -> str:
        return self.at.reader.dotted(node, self.at.own)

    # --- expressions

    def taking(self, node: ast.expr) -> Open | None:
        """Evaluate it; the element that it took and leaves to the statement."""
        self.taken = None
        self.expression(node)
        return self.taken

    def expression(self, node: ast.AST, awaited: bool = False, timed: bool = False) -> None:
        """Everything in it, inside first."""
        while type(node) is ast.Attribute:  # the commonest nodes first: this is the hot loop
            node = node.value
        if type(node) is ast.Name or type(node) is ast.Constant:
            return
        match node:
            case ast.Await(value=inside):
                self.expression(inside, awaited=True, timed=timed)
            case ast.Call():
                self._call(node, awaited, timed)
            case ast.Lambda():
                return
            case ast.Yield() | ast.YieldFrom():
                for child in ast.iter_child_nodes(node):
                    self.expression(child)
                self._yield(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node, awaited, timed)
            case ast.NamedExpr(target=target, value=inside):
                self.expression(inside)
                self.at.env[target.id] = self.at.reader.value(
                    inside, self.at.env, self.at.own, self.at.owner
                )
            case ast.Starred(value=inside) | ast.keyword(value=inside):
                self.expression(inside, awaited, timed)
            case ast.List() | ast.Tuple():
                for child in node.elts:
                    self.expression(child, awaited, timed)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.expression(child)

    def _yield(self, node: ast.Yield | ast.YieldFrom) -> None:
        held = self.track.held()
        if self.at.function.yields is None or len(held) > len(self.at.function.yields):
            self.at.function.yields = held
        if node.value is not None:
            self.lend(node.value)
        self.track.risk(node.lineno)

    def _comprehension(
        self,
        node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
        awaited: bool,
        timed: bool,
    ) -> None:
        self.at.loops += 1
        for part in node.generators:
            self.iterate(part.iter, part.target)
            for test in part.ifs:
                self.expression(test)
        each = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for one in each:
            self.expression(one, awaited, timed)
            inside = one.value if isinstance(one, ast.Await) else one
            if isinstance(inside, ast.Call) and isinstance(self.value(inside), Element):
                self.collected(inside.lineno)
        self.at.loops -= 1

    def iterate(self, source: ast.expr, target: ast.expr) -> None:
        """A loop over `source`: results arrive one by one, or futures are handed out."""
        self.expression(source)
        found = self.value(source)
        if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute):
            if isinstance(found, Futures) and source.func.attr == "map":
                self._wait(found.place, source, timed=says_timeout(source, -1))
                found = None
        if isinstance(source, ast.Call) and self.path(source.func) in _GATHERERS and source.args:
            found = None  # each of them is done
        if isinstance(target, ast.Name):
            self.at.env[target.id] = found if isinstance(found, Futures) else None

    # --- calls

    def _call(self, node: ast.Call, awaited: bool, timed: bool) -> None:
        path = self.path(node.func)
        together = path in TOGETHER
        bounded = timed or (path == "asyncio.wait_for" and says_timeout(node, 1))
        if isinstance(node.func, ast.Attribute):
            self.expression(node.func.value)
        elif not isinstance(node.func, ast.Name):
            self.expression(node.func)
        for part in (*node.args, *node.keywords):
            self.expression(part, awaited=together, timed=bounded)
        self._lend_arguments(node)
        if not self._on_value(node, awaited, timed) and not self._special(node, path):
            self._project(node, path, awaited, timed)
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in _SAFE:
            self.track.risk(node.lineno)

    def _on_value(self, node: ast.Call, awaited: bool, timed: bool) -> bool:
        """A method of a pool, an element or a future; whether it was one."""
        if not isinstance(node.func, ast.Attribute):
            pool = self.pool(node.func)
            if pool is None or "()" not in pool.shape.takes:
                return False
            self.took(pool, node, timed)
            return True
        name = node.func.attr
        found = self.value(node.func.value)
        if isinstance(found, Pool) and found.place:
            self._method(found, name, node, awaited, timed)
            return True
        if isinstance(found, Element):
            if name in found.pool.shape.returns and isinstance(node.func.value, ast.Name):
                self.track.give(found.pool.place, node.func.value.id)
            return False
        if isinstance(found, Futures) and name in ("result", "exception"):
            self._wait(found.place, node, timed or says_timeout(node, 0))
            return True
        return False

    def _method(self, pool: Pool, name: str, node: ast.Call, awaited: bool, timed: bool) -> None:
        shape = pool.shape
        if name in shape.gives:
            element = node.args[0].id if node.args and isinstance(node.args[0], ast.Name) else ""
            self.track.give(pool.place, element, moved=name in _MOVES)
            return
        if pool.kind is Kind.EXECUTOR:
            if name in ("submit", "map") and node.args:
                self._submit(pool, node.args[0], node.lineno)
            return
        if pool.kind is Kind.EVENT and name == "set":
            self.at.function.ends.append((pool.place, self.track.held()))
        if pool.kind is Kind.QUEUE and name in ("put", "put_nowait"):
            self.at.function.ends.append((pool.place, self.track.held()))
            self.at.puts.setdefault(pool.place, []).append((node.lineno, self.at.loops > 0))
            if not pool.bounded:
                return
        if pool.kind is Kind.QUEUE and name in _LOOKS:
            self.at.function.looked.add(pool.place)
        if shape.awaits and not awaited:
            return
        if name in shape.takes:
            self.took(pool, node, timed)
        elif name in shape.waits:
            self._wait(pool.place, node, timed or self._bounded(pool, name, node))

    def _bounded(self, pool: Pool, name: str, node: ast.Call) -> bool:
        return pool.shape.timed or says_timeout(node, BOUNDS.get(name, (-1, -1))[1])

    def took(self, pool: Pool, node: ast.Call, timed: bool) -> Open | None:
        """A take by a plain call; it is held from here on only if the statement keeps it."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else "()"
        waits = may_wait(node, BOUNDS.get(name, (-1, -1))[0], pool)
        timed = timed or self._bounded(pool, name, node) or self.at.deadlines > 0
        text = self.note(pool, node, waits, timed)
        if not waits:
            return None
        fresh = Open(pool.place, pool.kind, node.lineno, text, managed=False)
        self.taken = fresh
        return fresh

    def note(
        self, pool: Pool, node: ast.expr, waits: bool, timed: bool, spans: bool = False
    ) -> str:
        """Record a take of this pool."""
        text = text_of(node)
        self.at.pools.setdefault(pool.place, pool)
        self.at.function.uses.append(
            Use(
                pool.place, node.lineno, text, self.track.held(), True, waits, timed,
                spans=spans, tests=self._tests(), restores=pool.place in self.track.returned,
                guarded=self.at.guarded,
            )
        )  # fmt: skip
        return text

    def _tests(self) -> tuple[str, ...]:
        parameters = self.at.function.parameters
        return tuple(word for test in self.at.tests for word in tested(test, parameters))

    def collected(self, line: int) -> None:
        """What was taken in this line of a loop is kept beyond its round."""
        uses = self.at.function.uses
        for index, use in enumerate(uses):
            if use.line == line and use.takes and use.waits and not use.loop and self.at.loops:
                uses[index] = Use(
                    use.place, use.line, use.text, use.held, True, True, use.timed,
                    loop=True, tests=use.tests,
                )  # fmt: skip

    def _wait(self, place: str, node: ast.Call, timed: bool) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        waits = may_wait(node, BOUNDS.get(name, (-1, -1))[0])
        held: tuple[Held, ...] = self.track.held(without=place)
        self.at.function.uses.append(
            Use(
                place, node.lineno, text_of(node), held, False, waits,
                timed or self.at.deadlines > 0, tests=self._tests(),
            )
        )  # fmt: skip

    def _submit(self, pool: Pool, work: ast.expr, line: int) -> None:
        target, _ = self.target(work)
        if target:
            self.at.function.submits.append(Submit(pool.place, line, target))

    def _special(self, node: ast.Call, path: str) -> bool:
        """Calls that hand a function to somebody who calls it later."""
        args = node.args
        if path == "signal.signal" and len(args) == 2:
            self._root(args[1], "signal handler", node.lineno)
        elif path == "weakref.finalize" and len(args) >= 2:
            self._root(args[1], "weakref callback", node.lineno)
        elif path in ("weakref.ref", "weakref.proxy") and len(args) == 2:
            self._root(args[1], "weakref callback", node.lineno)
        elif path in _GATHERERS and args:
            found = self.value(args[0])
            if isinstance(found, Futures):
                self._wait(found.place, node, says_timeout(node, 1))
        elif path in _CONSUMERS and args and isinstance(args[0], ast.Call):
            found = self.value(args[0])
            mapped = isinstance(args[0].func, ast.Attribute) and args[0].func.attr == "map"
            if isinstance(found, Futures) and mapped:
                self._wait(found.place, args[0], says_timeout(args[0], -1))
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "run_in_executor":
            pool = self.pool(args[0]) if len(args) > 1 else None
            if pool is not None and pool.kind is Kind.EXECUTOR:
                self._submit(pool, args[1], node.lineno)
        else:
            return False
        return True

    def _root(self, work: ast.expr, how: str, line: int) -> None:
        target, _ = self.target(work)
        if target:
            self.at.roots.append(Root(target, how, line))

    # --- calls of the project's own functions

    def target(self, func: ast.expr) -> tuple[str, bool]:
        """Which function this names, and whether it runs on the same `self`."""
        at = self.at
        if isinstance(func, ast.Name) and func.id in at.nested:
            return at.nested[func.id], True
        if isinstance(func, ast.Attribute):
            match func.value:
                case ast.Name(id="self" | "cls") if at.owner:
                    return f"{at.owner}.{func.attr}", True
                case ast.Call(func=ast.Name(id="super")) if at.owner:
                    return f"super:{at.owner}.{func.attr}", True
            base = self.value(func.value)
            if isinstance(base, Instance):
                return f"{base.ref}.{func.attr}", self._is_single(func.value)
        path = self.path(func)
        if "." not in path or path.partition(".")[0] in _STANDARD:
            return "", False
        return path, False

    def _is_single(self, node: ast.expr) -> bool:
        """Whether this is the one object of its kind: a global, or what a cached function returns."""
        named = node.func if isinstance(node, ast.Call) else node
        path = self.path(named)
        letter = "f" if isinstance(node, ast.Call) else "g"
        return isinstance(self.at.reader.at(f"{letter}|{path}"), Instance)

    def _project(self, node: ast.Call, path: str, awaited: bool, timed: bool) -> None:
        target, same = self.target(node.func)
        if not target:
            return
        pairs = [(str(index), arg) for index, arg in enumerate(node.args)]
        pairs += [(keyword.arg or "**", keyword.value) for keyword in node.keywords]
        passed = tuple(
            (key, pool.place) for key, arg in pairs if (pool := self.pool(arg)) is not None
        )
        self.at.function.calls.append(
            Call(
                target, node.lineno, f"{name_of(node.func)}()", self.track.held(), awaited, same,
                timed or self.at.deadlines > 0, passed, tuple(key for key, _ in pairs),
                entered=node is self.entering, tests=self._tests(),
            )
        )  # fmt: skip

    # --- elements that go elsewhere

    def _lend_arguments(self, node: ast.Call) -> None:
        collects = isinstance(node.func, ast.Attribute) and node.func.attr in _COLLECT
        for arg in node.args:
            if collects and isinstance(arg, ast.Name):
                for each in self.track.by_element(arg.id):
                    self.track.drop(each)
                    self.collected(each.line)
            elif collects and isinstance(self.value(arg), Element):
                self.collected(arg.lineno)
            else:
                self.lend(arg)
        for keyword in node.keywords:
            self.lend(keyword.value)

    def lend(self, node: ast.expr) -> None:
        """Somebody else sees the element, and may give it back."""
        if not any(each.element for each in self.track.opens):
            return
        for child in ast.walk(node):
            if isinstance(child, ast.Name):
                for each in self.track.by_element(child.id):
                    each.escaped = True
