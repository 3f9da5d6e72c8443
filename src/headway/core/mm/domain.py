"""A number of dirty bytes and two limits on it: the whole, or a group of writers within it, or within a group.

It counts nothing by itself (`headway.core.mm.dirty` does). The *position ratio* says how fast those may go
on who dirty: 2 far below the set point between free run and limit, 1 at it, 0 at the limit and above.

Source: Linux ``mm/page-writeback.c`` (6.12), ``struct dirty_throttle_control``, ``pos_ratio_polynom``.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.core.units import format_size, parse_size
from headway.errors import UsageError


class Domain:
    """A number of dirty bytes, and two limits on it. Changed under the throttle's guard."""

    __slots__ = ("above", "background", "dirty", "limit", "name")

    def __init__(
        self,
        name: str,
        limit: int | str,
        background: int | str | None,
        above: Domain | None = None,
    ) -> None:
        self.name = name
        self.above = above  # the group that this one is in
        self.limit = parse_size(limit, f"limit of {name!r}")
        half = self.limit // 2
        self.background = (
            half if background is None else parse_size(background, f"background of {name!r}")
        )
        if not 0 <= self.background < self.limit:
            raise UsageError(
                f"dirty limits of {name!r}: background {format_size(self.background)}, limit "
                f"{format_size(self.limit)}; the background limit must be below the hard one"
            )
        self.dirty = 0

    @property
    def freerun(self) -> int:
        """Up to here nobody is slowed."""
        return (self.background + self.limit) // 2

    @property
    def ratio(self) -> float:
        return position_ratio(self.dirty, self.freerun, self.limit)

    def __repr__(self) -> str:
        return (
            f"<Domain {self.name!r}: {format_size(self.dirty)} dirty, background "
            f"{format_size(self.background)}, limit {format_size(self.limit)}>"
        )


def chain(group: Domain | None) -> Iterator[Domain]:
    """A group, if there is one, and those that it is in."""
    while group is not None:
        yield group
        group = group.above


def position_ratio(dirty: float, freerun: float, limit: float) -> float:
    """1 at the set point between free run and limit, 0 at the limit and above, at most 2."""
    if dirty >= limit:
        return 0.0
    setpoint = (freerun + limit) / 2
    x = (setpoint - dirty) / (limit - setpoint)
    return min(max(1 + x**3, 0.0), 2.0)
