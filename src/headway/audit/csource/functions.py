"""Finds the functions around given places of a file, and converts them to plain values.

Decides where a function begins, what it is called, which parameters and locals it declares. A piece
that the parser cannot read as a function is read a second time with its head replaced by a plain
one; a piece that fails twice gives nothing, and the caller says so. Deep nesting is cut off at a
depth that Python's own stack can bear.

Source: the grammar of tree-sitter-c; audit experience: two thirds of kernel files hold text that no
parser reads without headers.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

from headway.audit.csource import clean
from headway.audit.csource.search import MAX_BYTES
from headway.audit.csource.tree import Expr as Expr
from headway.audit.csource.tree import Stmt, convert, statement
from headway.errors import MissingExtra

__all__ = ["Function", "expression", "functions_at", "parser", "unreadable"]

_HEAD = re.compile(rb"(\w+)\s*\(((?:[^(){};]|\([^(){};]*\))*)\)\s*\{", re.DOTALL)
_WORDS_BEFORE = re.compile(rb"[\w*\s]*\Z")
_DECLARED = re.compile(r"\s*(.*?)(\w+)\s*(?:\[[^\]]*\])?\s*$", re.DOTALL)
_NOT_A_FUNCTION = {b"if", b"while", b"for", b"switch", b"do", b"return", b"sizeof"}
MAX_DEPTH = 150  # of nested blocks and brackets in one function


@dataclass(slots=True)
class Function:
    """One function of a file."""

    path: str
    name: str
    line: int
    end: int
    returns: str  # "void", "pointer", "int", "bool", "long", "gfp"
    static: bool
    parameters: tuple[str, ...]
    types: dict[str, str]  # of parameters and locals: the words before the name, with stars
    body: list[Stmt] = field(default_factory=list)
    text: str = ""  # cleaned source, for what needs only words
    boot: bool = False  # runs only while the system starts
    file: bytes = field(default=b"", repr=False)  # all of its file, for what needs a search


Read = dict[tuple[int, tuple[int, ...]], list[Function]]  # by a piece's start, and the places in it


@functools.cache
def parser() -> Any:
    """The C parser of this process.

    Raises: MissingExtra without the extra ``audit``.
    """
    try:
        import tree_sitter
        import tree_sitter_c
    except ImportError:
        raise MissingExtra("auditing C", "audit") from None
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_c.language()))


def functions_at(
    path: str, data: bytes, offsets: list[int], read: Read | None = None
) -> tuple[list[Function], list[str]]:
    """The functions that hold these offsets, in order; and reasons for what could not be read.

    ``read``: what earlier calls made of this file's pieces; what is made now is added.
    """
    found: list[Function] = []
    skipped: list[str] = []
    done = -1
    line, counted = 1, 0
    for offset in sorted(offsets):
        if offset < done:
            continue
        start, done = clean.piece_around(data, offset)
        line += data.count(b"\n", counted, start)
        counted = start
        if done - start > clean.MAX_PIECE:
            skipped.append(f"line {line}: {done - start} bytes without a closing brace in column 1")
            continue
        piece = data[start:done]
        if b"{" not in piece:
            continue
        wanted = [place - start for place in offsets if start <= place < done]
        key = (start, tuple(wanted))
        if read is not None and key in read:
            found += read[key]
            continue
        got = _functions(path, clean.cleaned(piece), line, wanted)
        boot = re.search(rb"\b__(?:mem)?init\b", piece) is not None
        if isinstance(got, str):
            skipped.append(f"line {line}: {got}")
        else:
            for function in got:
                function.boot = boot
                function.file = data
            found += got
            if read is not None:
                read[key] = got
    return found, skipped


def unreadable(data: bytes) -> str:
    """Why a file's content is not looked at; empty if it is."""
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES} bytes"
    return "holds NUL bytes: not text" if b"\0" in data[:8192] else ""


def _functions(path: str, piece: bytes, line: int, wanted: list[int]) -> list[Function] | str:
    if _depth(piece) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    root = parser().parse(piece).root_node
    nodes = [n for n in _definitions(root) if any(n.start_byte <= w < n.end_byte for w in wanted)]
    try:
        found = [_function(path, node, line) for node in nodes]
        if not all(any(n.start_byte <= w < n.end_byte for n in nodes) for w in wanted):
            found += _second_reading(path, piece, line, [f.name for f in found], wanted)
            lost = [w for w in wanted if _in_code(piece, w) and not _inside(found, piece, line, w)]
            if lost:
                return f"the parser makes no function of this text ({len(lost)} places)"
    except RecursionError:
        return "an expression too long to follow"
    return [f for f in found if f is not None]


def _in_code(piece: bytes, offset: int) -> bool:
    """Whether a place is inside braces, and not in what was blanked or an initialiser."""
    if piece[offset : offset + 1].isspace():
        return False
    if piece.count(b"{", 0, offset) <= piece.count(b"}", 0, offset):
        return False
    opening = piece.find(b"{")
    return not piece[:opening].rstrip().endswith(b"=")


def _inside(found: list[Function], piece: bytes, line: int, offset: int) -> bool:
    at = line + piece.count(b"\n", 0, offset)
    return any(function.line <= at <= function.end for function in found)


def _depth(piece: bytes) -> int:
    depth = deepest = 0
    for byte in piece.translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"({[" else -1
        deepest = max(deepest, depth)
    return deepest


_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"(){}[]")


