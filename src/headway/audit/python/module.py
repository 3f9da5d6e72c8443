"""Reads one file into facts.

Decides the order: imports and definitions, then pools that outlive a function (globals, attributes),
then every function, inner ones after the outer, with the names the outer one had at its end.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from headway.audit.python import names
from headway.audit.python.facts import Class, Function, Instance, Module, Pool, Root
from headway.audit.python.uses import Setting
from headway.audit.python.values import Env, Reader, Table
from headway.audit.python.walk import Walk

Known = Mapping[str, Pool | Instance]
_PROPERTIES = frozenset({"property", "cached_property"})
_CACHES = frozenset({"cache", "lru_cache"})
_GENERATORS = frozenset({"contextmanager", "asynccontextmanager"})


def read(
    path: str,
    source: bytes,
    name: str,
    table: Table,
    known: Known | None = None,
    bases: Mapping[str, tuple[str, ...]] | None = None,
    wanted: Callable[[Mapping[str, str]], bool] = lambda imports: True,
) -> Module | None:
    """The facts of a file; None if its imports are not `wanted`.

    ``known`` and ``bases`` are pools and classes of other files, by place and by dotted name.

    Raises: SyntaxError, ValueError, RecursionError, MemoryError as the parser does.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(source)
    imports = names.imports_of(tree, name, path.endswith("__init__.py"))
    if not wanted(imports):
        return None
    return _Reading(path, name, tree, imports, table, known or {}, bases or {}).module


