"""What an expression of a module is, as far as pools are concerned.

Decides by constructors, types in signatures, and attributes set on `self`; a name that is assigned
two different kinds of things is nothing. Never guesses from the words in a name.

The reader of a module is made once (`Reader.of`) and then asked for expressions. An environment maps
the local names of one function to what they were last assigned.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headway.audit.python import names
from headway.audit.python.facts import Class, Instance, Pool
from headway.audit.python.shapes import Kind, Shape

__all__ = ["Element", "Env", "Futures", "Instance", "Reader", "Table", "Value"]


@dataclass(frozen=True, slots=True)
class Element:
    """What came out of a pool."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class Futures:
    """Results that an executor will have."""

    place: str


Value = Pool | Element | Futures | Instance
Env = dict[str, Value | None]


class Table:
    """Shapes by the dotted name of their constructor, of their type, or `*.attribute`."""

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        self.made = {shape.name: shape for shape in shapes}
        self.typed = {name: shape for shape in shapes for name in (shape.name, *shape.types)}
        self.anywhere = {shape.name[2:]: shape for shape in shapes if shape.name.startswith("*.")}


class Reader:
    """Says what an expression of one module is."""

    def __init__(
        self,
        module: str,
        table: Table,
        imports: dict[str, str],
        top: frozenset[str],
        known: Mapping[str, Pool | Instance],
        bases: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.module = module
        self.table = table
        self.imports = imports
        self.top = top
        self.places: dict[str, Pool | Instance | None] = {}  # None: two things at one place
        self.numbers: dict[str, int] = {}  # constants of the module
        self.bases = dict(bases)
        self._known = known

    def dotted(self, node: ast.expr, own: frozenset[str]) -> str:
        return names.dotted(node, self.imports, own, self.top, self.module)

    def add_class(self, found: Class) -> None:
        self.bases[found.ref] = found.bases

    def keep(self, place: str, value: Value | None) -> None:
        """Note what an assignment puts at a place that outlives the function."""
        if not isinstance(value, Pool | Instance):
            return
        if isinstance(value, Pool) and not value.place:
            value = replace(value, place=place)
        before = self.places.get(place, value)
        same = type(before) is type(value) and (
            not isinstance(before, Pool) or (isinstance(value, Pool) and before.kind is value.kind)
        )
        self.places[place] = before if same else None

    def at(self, place: str) -> Pool | Instance | None:
        if place in self.places:
            return self.places[place]
        return self._known.get(place)

    def attribute(self, owner: str, name: str) -> Pool | Instance | None:
        """An attribute of an object of this class, or of one it inherits from."""
        seen = [owner]
        for ref in seen:
            for letter in "ig":
                place = f"{letter}|{ref}.{name}"
                if place in self.places or place in self._known:
                    return self.at(place)
            seen.extend(base for base in self.bases.get(ref, ()) if base not in seen)
        return None

    def value(self, node: ast.expr, env: Env, own: frozenset[str], owner: str) -> Value | None:
        """What the expression is; None if that is not known. ``owner``: the class, in a method."""
        match node:
            case ast.Name(id=name):
                if name in env:
                    return env[name]
                path = "" if name in own else self.dotted(node, own)
                return self.at(f"g|{path}") if path else None
            case ast.Attribute():
                return self._attribute(node, env, own, owner)
            case ast.Await(value=inside) | ast.NamedExpr(value=inside):
                return self.value(inside, env, own, owner)
            case ast.Call():
                return self._call(node, env, own, owner)
            case ast.IfExp(body=first, orelse=second):
                return self._either([first, second], env, own, owner)
            case ast.BoolOp(values=several):
                found = self._either(several, env, own, owner)
                return replace(found, shared=True) if isinstance(found, Pool) else found
            case ast.ListComp(elt=each) | ast.SetComp(elt=each) | ast.GeneratorExp(elt=each):
                one = self.value(each, env, own, owner)
                return one if isinstance(one, Futures) else None
            case ast.List(elts=several) | ast.Tuple(elts=several) if several:
                one = self.value(several[0], env, own, owner)
                return one if isinstance(one, Futures) else None
        return None

    def _either(
        self, several: list[ast.expr], env: Env, own: frozenset[str], owner: str
    ) -> Value | None:
        """The one that is known, unless they are of different kinds."""
        found = [value for each in several if (value := self.value(each, env, own, owner))]
        kinds = {value.kind if isinstance(value, Pool) else type(value) for value in found}
        return found[0] if len(kinds) == 1 else None

    def _attribute(
        self, node: ast.Attribute, env: Env, own: frozenset[str], owner: str
    ) -> Value | None:
        found: Value | None = None
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and owner:
            found = self.attribute(owner, node.attr)
        else:
            path = self.dotted(node, own)
            found = self.at(f"g|{path}") if path else None
            if found is None:
                base = self.value(node.value, env, own, owner)
                if isinstance(base, Instance):
                    found = self.attribute(base.ref, node.attr)
        if found is None and node.attr in self.table.anywhere:
            shape = self.table.anywhere[node.attr]
            return Pool(f"g|*.{node.attr}", shape, ast.unparse(node), node.lineno, shared=True)
        return found

    def _call(self, node: ast.Call, env: Env, own: frozenset[str], owner: str) -> Value | None:
        path = self.dotted(node.func, own)
        if path:
            shape = self.table.made.get(path)
            if shape is not None:
                return self.make(node, shape, env, own, owner)
            if path in ("dataclasses.field", "attr.ib", "attr.field", "attrs.field"):
                return self._factory(node, own)
            if path == "list" and node.args:
                return self.value(node.args[0], env, own, owner)
            returned = self.at(f"f|{path}")
            if returned is not None:
                return returned
            last = path.rpartition(".")[2].lstrip("_")
            if last[:1].isupper() and "." in path:
                return Instance(path)
        if isinstance(node.func, ast.Attribute):
            base = self.value(node.func.value, env, own, owner)
            if isinstance(base, Pool):
                if base.kind is Kind.EXECUTOR and node.func.attr in ("submit", "map"):
                    return Futures(base.place)
                if node.func.attr in base.shape.takes and not base.shape.itself:
                    return Element(base)
        else:
            base = self.value(node.func, env, own, owner)
            if isinstance(base, Pool) and "()" in base.shape.takes:
                return Element(base)
        return None

    def _factory(self, node: ast.Call, own: frozenset[str]) -> Pool | None:
        for keyword in node.keywords:
            if keyword.arg in ("default_factory", "factory"):
                shape = self.table.made.get(self.dotted(keyword.value, own))
                if shape is not None:
                    bounded = shape.kind is not Kind.QUEUE
                    return Pool("", shape, "", node.lineno, shape.size_default, bounded)
        return None

    def make(
        self, node: ast.Call, shape: Shape, env: Env, own: frozenset[str], owner: str
    ) -> Pool | None:
        """The pool this constructor call makes; its place is given by where it is put."""
        if shape.unpooled:
            words = ast.unparse(node)
            if any(word in words for word in shape.unpooled):
                return None
        if shape.name.endswith(".Condition"):
            return self._condition(node, shape, env, own, owner)
        below = [arg for arg in node.args[:1] if shape.over]
        below += [keyword.value for keyword in node.keywords if keyword.arg in shape.over]
        for arg in below:
            under = self.value(arg, env, own, owner)
            if isinstance(under, Pool):
                return replace(under, shape=shape)
        if shape.entered:
            return None  # over something this file does not show
        size, given = self._size(node, shape)
        bounded = shape.kind is not Kind.QUEUE or (given and size != 0)
        return Pool("", shape, "", node.lineno, size, bounded)

    def _condition(
        self, node: ast.Call, shape: Shape, env: Env, own: frozenset[str], owner: str
    ) -> Pool | None:
        """A condition is its lock, with a wait that gives the lock back."""
        args = [*node.args, *(keyword.value for keyword in node.keywords)]
        if not args:
            return Pool("", shape, "", node.lineno)
        lock = self.value(args[0], env, own, owner)
        if isinstance(lock, Pool):
            return replace(lock, shape=replace(shape, kind=lock.kind))
        return Pool("", replace(shape, kind=Kind.REENTRANT), "", node.lineno)

    def _size(self, node: ast.Call, shape: Shape) -> tuple[int | None, bool]:
        """How many, if that is a constant; and whether it is said at all."""
        arg: ast.expr | None = None
        if 0 <= shape.size_at < len(node.args):
            arg = node.args[shape.size_at]
        for keyword in node.keywords:
            if keyword.arg == shape.size:
                arg = keyword.value
            elif keyword.arg is None:
                return None, True  # `**options` may say anything
        if arg is None:
            return shape.size_default, False
        if isinstance(arg, ast.Constant) and isinstance(arg.value, int):
            return max(arg.value, 0), True
        if isinstance(arg, ast.Name) and arg.id in self.numbers:
            return self.numbers[arg.id], True
        return None, True

    def typed(self, annotation: ast.expr | None, own: frozenset[str]) -> Shape | Instance | None:
        """What a parameter's type says it is."""
        match annotation:
            case ast.Constant(value=str(words)) if len(words) < 200:
                try:
                    return self.typed(ast.parse(words, mode="eval").body, own)
                except SyntaxError:
                    return None
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.typed(left, own) or self.typed(right, own)
            case ast.Subscript(value=outer, slice=inside):
                name = self.dotted(outer, own).rpartition(".")[2]
                if name in ("Optional", "Annotated"):
                    first = inside.elts[0] if isinstance(inside, ast.Tuple) else inside
                    return self.typed(first, own)
                return self.typed(outer, own) if name != "type" else None
            case ast.Name() | ast.Attribute():
                path = self.dotted(annotation, own)
                if path in self.table.typed:
                    return self.table.typed[path]
                last = path.rpartition(".")[2].lstrip("_")
                return Instance(path) if last[:1].isupper() and "." in path else None
        return None

    def start(self, node: names.Definition, ref: str, own: frozenset[str]) -> Env:
        """The environment a function begins with: its parameters, by their types."""
        env: Env = {}
        for arg in names.parameters(node):
            found = self.typed(arg.annotation, own)
            if isinstance(found, Shape) and not found.entered:
                place = f"p|{ref}#{arg.arg}"
                bounded = found.kind is not Kind.QUEUE  # nothing says that it has a limit
                env[arg.arg] = Pool(place, found, arg.arg, arg.lineno, bounded=bounded, shared=True)
            else:
                env[arg.arg] = found if isinstance(found, Instance) else None
        return env
