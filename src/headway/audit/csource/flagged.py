"""Where a flag reaches a call that allocates, in a whole tree.

Decides which sites carry the flag: through variables, macros of the file or of a header, functions
that return masks, and macros that allocate themselves. A call that only tests or converts a mask is
no site; one that merely takes a mask is, if nothing in its function allocates. Not decided: whether
a mask that comes in as a parameter carries the flag; that is its caller's site.

Source: the scoping rules of C.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headway.audit.csource import words
from headway.audit.csource.gfp import Mask
from headway.audit.csource.masks import Analysis, Site, target_of
from headway.audit.csource.project import Project, is_own
from headway.audit.csource.search import places_of
from headway.audit.csource.tree import calls

__all__ = ["Place", "learn", "places"]


@dataclass(frozen=True, slots=True)
class Place:
    """A site with its function."""

    analysis: Analysis
    site: Site


def learn(project: Project, flag: str) -> dict[str, list[int]]:
    """Where the flag, or a name of its own file that carries it, is written."""
    hits = project.find_flag(flag)
    hits = {path: places for path, places in sorted(hits.items()) if not is_own(path)}
    for path, places in hits.items():
        project.learn(path, flag, places)
    project.forget()
    offsets = {path: [offset for offset, _ in places] for path, places in hits.items()}
    for path in offsets:
        file = project.file(path)
        if file is None:
            continue
        local = [name for name, mask in file.masks.items() if mask.may_hold(flag)]
        for name in [*local, *file.allocating]:
            offsets[path] += places_of(file.data, name)
    return offsets


def places(project: Project, offsets: dict[str, list[int]], flag: str) -> list[Place]:
    """All sites, in order of path and line."""
    out = []
    for path in sorted(offsets):
        file = project.file(path)
        if file is None:
            continue
        macros = {**project.shared_allocating, **file.allocating}
        for analysis in project.functions_at(path, sorted(set(offsets[path]))):
            if analysis.function.returns != "gfp":
                out += [Place(analysis, s) for s in _sites(analysis, flag, set(macros))]
    return sorted(out, key=lambda p: (p.analysis.function.path, p.site.call.line))


def _sites(analysis: Analysis, flag: str, macros: set[str]) -> Iterator[Site]:
    found = [s for s in analysis.sites if s.mask.may_hold(flag) and not _passes_on(s)]
    named = [site for site in found if words.is_allocator(site.call.op)]
    yield from named or found  # what only looks at a mask matters if nothing allocates
    for number, step in enumerate(analysis.graph.steps):
        for call in step.calls():
            if call.op in macros:
                target = target_of(step.expr, call) or _introduced(analysis, call.op, number)
                yield Site(number, call, Mask(frozenset((flag,)), frozenset((flag,))), -1, target)


def _introduced(analysis: Analysis, macro: str, number: int) -> str:
    """What an allocating macro declares: the argument that is not declared anywhere else."""
    expr = analysis.graph.steps[number].expr
    for call in calls(expr):
        if call.op == macro:
            for arg in call.args:
                if arg.kind == "id" and arg.text not in analysis.function.types:
                    return arg.text
    return ""


def _passes_on(site: Site) -> bool:
    """Whether the call only tests or converts a mask."""
    name = site.call.op
    if words.is_allocator(name):
        return False
    return name.endswith(("_gfp_mask", "_gfp_flags")) or (name.isupper() and not site.target)
