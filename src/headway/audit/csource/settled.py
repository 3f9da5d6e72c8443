"""What is known of variables whenever a site is reached, before its own result is looked at.

Decides two things: a variable that holds one constant on every way to the site, and a parameter on
whose test it depends that the site is reached at all. With them a walk does not take branches that
contradict the way it came.

Source: textbook constant propagation, cut down to what error paths need.
"""

from __future__ import annotations

from headway.audit.csource.masks import Analysis, Site
from headway.audit.csource.values import GOOD, ZERO, value_of

__all__ = ["settled"]


def settled(analysis: Analysis, site: Site) -> dict[str, str]:
    """Variables that hold one constant whenever the site is reached."""
    graph, at = analysis.graph, site.step
    given: dict[str, list[tuple[int, str | None]]] = {}
    for number, step in enumerate(analysis.graph.steps):
        if step.expr is None:
            continue
        for one in step.sets():
            value = value_of(one.args[1], {}) if one.op == "=" else None
            given.setdefault(one.args[0].text, []).append((number, value))
        for name in step.updates():
            given.setdefault(name, []).append((number, None))
    out = _decided(analysis, site, set(given))
    before = graph.leading_to(at) - {at}
    for name, rows in given.items():
        mine = [(n, value) for n, value in rows if n in before]
        values = {value for _, value in mine}
        value = values.pop() if len(values) == 1 else None
        if value is None or f"&{name}" in analysis.function.text:
            continue
        if any(graph.dominates(n, at) for n, _ in mine):
            out[name] = value
    return out


def _decided(analysis: Analysis, site: Site, changed: set[str]) -> dict[str, str]:
    """Parameters on whose test it depends that the site is reached at all."""
    graph, at = analysis.graph, site.step
    out = {}
    for number, step in enumerate(analysis.graph.steps):
        name = step.expr.text if step.kind == "test" and step.expr is not None else ""
        if name in analysis.function.parameters and name not in changed:
            yes = at in graph.reachable(step.then[0], without=number)
            no = at in graph.reachable(step.other, without=number)
            if yes != no:
                out[name] = GOOD if yes else ZERO
    return out
