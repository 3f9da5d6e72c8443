"""Making room: one pass over the shrinkers, a run of passes harder and harder, and when to stop.

It does not allocate, and does not know which pages are whose (`headway.core.mm.slowpath` does). A
run asks all shrinkers at priority 12, and at each lower number for twice as much, down to 0, where
all they have is asked for; it ends early when enough was freed. Progress is counted in pages, as
the shrinkers tell it.

Whoever makes room must not ask for room: a run is inside a NORECLAIM scope, which travels with each
request to whatever the shrinkers allocate. That this holds is counted, not believed: `deepest` is
the number of runs on top of one another on behalf of one requester, and is 1 in a correct program.

Source: Linux ``mm/vmscan.c``, ``do_try_to_free_pages`` and ``shrink_slab``; ``mm/page_alloc.c``,
``should_reclaim_retry`` (6.12). Departure: a NORECLAIM scope gives no right to emergency memory
(scopes only take away); a shrinker that needs some asks with MEMALLOC, or has a pool of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, final

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.shrinker import ScanControl, Shrinkers, reclaimable, shrink
from headway.core.plan import Plan, Runtime

PRIORITY: Final = 12
ENOUGH_PAGES: Final = 32
ENOUGH_PART: Final = 64  # but no more than this part of a small zone
MAX_RECLAIM_RETRIES: Final = 16
MAX_ROUNDS: Final = 64
TICK_S: Final = 0.01  # a pause between fruitless tries; any page that comes back ends it

_NORECLAIM: Final = int(Scope.NORECLAIM)


class Background(Protocol):
    """What reclaims in the background (`headway.core.mm.kswapd`), as a requester sees it."""

    @property
    def hopeless(self) -> bool: ...
    def wake(self) -> Plan[bool]: ...
    def progress(self) -> None: ...
    def wait(self, who: str, gfp: Gfp) -> Plan[bool]: ...
    def stop(self) -> None: ...


@final
class Reclaim:
    """The making of room for one zone. `_depths` changes under the guard."""

    __slots__ = (
        "_depths", "_guard", "background", "deepest", "enough_pages", "freed_pages", "runs",
        "shrinkers",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, zone_pages: int = ENOUGH_PAGES * ENOUGH_PART) -> None:
        self.enough_pages = max(1, min(ENOUGH_PAGES, zone_pages // ENOUGH_PART))  # of one run
        self.shrinkers = Shrinkers(runtime)
        self.background: Background | None = None
        self.deepest = 0
        self.runs = 0  # statistics: of direct reclaim
        self.freed_pages = 0  # statistics: by anybody
        self._guard = runtime.guard()
        self._depths: dict[str, int] = {}  # requester -> runs it is in now

    def sweep(self, control: ScanControl, priority: int, target: int | None = None) -> Plan[int]:
        """Ask the shrinkers once, cheapest first. Units: pages, as told by them.

        All of one cost are asked alike; dearer ones only if that did not free `target`.
        """
        freed = seeks = 0
        for one in self.shrinkers:
            if target is not None and freed >= target and one.seeks > seeks:
                break
            seeks = one.seeks
            wanted = None if target is None else -(-target // one.object_pages)
            found = yield from shrink(one, control, priority, wanted)
            freed += found * one.object_pages
        self.freed_pages += freed
        return freed

    def direct(
        self,
        gfp: Gfp,
        scope: int,
        who: str,
        page_count: int,
        enough: Callable[[], bool] = lambda: False,
    ) -> Plan[int]:
        """A run on behalf of a requester: until so many pages are freed, or `enough()`."""
        control = ScanControl(gfp, scope | _NORECLAIM, who)
        self._enter(who)
        try:
            freed = 0
            target = max(page_count, self.enough_pages)
            for priority in range(PRIORITY, -1, -1):
                freed += yield from self.sweep(control, priority, target - freed)
                if freed >= target or (freed and enough()):
                    break
        finally:
            self._exit(who)
        if freed and self.background is not None:
            self.background.progress()
        return freed

    def reclaimable(self, gfp: Gfp, scope: int, who: str) -> Plan[int]:
        """What all shrinkers that this mask may ask could give back. Units: pages."""
        control = ScanControl(gfp, scope | _NORECLAIM, who)
        pages = 0
        for one in self.shrinkers:
            pages += yield from reclaimable(one, control)
        return pages

    def _enter(self, who: str) -> None:
        with self._guard:
            self.runs += 1
            depth = self._depths[who] = self._depths.get(who, 0) + 1
            self.deepest = max(self.deepest, depth)

    def _exit(self, who: str) -> None:
        with self._guard:
            self._depths[who] -= 1
            if not self._depths[who]:
                del self._depths[who]

    def __repr__(self) -> str:
        return (
            f"<Reclaim: {len(self.shrinkers)} shrinkers, {self.freed_pages} pages freed, "
            f"{self.runs} direct runs, deepest {self.deepest}>"
        )


@final
class Patience:
    """How many fruitless rounds in a row are borne; any progress starts that count again.

    The rounds in all are bounded too: what shrinkers call progress need not be any (an object freed
    from a page that others still use), and no request may loop on their word.
    """

    __slots__ = ("fruitless", "rounds")

    def __init__(self) -> None:
        self.fruitless = 0
        self.rounds = 0

    def bears(self, progress: int) -> bool:
        self.rounds += 1
        self.fruitless = 0 if progress else self.fruitless + 1
        return self.fruitless <= MAX_RECLAIM_RETRIES and self.rounds <= MAX_ROUNDS
