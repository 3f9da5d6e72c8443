"""Whether a pool is made as large as the largest request of one holder.

Decides by comparing two texts: how many elements the loop around a take goes for (`i < n`; a parameter is
looked up in the calls of that file), and with how many the pool is made in the same file. Equal texts, or
constants of which the pool's is not smaller, mean that one holder alone never waits for himself. Anything
else means that it is not known. Whether there is one holder at a time is not decided.

Source: the capacity rule of the golden rule's remedies, block/blk-crypto-fallback.c and
fs/smb/client/smbdirect.c of Linux 6.12 for how pools are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headway.audit.csource.masks import Analysis
from headway.audit.csource.takes import Take
from headway.audit.csource.tree import Expr

__all__ = ["as_large"]

_MADE = (
    rb"\b%s\s*=\s*mempool_create\w*\s*\(",
    rb"\b(?:mempool|bioset)_init\w*\s*\(\s*[^,;]*\b%s\s*,",
)
_ARGUMENT = re.compile(rb"\s*((?:[^(),;]|\([^();]*\))*)[,)]")


def as_large(analysis: Analysis, take: Take) -> bool:
    """Whether the pool of this take is known to hold as many as one run of the loop around it takes."""
    asked = [text for bound in _bounds(analysis, take) for text in _meanings(analysis, bound)]
    sizes = list(_sizes(analysis.function.file, take.pool))
    return bool(asked and sizes) and all(_covers(sizes, text) for text in asked)


def _bounds(analysis: Analysis, take: Take) -> Iterator[str]:
    """What the counters of the loops around the take are compared with."""
    graph = analysis.graph
    after = graph.reachable(take.step)
    for number, step in enumerate(graph.steps):
        expr = step.expr
        if step.kind != "test" or expr is None or number not in after:
            continue
        if expr.kind == "bin" and expr.op in ("<", ">") and take.step in graph.reachable(number):
            yield _plain(expr.args[1 if expr.op == "<" else 0])


def _plain(expr: Expr) -> str:
    return expr.text.strip("()")


def _meanings(analysis: Analysis, bound: str) -> list[str]:
    """The bound itself; of a parameter, what this file's calls give for it."""
    function = analysis.function
    if bound not in function.parameters:
        return [bound]
    place = function.parameters.index(bound)
    out = []
    for match in re.finditer(rb"\b%s\s*\(" % function.name.encode(), function.file):
        given = list(_arguments(function.file, match.end()))
        if place < len(given) and not given[place].endswith(f" {bound}"):
            out.append(given[place])
    return out or [bound]


def _sizes(data: bytes, pool: str) -> Iterator[str]:
    """With how many elements the file makes the pool of that name."""
    name = re.split(r"->|\.|&|\(", pool)[-1].strip(")")
    if not name.isidentifier():
        return
    for pattern in _MADE:
        for match in re.finditer(pattern % name.encode(), data):
            given = next(_arguments(data, match.end()), "")
            if given:
                yield given


def _arguments(data: bytes, at: int) -> Iterator[str]:
    """The arguments of a call whose bracket opens before ``at``."""
    while (match := _ARGUMENT.match(data, at)) is not None:
        yield " ".join(match.group(1).decode("utf-8", "replace").split())
        at = match.end()
        if data[at - 1 : at] == b")":
            return


def _covers(sizes: list[str], asked: str) -> bool:
    return all(
        size.replace(" ", "") == asked.replace(" ", "")
        or (size.isdigit() and asked.isdigit() and int(size) >= int(asked))
        for size in sizes
    )
