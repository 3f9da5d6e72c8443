"""A cache that gives way: what it holds is charged to a zone, and dropped when others need the room.

It does not compute what is missing (its user does), and has no size of its own to guess: it takes
what the zone has open above `low`, and shares with the other shrinkers when that is used up. It is
never the reason why a request fails: if there is no room for an object, that one is not kept.

A hit reads a mapping and sets a mark, without a lock. Everything else is a step under the guard;
values are dropped after it, as their finalisers may call us. An object is charged *before* it is
entered: ``used bytes <= charged pages``, always. In one pass of reclaim it looks at as many bytes as
it is asked for, so a cache whose objects are in use gives less than one whose objects are idle.

What is dirty (`headway.core.mm.dirtied`) is not dropped, but written back, if the mask allows I/O.

Source: dentries and pages as Linux caches them: ``fs/dcache.c``, ``mm/vmscan.c`` (6.12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from headway.core.mm.charge import Charge
from headway.core.mm.dirtied import Dirtied, WriteBack
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp, for_allocator
from headway.core.mm.shrinker import STOP, Registration, ScanControl
from headway.core.mm.sieve import Entry, Sieve
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size
from headway.errors import PoolClosed, UsageError

K = TypeVar("K")
V = TypeVar("V")

_LEAST: Final = 64  # bytes that a look at an object is charged for, however little it costs
#: A cache's own request: only what is clean and needs no code above us may be dropped for it.
_MASK: Final = Gfp.RECLAIM | Gfp.NORETRY | Gfp.NOMEMALLOC | Gfp.NOWARN


@final
@dataclass(frozen=True, slots=True)
class CacheStats:
    """A snapshot. Units: bytes, except the counts; hits and misses of threads may be lost."""

    name: str
    count: int
    used: int
    charged: int
    dirty: int
    hits: int
    misses: int
    evicted: int
    refused: int  # values that were not kept, for want of room
    written: int
    write_errors: int


class ShrinkableCache(MutableMapping[K, V], Generic[K, V]):
    """Objects by key, each with a cost in bytes. `_entries` is read without the guard."""

    __slots__ = (
        "__weakref__", "_charge", "_cost", "_dirtied", "_entries", "_guard", "_page_bytes", "_pages",
        "_path", "_registration", "_runtime", "_sieve", "closed", "evicted", "hits", "max_bytes",
        "misses", "name", "refused", "used",
    )  # fmt: skip

    def __init__(
        self,
        path: SlowPath,
        *,
        runtime: Runtime,
        cost: Callable[[V], int],
        name: str,
        seeks: int,
        max_bytes: int | None,
        write_back: WriteBack[K, V] | None,
        group: Domain | None = None,
    ) -> None:
        self.name = name
        self.closed = False
        self.used = 0  # bytes, entered or about to be
        self.hits = self.misses = self.evicted = self.refused = 0  # statistics
        self._path = path
        self._runtime = runtime
        self._guard = runtime.guard()
        self._cost = cost
        self.max_bytes = max_bytes
        self._page_bytes = path.zone.page_bytes
        self._pages = 0  # charged
        self._entries: dict[K, Entry[K, V]] = {}
        self._sieve: Sieve[K, V] = Sieve()
        self._charge = Charge(path.zone, name)
        self._dirtied = Dirtied(self._guard, self._charge, path, runtime, write_back, group)
        self._registration: Registration = path.reclaim.shrinkers.register(
            self, name=name, seeks=seeks, batch=path.reclaim.enough_pages
        )

    # -- the mapping -------------------------------------------------------------------------------

    def get(self, key: K, default: Any = None) -> Any:
        """The value, or `default`. Waits: never, and takes no lock."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return default
        self.hits += 1
        entry.used = True
        return entry.value

    def __getitem__(self, key: K) -> V:
        try:
            entry = self._entries[key]
        except KeyError:
            self.misses += 1
            raise
        self.hits += 1
        entry.used = True
        return entry.value

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value)

    def __delitem__(self, key: K) -> None:
        if not self._forget(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, value: V, *, dirty: bool = False) -> bool:
        """Keep a value, if there is room for it; whether it is kept. An older one is gone either way.

        `dirty`: it is stored nowhere else, and is written back before it is dropped; where there is
        no room, now.
        Waits: only for the writing of dirty data, when too much of the zone is dirty.
        Raises: UsageError if its cost is no number of bytes; PoolClosed; what such a write raised.
        """
        entry = self._made(key, value, dirty)
        if not dirty and self._book(entry.cost):
            self._enter(entry, False)
            return True
        runtime = self._runtime
        return runtime.run(self._put(entry, dirty, runtime.scope(), runtime.owner()))

    def put_plan(self, key: K, value: V, dirty: bool, scope: int, who: str) -> Plan[bool]:
        """`put` as a plan, on behalf of `who`. Asks: Call, Offload, Park, Spawn."""
        return (yield from self._put(self._made(key, value, dirty), dirty, scope, who))

    def _made(self, key: K, value: V, dirty: bool) -> Entry[K, V]:
        cost = self._cost(value)
        if not isinstance(cost, int) or cost < 0:
            raise UsageError(
                f"cache {self.name!r}: the cost of {type(value).__name__} is {cost!r}; it must be a "
                "number of bytes, 0 or more"
            )
        if self.closed:
            raise PoolClosed(f"cache {self.name!r} is closed")
        if dirty:
            self._dirtied.check(self.name)
        return Entry(key, value, cost)

    def _put(self, entry: Entry[K, V], dirty: bool, scope: int, who: str) -> Plan[bool]:
        kept = self._book(entry.cost) or (yield from self._make_room(entry.cost, scope, who))
        if kept and not self._enter(entry, dirty):
            kept = False
            self._unbook(entry.cost)
        if not kept:
            self.refused += 1
            self._forget(entry.key)
        if dirty:
            yield from self._dirtied.throttle(entry, kept, scope)
        return kept

    def clear(self) -> None:
        """Drop everything, dirty or not: `flush` first what is to be kept."""
        with self._guard:
            entries, self._entries = self._entries, {}
            for entry in entries.values():
                self._take_off(entry)
            surplus = self._surplus()
        self._give(surplus)

    def pop(self, key: K, *default: Any) -> Any:
        """Take a value out; `default` if it is not there."""
        entry = self._entries.get(key)
        if entry is not None and self._forget(key):
            return entry.value
        if default:
            return default[0]
        raise KeyError(key)

    # -- room ----------------------------------------------------------------------------------------

    def _book(self, cost: int) -> bool:
        """Count `cost` bytes as used, if they are charged or can be."""
        with self._guard:
            missing = self.used + cost - self._pages * self._page_bytes
            if self.max_bytes is not None and self.used + cost > self.max_bytes:
                return False
            if missing <= 0:
                self.used += cost
                return True
            pages = -(-missing // self._page_bytes)
            if not self._charge.take(self._path.zone.marks.low, pages):
                return False
            self._pages += pages
            self.used += cost
            return True

    def _make_room(self, cost: int, scope: int, who: str) -> Plan[bool]:
        """Have others, and ourselves, drop what is clean, until `cost` is booked or nothing gives way."""
        zone, pages = self._path.zone, -(-cost // self._page_bytes) + 1
        if pages > zone.page_count - zone.marks.low or not for_allocator(_MASK, scope).may_park:
            return False
        if self.max_bytes is not None:
            if cost > self.max_bytes:
                return False
            over = self.used + cost - self.max_bytes
            if over > 0:
                self._evict(2 * self.used + over, over)
                if self._book(cost):
                    return True
        while not self.closed:
            freed = yield from self._path.reclaim.direct(_MASK, scope, who, pages)
            if self._book(cost):
                return True
            if not freed:
                return False
        return False

    def _unbook(self, cost: int) -> None:
        with self._guard:
            self.used -= cost
            surplus = self._surplus()
        self._give(surplus)

    def _enter(self, entry: Entry[K, V], dirty: bool) -> bool:
        """Keep it; False if it is dirty, and there is no room for dirty data."""
        with self._guard:
            old = self._entries.get(entry.key)
            if old is not None:
                self._take_off(old)
            entered = not dirty or self._dirtied.add(entry, self._runtime.now())
            if entered:
                self._entries[entry.key] = entry
                self._sieve.add(entry)
            elif old is not None:
                del self._entries[entry.key]
            surplus = self._surplus() if old is not None else 0
        self._give(surplus)
        return entered

    def _forget(self, key: K) -> bool:
        with self._guard:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._take_off(entry)
            surplus = self._surplus()
        self._give(surplus)
        return entry is not None

    def _take_off(self, entry: Entry[K, V]) -> None:
        """Under the guard."""
        self._sieve.remove(entry)
        self._dirtied.remove(entry)
        self.used -= entry.cost

    def _surplus(self) -> int:
        """Under the guard: pages that are charged and not used; they are ours no longer."""
        surplus = self._pages + -self.used // self._page_bytes
        self._pages -= surplus
        return surplus

    def _give(self, pages: int) -> None:
        if pages:
            self._charge.give(pages)

    # -- as a shrinker -------------------------------------------------------------------------------

    def count_objects(self, control: ScanControl) -> int:
        """Pages that could be given back: the clean ones, and the dirty ones if I/O is allowed."""
        dirty = 0 if control.gfp & Gfp.IO else self._dirtied.pages
        return max(self._pages - dirty, 0)

    def scan(self, control: ScanControl) -> Plan[int]:
        """Look at so many pages' worth of objects; pages freed. Asks: Offload (writing back)."""
        looked = self._evict(control.scan_count * self._page_bytes, None)
        if looked is None:
            return STOP
        control.scanned = max(looked[0] // self._page_bytes, 1)
        freed = looked[1]
        if not freed and control.gfp & Gfp.IO and self._dirtied.pages:
            if not (yield from self._dirtied.write_some(control.scope, control.scan_count)):
                return STOP
        return freed

    def _evict(self, budget: int, wanted: int | None) -> tuple[int, int] | None:
        """Look at objects worth `budget` bytes, drop the unused: bytes looked at, pages freed.

        None if somebody else is inside: a scan must not wait for a lock.
        """
        if not self._guard.acquire(wanted is not None):
            return None
        dropped = []
        looked = gone = 0
        try:
            sieve = self._sieve
            while looked < budget and (wanted is None or gone < wanted):
                entry = sieve.look()
                if entry is None:
                    break
                cost = entry.cost
                looked += cost if cost > _LEAST else _LEAST
                if entry.used:
                    entry.used = False
                elif not entry.dirty:
                    del self._entries[entry.key]
                    sieve.remove(entry)
                    self.used -= cost
                    gone += cost
                    dropped.append(entry)
            self.evicted += len(dropped)
            surplus = self._surplus()
        finally:
            self._guard.release()
        self._give(surplus)
        return looked, surplus

    # -- its end -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write back all that is dirty. Waits: until it is written, or a write fails.

        Raises: what the write raised.
        """
        self._runtime.run(self.flush_plan(self._runtime.scope()))

    def flush_plan(self, scope: int) -> Plan[None]:
        """`flush` as a plan. Asks: Offload, Park."""
        yield from self._dirtied.write_all(scope)

    def close(self) -> None:
        """Write back what is dirty, drop everything, leave the zone. Closing twice is once.

        Raises: what a write raised; then the cache stays as it was.
        """
        if self.closed:
            return
        self.flush()
        self.closed = True
        self._dirtied.stop()
        self._registration.unregister()
        self.clear()
        self._dirtied.leave()
        self._charge.close()

    def stats(self) -> CacheStats:
        dirtied, page = self._dirtied, self._page_bytes
        return CacheStats(
            self.name, len(self._entries), self.used, self._pages * page, dirtied.bytes, self.hits,
            self.misses, self.evicted, self.refused, dirtied.written, dirtied.errors,
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<ShrinkableCache {self.name!r}: {len(self._entries)} objects, "
            f"{format_size(self.used)}, {self.hits} hits, {self.misses} misses, "
            f"{self.evicted} evicted>"
        )

    def check_invariants(self) -> None:
        with self._guard:
            entries = self._entries.values()
            self._sieve.check_invariants()
            assert self._sieve.count == len(entries) and all(entry.linked for entry in entries)
            assert self.used == sum(entry.cost for entry in entries)
            assert self.used <= self._pages * self._page_bytes, "more is kept than is charged"
            self._dirtied.check_invariants()
