"""C as plain values: expressions and statements of one function, cut loose from the parser.

Decides what of the syntax matters to the rules: calls, assignments, conditions, jumps. Types,
declarators and everything else become leaves. The parser's nodes are dropped as soon as a function
is converted, so that memory does not grow with the tree.

Source: the grammar of tree-sitter-c (node types).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Expr",
    "Stmt",
    "assignments",
    "calls",
    "convert",
    "identifiers",
    "statement",
    "stripped",
    "updates",
]


class Expr:
    """An expression. ``text`` is its source without spaces; it is the key of what is assigned."""

    __slots__ = ("args", "kind", "line", "op", "text")

    def __init__(
        self, kind: str, text: str, line: int, op: str = "", args: tuple[Expr, ...] = ()
    ) -> None:
        self.kind = kind  # id num str call un bin set cond field index comma sizeof other
        self.text = text
        self.line = line
        self.op = op  # the operator; of a call, the callee's name
        self.args = args

    def __repr__(self) -> str:
        return f"<{self.kind} {self.text}>"


@dataclass(slots=True)
class Stmt:
    """A statement; which fields are used depends on its kind."""

    kind: str  # expr if while do for switch case label goto return break continue block
    line: int
    expr: Expr | None = None
    body: list[Stmt] = field(default_factory=list)
    orelse: list[Stmt] = field(default_factory=list)
    first: list[Stmt] = field(default_factory=list)  # of a for: what comes before
    step: Expr | None = None
    name: str = ""  # of a label or a goto; "default" of a case


_LEAF = {
    "identifier": "id",
    "field_identifier": "id",
    "number_literal": "num",
    "null": "id",
    "true": "id",
    "false": "id",
    "string_literal": "str",
    "concatenated_string": "str",
    "char_literal": "num",
    "type_identifier": "id",
    "sizeof_expression": "sizeof",
}


def _text(node: Any) -> str:
    return "".join(node.text.decode("utf-8", "replace").split())


def convert(node: Any, base: int) -> Expr:
    """The expression of a parser node; ``base`` is the line of the piece's first line."""
    kind = node.type
    line = base + node.start_point[0]
    if kind in _LEAF:
        return Expr(_LEAF[kind], _text(node), line)
    if kind in ("parenthesized_expression", "cast_expression"):
        inner = node.child_by_field_name("value") if kind == "cast_expression" else None
        inner = inner or next(iter(node.named_children), None)
        return convert(inner, base) if inner is not None else Expr("other", "", line)
    if kind == "call_expression":
        return _call(node, base, line)
    if kind in ("assignment_expression", "binary_expression"):
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        operator = node.child_by_field_name("operator")
        op = operator.type if operator is not None else "="
        args = (convert(left, base), convert(right, base))
        return Expr("set" if kind[0] == "a" else "bin", _text(node), line, op, args)
    if kind in ("unary_expression", "pointer_expression", "update_expression"):
        inner = node.child_by_field_name("argument")
        operator = node.child_by_field_name("operator")
        op = operator.type if operator is not None else ""
        return Expr("un", _text(node), line, op, (convert(inner, base),))
    if kind == "conditional_expression":
        return _choice(node, base, line)
    if kind == "field_expression":
        inner = node.child_by_field_name("argument")
        return Expr("field", _text(node), line, "", (convert(inner, base),))
    if kind == "comma_expression":
        return Expr("comma", _text(node), line, ",", _all(node, base))
    if kind == "subscript_expression":
        return Expr("index", _text(node), line, "", _all(node, base))
    return Expr("other", _text(node), line, kind, _all(node, base))


def _all(node: Any, base: int) -> tuple[Expr, ...]:
    """The parts of a node, in order; statements inside an expression are flattened."""
    return tuple(convert(child, base) for child in node.named_children if child.type != "comment")


def _call(node: Any, base: int, line: int) -> Expr:
    callee = node.child_by_field_name("function")
    arguments = node.child_by_field_name("arguments")
    args = _all(arguments, base) if arguments is not None else ()
    name = _text(callee)
    if name in ("likely", "unlikely", "__builtin_expect") and args:
        return args[0]
    return Expr("call", _text(node), line, name, args)


def _choice(node: Any, base: int, line: int) -> Expr:
    test = convert(node.child_by_field_name("condition"), base)
    no = convert(node.child_by_field_name("alternative"), base)
    chosen = node.child_by_field_name("consequence")
    yes = convert(chosen, base) if chosen is not None else test  # a ?: b
    return Expr("cond", _text(node), line, "?", (test, yes, no))


def statement(node: Any, base: int) -> list[Stmt]:
    """The statements of a parser node; an error node gives whatever can be made out inside it."""
    kind = node.type
    line = base + node.start_point[0]
    if kind in ("compound_statement", "ERROR", "translation_unit", "attributed_statement"):
        return [s for child in node.named_children for s in statement(child, base)]
    if kind == "declaration":
        return _declaration(node, base)
    if kind == "expression_statement":
        return [Stmt("expr", line, convert(c, base)) for c in node.named_children[:1]]
    builder = _BUILDERS.get(kind)
    if builder is not None:
        return [builder(node, base, line)]
    if kind == "case_statement":
        return _case(node, base, line)
    if kind == "labeled_statement":
        name = _text(node.child_by_field_name("label"))
        inner = [s for child in node.named_children[1:] for s in statement(child, base)]
        return [Stmt("label", line, name=name), *inner]
    if kind.endswith("_expression"):
        return [Stmt("expr", line, convert(node, base))]
    return []


