"""A zone with its slow path, to test: 128 pages, of which 16 are `min`, 20 `low`, 24 `high`."""

from __future__ import annotations

from typing import Any

from headway.core.mm.cache import ShrinkableCache
from headway.core.mm.kswapd import Kswapd
from headway.core.mm.oom import Oom
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import ScanControl
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Share, Zone
from headway.core.plan import Runtime
from headway.runtimes.threads import THREADS

PAGES, MIN, LOW, HIGH = 128, 16, 20, 24
PAGE = 4096


class Memory:
    """Everything of one zone; `events` is what its slow path did."""

    def __init__(self, runtime: Runtime = THREADS, oom: Any = Oom.FAIL, pages: int = PAGES) -> None:
        self.zone = Zone(pages, Watermarks(MIN, LOW, HIGH), runtime=runtime, name="z")
        self.path = SlowPath(self.zone, runtime, oom)
        self.kswapd = Kswapd(self.zone, self.path.reclaim, runtime)
        self.path.reclaim.background = self.kswapd
        self.events: list[str] = []
        self.path.observe = self.note
        self.holder = self.zone.share(0, name="holder")
        self.share = self.zone.share(0, name="user")
        self.held: list[PageRun] = []

    def note(self, action: str, mark: int) -> None:
        self.events.append(action if mark < 0 else f"{action} {mark}")

    def fill(self, leave: int) -> None:
        """Somebody holds all but so many pages."""
        while self.zone.room() > leave:
            run = self.holder.take(0)
            assert run is not None
            self.held.append(run)

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.holder.free(self.held.pop())


class Cached:
    """A shrinker over runs of a share, oldest first: what a cache of pages is to a zone."""

    def __init__(self, share: Share, count: int = 0) -> None:
        self.share = share
        self.runs: list[PageRun] = []
        self.calls: list[ScanControl] = []
        for _ in range(count):
            run = share.take(0)
            assert run is not None
            self.runs.append(run)

    def count_objects(self, control: ScanControl) -> int:
        return len(self.runs)

    def scan_objects(self, control: ScanControl) -> int:
        self.calls.append(control)
        for freed in range(control.scan_count):
            try:
                run = self.runs.pop(0)
            except IndexError:  # several reclaim at once
                return freed
            self.share.free(run)
        return control.scan_count


def cached(memory: Memory, runtime: Runtime = THREADS, **options: Any) -> ShrinkableCache[Any, Any]:
    """Values cost what they are: integers are sizes."""
    settings: dict[str, Any] = {
        "cost": lambda value: value if isinstance(value, int) else len(value),
        "name": "c", "seeks": 2, "max_bytes": None, "write_back": None,
    }  # fmt: skip
    return ShrinkableCache(memory.path, runtime=runtime, **(settings | options))
