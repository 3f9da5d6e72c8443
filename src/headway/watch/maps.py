"""Maps: things that are waited for without being elements, so that the graph sees them too.

`fs_reclaim` and `io_reclaim` are held while memory is reclaimed, and touched by every allocation that could
have to reclaim, pressure or not. A completion is held while its work runs, and touched by whoever waits for
it. Nobody ever waits for a map; it only makes edges, from one run of each path.

Priming: code that has a shrinker may hold the map and take its lock once at its start, so that the
reverse edge is there before memory is ever short.

Source: Linux ``fs_reclaim_acquire`` (mm/page_alloc.c); the map for I/O is ours, and closes its blind spot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from headway.watch.classes import MAP, RECLAIM, Pool, PoolClass
from headway.watch.ledger import Ledger


@final
class Maps:
    """The maps of one session."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.fs, self.io = (self._map(name) for name in RECLAIM)

    def _map(self, name: str) -> Pool:
        key = (MAP, name)
        found = self._ledger.maps.get(key)
        if found is None:
            found = self._ledger.maps[key] = Pool(PoolClass(MAP, name, (), False), 1)
            found.cls.size = 1
        return found

    def touch(self, fs: bool, io: bool) -> None:
        """An allocation may call code above us (`fs`), may start or wait for I/O (`io`)."""
        if io:
            self._ledger.ask(self.io)
            if fs:
                self._ledger.ask(self.fs)

    @contextmanager
    def reclaiming(self, *, fs: bool = True, io: bool = True) -> Iterator[None]:
        """Memory is reclaimed in here; or might be: priming."""
        with self._holding(self.io, io), self._holding(self.fs, fs):
            yield

    @contextmanager
    def completing(self, name: str) -> Iterator[None]:
        """The work that completes `name` runs in here."""
        with self._holding(self._map(f"completion of {name}"), True):
            yield

    def wait_for(self, name: str) -> None:
        """Somebody is about to wait for the completion of `name`."""
        self._ledger.ask(self._map(f"completion of {name}"))

    @contextmanager
    def _holding(self, pool: Pool, wanted: bool) -> Iterator[None]:
        if not wanted:
            yield
            return
        holding = self._ledger.grant(pool)
        try:
            yield
        finally:
            self._ledger.drop(holding)
