"""A finding: what was seen, why it can hang, from how many on, and what to do; in that order.

It decides nothing. `severity` says whether the numbers make it reachable: *risk*, as many were here at once
as it takes, or a bound that the program itself sets allows so many; *warning*, nothing bounds how many may be
here, and the run did not try; *note*, it takes more than were ever seen together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from headway.watch import places
from headway.watch.places import Place

SEVERITIES: Final = ("note", "warning", "risk")


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that can go wrong. `stacks` maps what happened there to its frames, innermost first."""

    kind: str
    severity: str
    pool: str
    stacks: Mapping[str, list[str]]
    why: str
    hangs_from: int | None  # how many owners at once it takes; None where no count matters
    seen: int  # how many were seen at once
    remedy: str
    key: str  # the same in the next run, and after edits elsewhere in the file
    edges: tuple[Any, ...] = field(default=(), repr=False)  # (held, wanted) names, for drawing

    def json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "severity": self.severity,
            "pool": self.pool,
            "stacks": [{"what": what, "frames": lines} for what, lines in self.stacks.items()],
            "why": self.why,
            "hangs_from": self.hangs_from,
            "seen": self.seen,
            "remedy": self.remedy,
            "key": self.key,
            "edges": [list(edge) for edge in self.edges],
        }


def from_json(found: Mapping[str, Any]) -> Finding:
    """What `Finding.json` gave."""
    return Finding(
        found["kind"], found["severity"], found["pool"],
        {stack["what"]: stack["frames"] for stack in found["stacks"]},
        found["why"], found["hangs_from"], found["seen"], found["remedy"], found["key"],
        tuple(tuple(edge) for edge in found["edges"]),
    )  # fmt: skip


def text(finding: Mapping[str, Any]) -> str:
    """A finding as JSON, for reading."""
    lines = [f"{finding['severity']}: {finding['kind']}: {finding['pool']}"]
    for stack in finding["stacks"]:
        lines.append(f"  {stack['what']}")
        lines += [f"    {frame}" for frame in stack["frames"]]
    lines.append(f"  why: {finding['why']}")
    if finding["hangs_from"] is not None:
        lines.append(
            f"  hangs from: {finding['hangs_from']} at once (seen: {finding['seen']} at once)"
        )
    lines.append(f"  remedy: {finding['remedy']}")
    return "\n".join(lines)


def stacks(**parts: Place) -> dict[str, list[str]]:
    """Places by what happened there; an underscore in a name is a space."""
    return {name.replace("_", " "): places.text(place) for name, place in parts.items() if place}