def _definitions(root: Any) -> list[Any]:
    out, stack = [], [root]
    while stack:
        node = stack.pop()
        if node.type == "function_definition":
            out.append(node)
        elif node.type in (
            "translation_unit",
            "ERROR",
            "declaration_list",
            "linkage_specification",
        ):
            stack.extend(reversed(node.named_children))
    return out


def _second_reading(
    path: str, piece: bytes, line: int, known: list[str], wanted: list[int]
) -> list[Function]:
    """Find heads by their looks, replace each by a plain one, and parse only from there."""
    out = []
    for head in _HEAD.finditer(piece):
        name = head.group(1)
        if name in _NOT_A_FUNCTION or name.decode() in known or not _at_top(piece, head.start()):
            continue
        open_at = head.end() - 1
        end = _closing(piece, open_at)
        if not any(open_at < place < end for place in wanted):
            continue
        before = _WORDS_BEFORE.search(piece[: head.start()])
        words = before.group() if before is not None else b""
        macro = _named_by_macro(name, head.group(2))
        plain = b"void x(void) "
        root = parser().parse(plain + piece[open_at:end]).root_node
        definition = next(iter(_definitions(root)), None)
        at = line + piece.count(b"\n", 0, open_at)
        if definition is None:
            continue
        made = _function(path, definition, at)
        made.name, made.line = macro, line + piece.count(b"\n", 0, head.start())
        made.static = b"static" in words
        made.returns = _kind_of(words.decode("utf-8", "replace"))
        if name.isupper() or b"_DEFINE" in name:
            made.returns = "int"
        else:
            _add_parameters(made, head.group(2).decode("utf-8", "replace"))
        out.append(made)
        known.append(name.decode())
    return out


def _named_by_macro(name: bytes, arguments: bytes) -> str:
    """``SYSCALL_DEFINE2(open, ...)`` is called open; anything else by its own name."""
    first = arguments.split(b",")[0].strip()
    if b"DEFINE" in name and re.fullmatch(rb"\w+", first):
        return first.decode()
    return name.decode()


def _at_top(piece: bytes, offset: int) -> bool:
    """Whether no brace is open before this offset."""
    return piece.count(b"{", 0, offset) <= piece.count(b"}", 0, offset)


def _closing(piece: bytes, open_at: int) -> int:
    depth = 0
    for match in re.finditer(rb"[{}]", piece[open_at:]):
        depth += 1 if match.group() == b"{" else -1
        if depth == 0:
            return open_at + match.end()
    return len(piece)


def _kind_of(words: str) -> str:
    if "*" in words:
        return "pointer"
    for word, kind in _KINDS:
        if re.search(rf"\b{word}\b", words):
            return kind
    return "int"


_KINDS = (
    ("void", "void"),
    ("gfp_t", "gfp"),
    ("bool", "bool"),
    ("long", "long"),
    ("vm_fault_t", "int"),
)


def _function(path: str, node: Any, line: int) -> Function:
    text = node.text.decode("utf-8", "replace")
    body_node = node.child_by_field_name("body")
    cut = (body_node.start_byte if body_node is not None else node.end_byte) - node.start_byte
    head = node.text[:cut].decode("utf-8", "replace")
    opening = _HEAD.search(node.text[: cut + 1])
    name = opening.group(1).decode() if opening is not None else ""
    words = head[: opening.start()] if opening is not None else head
    made = Function(
        path=path,
        name=name,
        line=line + node.start_point[0],
        end=line + node.end_point[0],
        returns=_kind_of(words),
        static="static" in words,
        parameters=(),
        types={},
        body=statement(body_node, line) if body_node is not None else [],
        text=text,
    )
    if opening is not None:
        _add_parameters(made, opening.group(2).decode("utf-8", "replace"))
    if body_node is not None:
        _add_locals(made, body_node)
    return made


def _add_parameters(made: Function, text: str) -> None:
    names = []
    for part in text.split(","):
        found = _DECLARED.match(part)
        if found is not None and found.group(1).strip():
            made.types.setdefault(found.group(2), found.group(1).strip())
            names.append(found.group(2))
    made.parameters = tuple(names)


def _add_locals(made: Function, body: Any) -> None:
    stack = [body]
    while stack:
        node = stack.pop()
        if node.type == "declaration":
            kind = node.child_by_field_name("type")
            words = kind.text.decode("utf-8", "replace") if kind is not None else ""
            for child in node.children_by_field_name("declarator"):
                inner = child.child_by_field_name("declarator") or child
                text = inner.text.decode("utf-8", "replace")
                if child.type == "init_declarator":
                    text = child.child_by_field_name("declarator").text.decode("utf-8", "replace")
                else:
                    text = child.text.decode("utf-8", "replace")
                stars = " *" * text.count("*")
                array = " []" if "[" in text else ""
                name = text.replace("*", " ").split("[")[0].strip()
                made.types[name] = words + stars + array
        elif node.type.endswith("statement") or node.type in ("ERROR", "else_clause"):
            stack.extend(node.named_children)


def expression(text: bytes) -> Expr | None:
    """A macro's body as an expression; None if it is none."""
    root = parser().parse(b"int x = (" + text + b");").root_node
    for node in root.named_children:
        if node.type == "declaration":
            declarator = node.child_by_field_name("declarator")
            value = declarator.child_by_field_name("value") if declarator is not None else None
            return convert(value, 1) if value is not None else None
    return None
