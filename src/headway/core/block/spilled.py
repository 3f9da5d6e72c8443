"""The records of a spill store: a page of a value, the value, and a snapshot of all.

They decide nothing; `spill` does.

Source: own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from headway.core.block.swap import NO_SLOT
from headway.core.plan import Ticket


@final
class Page:
    """A page of a value. All but `touched` changes under the store's guard."""

    __slots__ = ("aged", "dropped", "frame", "moving", "slot", "touched", "waiters")

    def __init__(self, frame: Any, aged: float) -> None:
        self.frame = frame
        self.slot = NO_SLOT
        self.moving = False  # a transfer of it is under way
        self.dropped = False  # nobody wants it any more
        self.touched: float | None = None
        self.aged = aged
        self.waiters: list[Ticket] = []


@final
class Value:
    __slots__ = ("length", "pages")

    def __init__(self, length: int) -> None:
        self.length = length
        self.pages: list[Page] = []


@final
@dataclass(frozen=True, slots=True)
class SpillStats:
    """A snapshot. Units: pages, but for `values`."""

    name: str
    values: int
    page_size: int
    resident: int
    spilled: int
    written: int
    read: int
    waits: int
