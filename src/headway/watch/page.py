"""A report as one HTML page with a drawing of the graph, and nothing to fetch.

It decides where the boxes go: on a circle, in order of first mention; an edge says "held, then asked for".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

_COLOURS = {"risk": "#b3261e", "warning": "#9a6700", "note": "#57606a"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #8882; padding: .6rem; overflow-x: auto; }
article { border-left: 4px solid #8888; padding-left: 1rem; margin: 1.5rem 0; }
h2 { font-size: 1.05rem; } dt { font-weight: 600; } svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } text { fill: #ddd; } }
"""


def html(report: Mapping[str, Any]) -> str:
    """The page."""
    parts = [] if report["hang"] is None else [_hang(report["hang"])]
    parts.append(_drawing(report["risks"]))
    parts += [_risk(risk) for risk in report["risks"]]
    if not report["risks"] and report["hang"] is None:
        parts.append("<p>Nothing found.</p>")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>headway watch</title>'
        f"<style>{_STYLE}</style><h1>headway watch</h1>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _risk(risk: Mapping[str, Any]) -> str:
    colour = _COLOURS[risk["severity"]]
    stacks = "".join(
        f"<p>{escape(stack['what'])}</p><pre>{escape(chr(10).join(stack['frames']))}</pre>"
        for stack in risk["stacks"]
    )
    needed = "" if risk["hangs_from"] is None else (
        f"<dt>Hangs from</dt><dd>{risk['hangs_from']} at once (seen: {risk['seen']})</dd>"
    )  # fmt: skip
    return (
        f'<article style="border-color:{colour}"><h2><span style="color:{colour}">'
        f"{risk['severity']}</span>: {escape(risk['kind'])}: {escape(risk['pool'])}</h2>{stacks}"
        f"<dl><dt>Why</dt><dd>{escape(risk['why'])}</dd>{needed}"
        f"<dt>Remedy</dt><dd>{escape(risk['remedy'])}</dd></dl></article>"
    )


def _hang(hang: Mapping[str, Any]) -> str:
    from headway.watch.explain import text

    return f'<article style="border-color:#b3261e"><h2>Hang</h2><pre>{escape(text(dict(hang)))}</pre></article>'


def _drawing(risks: list[Mapping[str, Any]]) -> str:
    """Boxes on a circle, arrows between them; red where a risk runs."""
    edges: dict[tuple[str, str], str] = {}
    for risk in reversed(risks):  # the gravest last, so that its colour stays
        edges |= dict.fromkeys(map(tuple, risk["edges"]), _COLOURS[risk["severity"]])
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    if not names:
        return ""
    width, radius = 760, 40 + 28 * len(names)
    height = 2 * radius + 120
    at = {}
    for number, name in enumerate(names):
        angle = 2 * math.pi * number / len(names) - math.pi / 2
        at[name] = (
            width / 2 + 1.4 * radius * math.cos(angle),
            height / 2 + radius * math.sin(angle),
        )
    lines = [_arrow(at[a], at[b], colour) for (a, b), colour in edges.items()]
    texts = [
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="#3874cb"/>'
        f'<text x="{x:.0f}" y="{y - 14:.0f}" text-anchor="middle" font-size="13">{escape(name)}</text>'
        for name, (x, y) in at.items()
    ]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="held, then asked for">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="14" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="context-stroke"/></marker></defs>'
        + "".join(lines + texts) + "</svg>"
    )  # fmt: skip


def _arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (x, y), (u, v) = start, end
    if start == end:
        path = f"M{x - 5:.0f} {y + 5:.0f} C{x - 60:.0f} {y + 70:.0f} {x + 60:.0f} {y + 70:.0f} {x + 5:.0f} {y + 5:.0f}"
    else:  # bowed to one side, so that two opposite arrows are two
        bow_x, bow_y = (x + u) / 2 - (v - y) * 0.15, (y + v) / 2 + (u - x) * 0.15
        path = f"M{x:.0f} {y:.0f} Q{bow_x:.0f} {bow_y:.0f} {u:.0f} {v:.0f}"
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" marker-end="url(#tip)"/>'
    )
