"""A cache's part of a zone: pages of no particular place, each clean or dirty.

It does not know what is cached, or in which order it goes (`headway.core.mm.cache` does). A charge
is a number: what is cached may lie anywhere, but the zone lends so much less meanwhile. So charges
never fragment a zone, and taking or giving any number of pages is one step.

The page classes and their transitions, each driven by us::

    free --take--> clean --soil--> dirty          take: asks the zone, may be refused
      ^              |  ^            |            soil: data that exists nowhere else
      +-----give-----+  +----wash----+            wash: written back; give: dropped

There is no way from dirty to free: what is dirty is written back first. So a zone full of clean
pages can be emptied without waiting for anything.

Source: the three kinds of page that Stephan von Krawczynski asked for in 2001, which the mail
called free, cached-only and dirty cache.
"""

from __future__ import annotations

from typing import final

from headway.core.mm.zone import Zone


@final
class Charge:
    """Pages charged to one cache. `clean` and `dirty` change under the zone's guard."""

    __slots__ = ("clean", "dirty", "name", "zone")

    def __init__(self, zone: Zone, name: str) -> None:
        self.zone = zone
        self.name = name
        self.clean = 0
        self.dirty = 0
        with zone._step:
            zone._charges = (*zone._charges, self)

    def take(self, mark: int, count: int = 1) -> bool:
        """Charge `count` clean pages if that leaves `mark`. Waits: never."""
        zone = self.zone
        if zone._returned:
            zone.settle()
        with zone._step:
            if zone._room_for_clean() - count < mark:
                return False
            zone._open -= count
            self.clean += count
        return True

    def give(self, count: int) -> None:
        """`count` clean pages are free. Waits: never; may be called from a finaliser."""
        self.zone.give_back(self, count)

    def soil(self, count: int) -> bool:
        """`count` clean pages hold what is stored nowhere else; False if the room was promised to others."""
        zone = self.zone
        with zone._step:
            assert count <= self.clean, "more is dirty than was charged"
            if zone._lenders and zone.firm_room() - count < zone.marks.min:
                return False
            self.clean -= count
            self.dirty += count
        return True

    def wash(self, count: int) -> None:
        """`count` dirty pages were written back, or what they held is wanted no more."""
        with self.zone._step:
            assert count <= self.dirty, "more was written back than was dirty"
            self.dirty -= count
            self.clean += count

    def close(self) -> None:
        """Leave the zone with nothing dirty; what is on its way home is counted when it comes."""
        zone = self.zone
        zone.settle()
        with zone._step:
            assert not self.dirty, f"{self} closed with dirty pages"
            zone._charges = tuple(other for other in zone._charges if other is not self)

    def __repr__(self) -> str:
        return f"<Charge {self.name!r}: {self.clean} clean, {self.dirty} dirty pages>"
