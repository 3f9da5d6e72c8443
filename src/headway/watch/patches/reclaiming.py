"""headway's reclaim and write-back: while a shrinker or a budget's reclaimer runs, the maps of reclaim are held.

So a lock that is taken in a shrinker, and held elsewhere over an allocation, is reported, though memory was
never short there. A cache's write-back is a completion: its map is held while a value is written, and
touched by whoever makes one dirty, for he may have to wait until others are written.
"""

from __future__ import annotations

from typing import Any

from headway.core.mm import gfp as masks
from headway.core.mm.gfp import Gfp
from headway.watch.maps import Maps
from headway.watch.patches import Patcher

MODULE = "headway.core.mm.shrinker"
_IO, _FS, _WAITS = int(Gfp.IO), int(Gfp.FS), int(Gfp.DIRECT_RECLAIM)
_HIDDEN = int(Gfp.NOLOCKDEP)
_WRITES = "write-back"


def install(patcher: Patcher) -> None:
    from headway.core.mm import charging, dirtied, shrinker
    from headway.edge import buffers

    maps = Maps(patcher.ledger)

    def scanned(original: Any) -> Any:
        def _scanned(one: Any, control: Any) -> Any:
            mask = int(masks.restrict(control.gfp, control.scope))
            with maps.reclaiming(fs=bool(mask & _FS), io=bool(mask & _IO)):
                return (yield from original(one, control))

        return _scanned

    def reclaim(original: Any) -> Any:
        def _reclaim(meeting: Any, ask: Any, mask: int, scope: int) -> Any:
            with maps.reclaiming(fs=bool(mask & _FS), io=bool(mask & _IO)):
                return (yield from original(meeting, ask, mask, scope))

        return _reclaim

    def write(original: Any) -> Any:
        def _write_entry(self: Any, *args: Any) -> Any:
            with maps.completing(_WRITES):
                return (yield from original(self, *args))

        return _write_entry

    def waits(original: Any) -> Any:
        def wait(self: Any, *args: Any) -> Any:
            maps.wait_for(_WRITES)
            return (yield from original(self, *args))

        return wait

    def alloc(original: Any) -> Any:
        def alloc(self: Any, gfp: Gfp = Gfp.KERNEL) -> Any:
            touch(maps, gfp)
            return original(self, gfp)

        return alloc

    patcher.replace(shrinker, "_scanned", scanned)
    patcher.replace(charging, "_reclaim", reclaim)
    patcher.replace(dirtied.Dirtied, "_write_entry", write)
    for name in ("throttle", "write_all"):
        patcher.replace(dirtied.Dirtied, name, waits)
    for kind in (buffers.Buffers, buffers.WatchedBuffers):
        patcher.replace(kind, "alloc", alloc)


def touch(maps: Maps, gfp: Gfp) -> None:
    """An allocation with this mask, here: what may it have to do?"""
    from headway.runtimes import scopes

    mask = int(masks.restrict(gfp, scopes.current()))
    if mask & (_WAITS | _HIDDEN) == _WAITS and not scopes.current() & masks.Scope.NORECLAIM:
        maps.touch(bool(mask & _FS), bool(mask & _IO))
