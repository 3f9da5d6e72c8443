"""An incident as a picture: a lane for each actor, time downwards, a bar from where somebody waits to where he goes on.

It plays nothing: it is given the events. A dot is an event of the actor in whose lane it stands; its words stand to
the right of all lanes. A red bar is a wait, hollow at its foot if it never ends. The text is SVG and needs
nothing else: no font, no script.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headway.incidents.stage import CLEAN_ERROR, DONE, Event

_LANE, _ROW, _TOP, _LEFT, _LETTER = 26, 22, 96, 20, 7.3
_GOOD, _BAD, _INK, _FAINT = "#2c7a4b", "#b3261e", "#1b1f24", "#c3c9d0"


def svg(title: str, events: Sequence[Event], ended: str) -> str:
    """The picture, as text to be written to a file in UTF-8."""
    actors = list(dict.fromkeys(event.actor for event in events))
    words = _LEFT + _LANE * len(actors) + 30
    longest = max((len(str(event)) for event in events), default=0)
    width = int(words + _LETTER * max(longest, len(title)) + 20)
    height = _TOP + _ROW * len(events) + 16
    good = ended in (DONE, CLEAN_ERROR)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{words}" y="20" fill="{_INK}">{escape(title)}</text>',
        f'<text x="{words}" y="40" fill="{_GOOD if good else _BAD}">ends in: {escape(ended)}</text>',
    ]
    parts += [_lane(actor, at, height) for at, actor in enumerate(actors)]
    for actor, first, last in _waits(events):
        parts.append(_bar(_x(actors.index(actor)), first, last, len(events)))
    for row, event in enumerate(events):
        ink = _BAD if _begins(event) else _INK
        y = _y(row)
        parts.append(f'<circle cx="{_x(actors.index(event.actor))}" cy="{y}" r="4" fill="{ink}"/>')
        parts.append(f'<text x="{words}" y="{y + 4}" fill="{ink}">{escape(str(event))}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(lane: int) -> int:
    return _LEFT + _LANE * lane


def _y(row: int) -> int:
    return _TOP + _ROW * row


def _lane(actor: str, at: int, height: int) -> str:
    x = _x(at)
    name = f'<text transform="translate({x + 4},{_TOP - 14}) rotate(-60)" fill="{_INK}">{escape(actor)}</text>'
    return f'<path d="M{x} {_TOP - 8}V{height - 8}" stroke="{_FAINT}"/>{name}'


def _bar(x: int, first: int, last: int | None, rows: int) -> str:
    """From the row where a wait begins to the one where the actor acts again; to the foot if there is none."""
    foot = _y(last if last is not None else rows) - (0 if last is not None else 8)
    end = (
        ""
        if last is not None
        else f'<circle cx="{x}" cy="{foot}" r="4" fill="#fff" stroke="{_BAD}"/>'
    )
    return f'<path d="M{x} {_y(first)}V{foot}" stroke="{_BAD}" stroke-width="4"/>{end}'


def _begins(event: Event) -> bool:
    """Whether the actor waits from here on."""
    return event.result.startswith(("it waits", "waits")) or event.result.endswith("it waits") or (
        event.action == "waits"
    )  # fmt: skip


def _waits(events: Sequence[Event]) -> list[tuple[str, int, int | None]]:
    """Actor, first row and last of each wait; None for one that never ends."""
    found: list[tuple[str, int, int | None]] = []
    since: dict[str, int] = {}
    for row, event in enumerate(events):
        if _begins(event):
            since.setdefault(event.actor, row)
        elif event.actor in since:
            found.append((event.actor, since.pop(event.actor), row))
    return found + [(actor, row, None) for actor, row in since.items()]