class _Reading:
    """One file while it is read."""

    def __init__(
        self,
        path: str,
        name: str,
        tree: ast.Module,
        imports: dict[str, str],
        table: Table,
        known: Known,
        bases: Mapping[str, tuple[str, ...]],
    ) -> None:
        top = frozenset(_defined(tree))
        self.module = Module(path, name, imports)
        self.reader = Reader(name, table, imports, top, known, bases)
        self._functions: list[tuple[names.Definition, str, str]] = []  # (node, ref, class)
        self._surveys: dict[int, names.Survey] = {}
        self._index(tree.body, name, "")
        self._outliving(tree)
        for place, value in self.reader.places.items():
            if isinstance(value, Pool) and place == value.place:
                self.module.pools[place] = value
        self._walk_all(tree)
        self.module.exports = {
            place: value for place, value in self.reader.places.items() if value is not None
        }

    def _survey(self, node: names.Definition) -> names.Survey:
        found = self._surveys.get(id(node))
        if found is None:
            found = self._surveys[id(node)] = names.survey(node)
        return found

    # --- definitions

    def _index(self, body: list[ast.stmt], prefix: str, owner: str) -> None:
        for node in names.statements(body):
            if isinstance(node, ast.ClassDef):
                ref = f"{prefix}.{node.name}"
                bases = tuple(
                    path for base in node.bases if (path := self._base(base)) and path != ref
                )
                self.module.classes[ref] = Class(ref, bases)
                self.reader.add_class(self.module.classes[ref])
                self._index(node.body, ref, ref)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._functions.append((node, f"{prefix}.{node.name}", owner))

    def _base(self, node: ast.expr) -> str:
        inside = node.value if isinstance(node, ast.Subscript) else node
        return self.reader.dotted(inside, frozenset())

    def _outliving(self, tree: ast.Module) -> None:
        """Pools at globals, in class bodies, on `self`, and behind functions that only return one."""
        self._globals(tree.body, self.module.name)
        for ref, node in _classes(tree.body, self.module.name):
            self._globals(node.body, ref)
        for function, ref, owner in self._functions:
            self._attributes(function, ref, owner)
        for function, ref, owner in self._functions:
            self._getter(function, ref, owner)

    def _globals(self, body: list[ast.stmt], prefix: str) -> None:
        reader = self.reader
        for node in names.statements(body):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            goals = node.targets if isinstance(node, ast.Assign) else [node.target]
            value = reader.value(node.value, {}, frozenset(), "")
            dataclass_field = isinstance(node.value, ast.Call) and reader.dotted(
                node.value.func, frozenset()
            ).endswith("field")
            for goal in goals:
                if not isinstance(goal, ast.Name):
                    continue
                if isinstance(node.value, ast.Constant) and type(node.value.value) is int:
                    reader.numbers[goal.id] = node.value.value
                letter = "i" if dataclass_field else "g"
                reader.keep(f"{letter}|{prefix}.{goal.id}", _labelled(value, goal.id))

    def _attributes(self, node: names.Definition, ref: str, owner: str) -> None:
        """What a method sets on `self`, and a function on a global."""
        survey = self._survey(node)
        if not survey.assigns:
            return
        reader = self.reader
        own = survey.own
        env: Env = reader.start(node, ref, own)
        for child in survey.assigns:
            if child.value is None:
                continue
            goals = child.targets if isinstance(child, ast.Assign) else [child.target]
            value = reader.value(child.value, env, own, owner)
            if isinstance(value, Pool) and value.place.startswith("p|"):
                value = replace(value, place="")
            for goal in goals:
                label = ast.unparse(goal) if isinstance(goal, ast.Attribute) else ""
                if isinstance(goal, ast.Name):
                    if goal.id not in own:
                        reader.keep(f"g|{self.module.name}.{goal.id}", _labelled(value, goal.id))
                    env[goal.id] = value
                elif isinstance(goal, ast.Attribute) and isinstance(goal.value, ast.Name):
                    if goal.value.id == "self" and owner:
                        reader.keep(f"i|{owner}.{goal.attr}", _labelled(value, label))
                    elif goal.value.id == "cls" and owner:
                        reader.keep(f"g|{owner}.{goal.attr}", _labelled(value, label))

    def _getter(self, node: names.Definition, ref: str, owner: str) -> None:
        """`def get_pool(): return _pool`, and a property that is one."""
        survey = self._survey(node)
        returns = [each for each in survey.returns if each.value]
        if len(returns) != 1 or returns[0].value is None:
            return
        value = self.reader.value(returns[0].value, {}, survey.own, owner)
        marks = {_last(each) for each in node.decorator_list}
        if isinstance(value, Instance) and not owner:
            if marks & _CACHES or isinstance(returns[0].value, ast.Name):
                self.reader.places.setdefault(f"f|{ref}", value)
        if not isinstance(value, Pool) or not value.place:
            return
        if owner and marks & _PROPERTIES:
            self.reader.places.setdefault(f"i|{owner}.{node.name}", value)
        elif not owner and value.place.startswith("g|") and not marks & _GENERATORS:
            self.reader.places.setdefault(f"f|{ref}", value)

    # --- functions

    def _walk_all(self, tree: ast.Module) -> None:
        body = Function(f"{self.module.name}.<module>", "", 1)
        self._walk(body, tree.body, {}, frozenset(), "", {})
        for node, ref, owner in self._functions:
            self._function(node, ref, owner, {}, {})
            if owner and node.name == "__del__":
                self.module.roots.append(Root(ref, "__del__", node.lineno))

    def _function(
        self, node: names.Definition, ref: str, owner: str, outer: Env, nested: dict[str, str]
    ) -> None:
        survey = self._survey(node)
        own = survey.own
        env: Env = {key: value for key, value in outer.items() if key not in own}
        env.update(self.reader.start(node, ref, own))
        every = [arg.arg for arg in names.parameters(node)]
        if owner and every and every[0] in ("self", "cls"):
            every = every[1:]
        shown = ref[len(self.module.name) + 1 :].replace(".<locals>", "")
        function = Function(
            ref,
            shown,
            node.lineno,
            node.end_lineno or node.lineno,
            isinstance(node, ast.AsyncFunctionDef),
            parameters=tuple(every),
        )
        for child in survey.inner:
            nested = {**nested, child.name: f"{ref}.<locals>.{child.name}"}
        self._walk(function, node.body, env, own, owner, nested)

    def _walk(
        self,
        function: Function,
        body: list[ast.stmt],
        env: Env,
        own: frozenset[str],
        owner: str,
        nested: dict[str, str],
    ) -> None:
        setting = Setting(
            self.reader, function, owner, own, env, nested,
            self.module.pools, self.module.roots, self.module.puts,
        )  # fmt: skip
        self.module.functions[function.ref] = function
        walk = Walk(setting)
        walk.run(body)
        if function.ref.endswith(".<module>"):
            return
        for inner in walk.inner:
            if isinstance(inner, ast.ClassDef):
                continue  # a class made in a function is rare, and its objects travel
            ref = f"{function.ref}.<locals>.{inner.name}"
            self._function(inner, ref, owner, env, nested)


def _labelled(value: object, label: str) -> Pool | Instance | None:
    if isinstance(value, Pool):
        return value if value.label else replace(value, label=label)
    return value if isinstance(value, Instance) else None


def _last(node: ast.expr) -> str:
    inside = node.func if isinstance(node, ast.Call) else node
    return inside.attr if isinstance(inside, ast.Attribute) else getattr(inside, "id", "")


def _classes(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for node in names.statements(body):
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}.{node.name}", node
            yield from _classes(node.body, f"{prefix}.{node.name}")


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in names.statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            for goal in node.targets:
                yield from names.targets(goal)
        elif isinstance(node, ast.AnnAssign):
            yield from names.targets(node.target)
        elif isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    yield from names.targets(item.optional_vars)
    for child in names.statements(tree.body, inside=True):
        if isinstance(child, ast.Global):
            yield from child.names
