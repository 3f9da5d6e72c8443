"""What a flag expression says: which bits are surely set, which may be, which were surely removed.

Decides the meaning of the kernel's mask words and of `|`, `&`, `&= ~`, `?:` over them. A parameter
or an unknown call is a mask of which nothing is known; it is then not claimed to hold a flag.
Project macros and functions that return masks come in as a table.

Bound: one pass over the expression; at a join, what is sure is cut and what is possible is united.

Source: include/linux/gfp_types.h of Linux 6.12 for the composition of the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headway.audit.csource.tree import Expr

__all__ = ["NOTHING", "UNKNOWN", "WORDS", "Mask", "evaluate", "is_word"]

_RECLAIM = frozenset(("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM"))
_NOIO = _RECLAIM
_NOFS = _NOIO | {"__GFP_IO"}
_KERNEL = _NOFS | {"__GFP_FS"}
_HIGHUSER = _KERNEL | {"__GFP_HARDWALL", "__GFP_HIGHMEM"}
_HUGE_LIGHT = (_HIGHUSER | {"__GFP_MOVABLE", "__GFP_COMP", "__GFP_NOMEMALLOC", "HUGE"}) - _RECLAIM

WORDS: Mapping[str, frozenset[str]] = {
    "GFP_ATOMIC": frozenset(("__GFP_HIGH", "__GFP_KSWAPD_RECLAIM")),
    "GFP_NOWAIT": frozenset(("__GFP_KSWAPD_RECLAIM",)),
    "GFP_NOIO": _NOIO,
    "GFP_NOFS": _NOFS,
    "GFP_KERNEL": _KERNEL,
    "GFP_KERNEL_ACCOUNT": _KERNEL | {"__GFP_ACCOUNT"},
    "GFP_TEMPORARY": _KERNEL,
    "GFP_USER": _KERNEL | {"__GFP_HARDWALL"},
    "GFP_HIGHUSER": _HIGHUSER,
    "GFP_HIGHUSER_MOVABLE": _HIGHUSER | {"__GFP_MOVABLE"},
    "GFP_DMA": frozenset(("__GFP_DMA",)),
    "GFP_DMA32": frozenset(("__GFP_DMA32",)),
    "GFP_TRANSHUGE_LIGHT": _HUGE_LIGHT,
    "GFP_TRANSHUGE": _HUGE_LIGHT | {"__GFP_DIRECT_RECLAIM"},
    "__GFP_RECLAIM": _RECLAIM,
    "__GFP_WAIT": _RECLAIM,
    "__GFP_REPEAT": frozenset(("__GFP_RETRY_MAYFAIL",)),
}


@dataclass(frozen=True, slots=True)
class Mask:
    """What is known of a mask. ``whole``: it holds nothing beyond what is listed."""

    sure: frozenset[str] = frozenset()
    maybe: frozenset[str] = frozenset()  # always a superset of sure
    gone: frozenset[str] = frozenset()  # surely not set
    whole: bool = False
    has_word: bool = False  # a mask word or a mask variable was part of it
    origin: str = field(default="", compare=False)  # the text of a macro it is the value of

    def holds(self, bit: str) -> bool | None:
        """Whether the bit is set: True, False, or None for perhaps (or not known)."""
        if bit in self.sure:
            return True
        if bit in self.gone or (self.whole and bit not in self.maybe):
            return False
        return None

    def may_hold(self, bit: str) -> bool:
        """Whether some path of this function sets the bit."""
        return bit in self.maybe

    def joined(self, other: Mask) -> Mask:
        """What is known where two paths meet."""
        return Mask(
            self.sure & other.sure,
            self.maybe | other.maybe,
            _absent(self, other),
            self.whole and other.whole,
            self.has_word or other.has_word,
        )

    def united(self, other: Mask) -> Mask:
        """``self | other``."""
        return Mask(
            self.sure | other.sure,
            self.maybe | other.maybe,
            _absent(self, other) - self.sure - other.sure,
            self.whole and other.whole,
            self.has_word or other.has_word,
        )

    def without(self, other: Mask) -> Mask:
        """``self & ~other``."""
        return Mask(
            self.sure - other.maybe,
            self.maybe - other.sure,
            self.gone | other.sure,
            self.whole,
            True,
        )

    def within(self, other: Mask) -> Mask:
        """``self & other``."""
        possible = self.maybe & other.maybe if other.whole else self.maybe
        return Mask(self.sure & other.sure, possible, self.gone, self.whole, True)


def _absent(one: Mask, two: Mask) -> frozenset[str]:
    """Bits surely in neither."""
    candidates = one.gone | two.gone
    return frozenset(
        bit for bit in candidates if one.holds(bit) is False and two.holds(bit) is False
    )


UNKNOWN = Mask()
NOTHING = Mask(whole=True)


def is_word(name: str) -> bool:
    """Whether a name is the kernel's word for a mask or a bit of one."""
    return name.startswith(("__GFP_", "GFP_"))


def evaluate(expr: Expr, env: Mapping[str, Mask], known: Mapping[str, Mask]) -> Mask:
    """What an expression says, given variables and the project's own mask macros and functions."""
    kind, op = expr.kind, expr.op
    if kind in ("id", "field", "index"):
        if expr.text in env:
            return env[expr.text]
        if expr.text in known:
            return known[expr.text]
        if is_word(expr.text):
            bits = WORDS.get(expr.text, frozenset((expr.text,)))
            return Mask(bits, bits, whole=True, has_word=True)
        return UNKNOWN
    if kind == "num":
        return NOTHING if expr.text.strip("uUlL") in ("0", "0x0") else UNKNOWN
    if kind == "call":
        return known.get(expr.op, UNKNOWN)
    if kind == "cond":
        return evaluate(expr.args[1], env, known).joined(evaluate(expr.args[2], env, known))
    if kind == "set":
        return _assigned(expr, env, known)
    if kind == "bin" and op in ("|", "+"):
        return evaluate(expr.args[0], env, known).united(evaluate(expr.args[1], env, known))
    if kind == "bin" and op == "&":
        left, right = expr.args
        if left.kind == "un" and left.op == "~":
            left, right = right, left
        if right.kind == "un" and right.op == "~":
            return evaluate(left, env, known).without(evaluate(right.args[0], env, known))
        return evaluate(left, env, known).within(evaluate(right, env, known))
    return UNKNOWN


def _assigned(expr: Expr, env: Mapping[str, Mask], known: Mapping[str, Mask]) -> Mask:
    left, right = expr.args
    value = evaluate(right, env, known)
    if expr.op == "|=":
        return evaluate(left, env, known).united(value)
    if expr.op == "&=":
        if right.kind == "un" and right.op == "~":
            return evaluate(left, env, known).without(evaluate(right.args[0], env, known))
        return evaluate(left, env, known).within(value)
    return value
