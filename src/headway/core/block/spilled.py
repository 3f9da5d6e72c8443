"""The records of a spill store (a page, a value, a snapshot), and when memory may ask it for its pages.

Which page goes, and how, `spill` decides.

Source: own; the floor of clean cache is Stephan von Krawczynski's, of 2001.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from headway.core.block.swap import NO_SLOT
from headway.core.mm.shrinker import PlanShrinker, ScanControl
from headway.core.plan import Plan, Ticket


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


@final
class Swapping:
    """A store's pages as a shrinker, asked only while clean cache is scarce: it goes first, as it is never written.

    `is_due` says whether that is so, and takes no lock.
    """

    __slots__ = ("_is_due", "_store")

    def __init__(self, store: PlanShrinker, is_due: Callable[[], bool]) -> None:
        self._store = store
        self._is_due = is_due

    def count_objects(self, control: ScanControl) -> int:
        """Pages in memory; 0 (not now) while there is clean cache. Waits: never."""
        return self._store.count_objects(control) if self._is_due() else 0

    def scan(self, control: ScanControl) -> Plan[int]:
        """Write pages out. Asks: as the store."""
        return self._store.scan(control)