def _declaration(node: Any, base: int) -> list[Stmt]:
    out = []
    for child in node.children_by_field_name("declarator"):
        if child.type == "init_declarator":
            name = child.child_by_field_name("declarator")
            value = child.child_by_field_name("value")
            if value is None:
                continue
            line = base + child.start_point[0]
            target = Expr("id", _text(name).lstrip("*").split("[")[0], line)
            text = f"{target.text}={_text(value)}"
            initial = Expr("set", text, line, "=", (target, convert(value, base)))
            out.append(Stmt("expr", line, initial))
        elif child.type == "function_declarator":  # a macro that looks like a declaration
            arguments = child.child_by_field_name("parameters")
            called = child.child_by_field_name("declarator")
            line = base + child.start_point[0]
            args = _all(arguments, base) if arguments is not None else ()
            out.append(Stmt("expr", line, Expr("call", _text(child), line, _text(called), args)))
    return out


def _case(node: Any, base: int, line: int) -> list[Stmt]:
    value = node.child_by_field_name("value")
    inner = [
        s
        for child in node.named_children
        if value is None or child.id != value.id
        for s in statement(child, base)
    ]
    return [Stmt("case", line, name="default" if value is None else _text(value)), *inner]


def _body(node: Any, name: str, base: int) -> list[Stmt]:
    found = node.child_by_field_name(name)
    return statement(found, base) if found is not None else []


def _test(node: Any, base: int) -> Expr | None:
    found = node.child_by_field_name("condition")
    return convert(found, base) if found is not None else None


def _if(node: Any, base: int, line: int) -> Stmt:
    orelse = node.child_by_field_name("alternative")
    other = []
    if orelse is not None:
        inner = orelse.named_children if orelse.type == "else_clause" else [orelse]
        other = [s for child in inner for s in statement(child, base)]
    return Stmt("if", line, _test(node, base), _body(node, "consequence", base), other)


def _loop(node: Any, base: int, line: int) -> Stmt:
    kind = "do" if node.type == "do_statement" else "while"
    return Stmt(kind, line, _test(node, base), _body(node, "body", base))


def _for(node: Any, base: int, line: int) -> Stmt:
    start, update = node.child_by_field_name("initializer"), node.child_by_field_name("update")
    first = [] if start is None else statement(start, base)
    step = convert(update, base) if update is not None else None
    return Stmt("for", line, _test(node, base), _body(node, "body", base), first=first, step=step)


def _switch(node: Any, base: int, line: int) -> Stmt:
    return Stmt("switch", line, _test(node, base), _body(node, "body", base))


def _return(node: Any, base: int, line: int) -> Stmt:
    value = next((c for c in node.named_children if c.type != "comment"), None)
    return Stmt("return", line, convert(value, base) if value is not None else None)


def _goto(node: Any, base: int, line: int) -> Stmt:
    label = node.child_by_field_name("label")
    return Stmt("goto", line, name=_text(label) if label is not None else "")


_BUILDERS: dict[str, Any] = {
    "if_statement": _if,
    "while_statement": _loop,
    "do_statement": _loop,
    "for_statement": _for,
    "switch_statement": _switch,
    "return_statement": _return,
    "goto_statement": _goto,
    "break_statement": lambda node, base, line: Stmt("break", line),
    "continue_statement": lambda node, base, line: Stmt("continue", line),
}


def stripped(expr: Expr) -> Expr:
    """The value an assignment or a comma stands for: ``(a, p = x)`` is ``p``."""
    while expr.kind in ("set", "comma") and expr.args:
        expr = expr.args[0] if expr.kind == "set" else expr.args[-1]
    return expr


def calls(expr: Expr | None) -> list[Expr]:
    """Every call in an expression, inner ones first."""
    if expr is None:
        return []
    out = [call for arg in expr.args for call in calls(arg)] if expr.args else []
    if expr.kind == "call":
        out.append(expr)
    return out


def assignments(expr: Expr) -> list[Expr]:
    """Every assignment in an expression, inner ones first."""
    out = [one for arg in expr.args if arg.args for one in assignments(arg)]
    if expr.kind == "set":
        out.append(expr)
    return out


def identifiers(expr: Expr) -> set[str]:
    """Every name in an expression, callees too."""
    names = {expr.text} if expr.kind == "id" else set()
    if expr.kind == "call":
        names.add(expr.op)
    return names.union(*(identifiers(arg) for arg in expr.args)) if expr.args else names


def places(expr: Expr) -> set[str]:
    """The variables an expression reads, a field under its full name."""
    if expr.kind in ("field", "id", "index"):
        inner = places(expr.args[1]) if expr.kind == "index" and len(expr.args) > 1 else set()
        return {expr.text} | inner
    own = {expr.text} if expr.kind == "un" and expr.op == "*" else set()
    return own.union(*(places(arg) for arg in expr.args)) if expr.args else own


def updates(expr: Expr) -> list[str]:
    """What ``++`` and ``--`` change in an expression."""
    out = [name for arg in expr.args if arg.args for name in updates(arg)]
    if expr.kind == "un" and expr.op in ("++", "--"):
        out.append(expr.args[0].text)
    return out
