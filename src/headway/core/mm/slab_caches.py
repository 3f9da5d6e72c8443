"""The slab caches of one zone: which there are, and why each was made or merged; what one shows of itself.

It does not judge (`headway.core.mm.slab_merge` does) and hands out no objects (`headway.core.mm.slab`
does). To the zone all of them together are one shrinker: pages that are empty, and kept only to be at
hand, go back when others need them.

Bound: what can be given back is known up to what users have at hand, which is found out by asking once.

Source: ``slab_caches`` of Linux ``mm/slab_common.c`` (6.12).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from headway.core.mm.shrinker import ScanControl
from headway.core.mm.slab_cache import SlabCache
from headway.core.mm.slab_merge import Decision, SlabSpec, decide
from headway.core.mm.slab_page import Memory
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Plan, Runtime


@final
@dataclass(frozen=True, slots=True)
class SlabStats:
    """A snapshot. Units: bytes, except the counts."""

    name: str
    size: int
    stride: int  # from one object to the next
    page_size: int  # of the runs of pages that objects are carved from
    per_page: int
    out_count: int
    at_hand: int  # free objects that this user keeps ready
    merged_into: str | None
    # of the cache, with all that are merged into it:
    user_count: int
    page_count: int
    emergency_page_count: int
    free_count: int
    grown: int  # pages obtained, in all
    extra: int  # of these, while objects were free that the request was not entitled to
    raised: int  # pages that were found to be an emergency no more
    refused_beside_free: int
    findings: int  # of debug mode


@final
class SlabCaches:
    """The caches of one zone, oldest first, and what was decided about each. For their maker."""

    __slots__ = ("_caches", "_memory", "_path", "_runtime", "decisions", "hardened", "merging")

    def __init__(
        self, path: SlowPath, runtime: Runtime, memory: Memory, *, merging: bool = True
    ) -> None:
        self._path = path
        self._runtime = runtime
        self._memory = memory
        self._caches: tuple[SlabCache, ...] = ()
        self.merging = merging
        self.hardened = True
        self.decisions: tuple[Decision, ...] = ()

    def find(self, spec: SlabSpec, order: int | None = None) -> tuple[SlabCache, Decision]:
        """The cache that `spec` merges into, or a new one.

        Raises: UsageError, NoMemory as `Zone.share`.
        """
        self._caches = tuple(cache for cache in self._caches if not cache.share.closed)
        specs = [cache.spec for cache in self._caches]
        decision = decide(spec, specs, enabled=self.merging, hardened=self.hardened)
        if decision.position is not None:
            cache = self._caches[decision.position]
            cache.spec = replace(cache.spec, size=max(cache.spec.size, spec.size))
        else:
            cache = SlabCache(self._path, self._runtime, self._memory, spec, order)
            self._caches = (*self._caches, cache)
        self.decisions = (*self.decisions, decision)
        return cache, decision

    # -- as a shrinker -------------------------------------------------------------------------------

    def count_objects(self, control: ScanControl) -> int:
        """Pages that are empty, or would be if what users have at hand lay together."""
        return sum(cache.idle_pages() for cache in self._caches)

    def scan(self, control: ScanControl) -> Plan[int]:
        """Give empty pages back; users give up what they have at hand only if that is not enough."""
        yield from ()
        freed = sum(cache.shrink() for cache in self._caches)
        if freed < control.scan_count * self._path.zone.page_bytes:
            for cache in self._caches:
                for user in cache.users:
                    user.drain()
                freed += cache.shrink()
        return freed // self._path.zone.page_bytes

    def __iter__(self) -> Iterator[SlabCache]:
        return iter(self._caches)
