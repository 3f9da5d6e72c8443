"""headway's own pools: they are not patched, their event hook is asked; only their making is noticed.

What a pool allows to wait, it says itself (the mask of the request, scopes included). Each request that may
call code above touches the map of fs_reclaim, each that may start I/O that of io_reclaim, whether memory is
short or not: so a lock that is held over an allocation, and taken in reclaim, is found at once.
"""

from __future__ import annotations

import weakref
from typing import Any

from headway.core.mm.gfp import Gfp
from headway.runtimes import scopes
from headway.watch.classes import Pool
from headway.watch.ledger import Ledger
from headway.watch.maps import Maps
from headway.watch.patches import Patcher
from headway.watch.patches.reclaiming import touch

MODULE = "headway.threaded"
_WAITS = int(Gfp.DIRECT_RECLAIM)
_NOWAIT = int(Gfp.NORETRY)


def install(patcher: Patcher) -> None:
    from headway import threaded

    ledger = patcher.ledger
    maps = Maps(ledger)
    hooked: list[tuple[Any, Any]] = []

    def show(original: Any) -> Any:
        def _show(pool: Any) -> None:
            original(pool)
            if scopes.ambient() is not None:
                return  # code under check
            size = getattr(pool, "capacity", None) or pool.min_count
            known = ledger.pool("mempool", f"mempool {pool.name!r}", size, of=pool)
            hook = _hook(ledger, maps, known)
            pool.watch(hook)
            hooked.append((weakref.ref(pool), hook))

        return _show

    def unhook() -> None:
        for ref, hook in hooked:
            pool = ref()
            if pool is not None:
                pool.unwatch(hook)

    patcher.on_undo(unhook)
    patcher.replace(threaded, "_show", show)


def _hook(ledger: Ledger, maps: Maps, known: Pool) -> Any:
    """What tells the ledger of one pool's events."""

    def hook(event: Any) -> None:
        match event.kind:
            case "request":
                if event.mask & (_WAITS | _NOWAIT) == _WAITS:
                    owner = ledger.ask(known, bool(event.gives_up))
                    touch(maps, Gfp(event.mask))
                    if not event.pool.reserve_count and owner.wait is None:
                        ledger.wait("a mempool", known, owner=owner)
            case "grant":
                owner = ledger.current()
                if owner.wait is not None and owner.wait.pool is known:
                    ledger.waited(owner.wait)
                for number in range(event.count):
                    ledger.grant(known, None if number else event.element)
            case "give_up":
                owner = ledger.current()
                if owner.wait is not None and owner.wait.pool is known:
                    ledger.waited(owner.wait)
            case "release":
                ledger.release(known, event.element)
            case "hand_over" | "transfer":
                ledger.release(
                    known, event.element
                )  # it comes back by itself, or by another's hand

    return hook
