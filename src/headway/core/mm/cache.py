"""A cache that gives way: what it holds is charged to a zone, and dropped when others need the room.

It does not compute what is missing (its user does), and has no size of its own to guess: it takes
what the zone has open above `low`, and shares with the other shrinkers when that is used up. It is
never the reason why a request fails: if there is no room for an object, that one is not kept.

A hit reads a mapping and sets a mark, without a lock. Everything else is a step under the guard; values are
dropped after it, as their finalisers may call us (not those that the garbage collector runs: it may come inside a
guard). An object is charged and entered in one step, so ``used bytes <= charged pages``, always; and if the cache
belongs to a budget, to that one too (`headway.core.mm.holding`). In one pass of reclaim it looks at as many bytes
as it is asked for, so a cache whose objects are in use gives less than one whose objects are idle.

What is dirty (`headway.core.mm.dirtied`) is not dropped, but written back, if the mask allows I/O.

Source: dentries and pages as Linux caches them: ``fs/dcache.c``, ``mm/vmscan.c`` (6.12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from headway.core.mm.budget import Budget
from headway.core.mm.dirtied import Dirtied, WriteBack
from headway.core.mm.domain import Domain
from headway.core.mm.gfp import Gfp, for_allocator
from headway.core.mm.holding import MASK, Holding
from headway.core.mm.shrinker import STOP, Registration, ScanControl
from headway.core.mm.sieve import LEAST, Entry, Sieve
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size
from headway.errors import PoolClosed, UsageError

K = TypeVar("K")
V = TypeVar("V")

_IO, _WAITS = int(Gfp.IO), int(Gfp.DIRECT_RECLAIM)


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
        "__weakref__", "_cost", "_dirtied", "_entries", "_guard", "_holding", "_path", "_registration",
        "_runtime", "_sieve", "closed", "evicted", "hits", "misses", "name", "refused",
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
        budget: Budget | None = None,
    ) -> None:
        self.name = name
        self.closed = False
        self.hits = self.misses = self.evicted = self.refused = 0  # statistics
        self._path = path
        self._runtime = runtime
        self._guard = runtime.guard()
        self._cost = cost
        self._entries: dict[K, Entry[K, V]] = {}
        self._sieve: Sieve[K, V] = Sieve()
        self._holding = Holding(path.zone, name, max_bytes, budget, runtime)
        self._dirtied = Dirtied(self._guard, self._holding, path, runtime, write_back, group)
        self._registration: Registration = path.reclaim.shrinkers.register(
            self, name=name, seeks=seeks, batch=path.reclaim.enough_pages
        )
        self._holding.join(self.give)

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
        if not dirty and self._keep(entry, False):
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
        kept = self._keep(entry, dirty)
        if kept is None:
            kept = yield from self._make_room(entry, dirty, scope, who)
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
            surplus = self._holding.surplus()
        self._holding.give(surplus)

    def pop(self, key: K, *default: Any) -> Any:
        """Take a value out; `default` if it is not there."""
        entry = self._entries.get(key)
        if entry is not None and self._forget(key):
            return entry.value
        if default:
            return default[0]
        raise KeyError(key)

    # -- room ----------------------------------------------------------------------------------------

    def _keep(self, entry: Entry[K, V], dirty: bool, paid: int = 0) -> bool | None:
        """Charge and enter it in one step, so that whatever is charged can be found, and dropped.

        `paid` pages are the budget's already. None if there is no room for it; False if more of that would not
        help: the cache is closed, or there is no room for dirty data (and an older value is gone).
        """
        holding, surplus = self._holding, 0
        with self._guard:
            old = self._entries.get(entry.key)  # first, as a key may be none
            kept = False if self.closed else None
            booked, left = (False, paid) if self.closed else holding.book(entry.cost, paid)
            if booked:
                if old is not None:
                    self._take_off(old)
                kept = not dirty or self._dirtied.add(entry, self._runtime.now())
                if kept:
                    self._entries[entry.key] = entry
                    self._sieve.add(entry)
                else:
                    self._entries.pop(entry.key, None)
                    holding.used -= entry.cost
                surplus = holding.surplus()
        holding.refund(left)
        holding.give(surplus)
        if kept:
            holding.tell()  # who made room after it was paid for, and before it was here, could not see it
        return kept

    def _make_room(self, entry: Entry[K, V], dirty: bool, scope: int, who: str) -> Plan[bool]:
        """Have others, and ourselves, drop what is clean, until it is kept or nothing gives way."""
        zone, holding, cost = self._path.zone, self._holding, entry.cost
        pages = -(-cost // holding.page_bytes) + 1
        if pages > zone.page_count - zone.marks.low:
            return False
        may_reclaim = for_allocator(MASK, scope).may_park
        if holding.max_bytes is not None:
            over = self.used + cost - holding.max_bytes
            if cost > holding.max_bytes or (over > 0 and not may_reclaim):
                return False
            if over > 0:
                self._drop(over)
                kept = self._keep(entry, dirty)
                if kept is not None:
                    return kept
        while True:
            paid = 0
            if holding.budget is not None:
                with self._guard:
                    paid = holding.missing(cost)
                if not (yield from holding.pay(paid, scope, who)):
                    return False
            kept = self._keep(entry, dirty, paid)
            if kept is not None:
                return kept
            if not may_reclaim or not (
                yield from self._path.reclaim.direct(MASK, scope, who, pages)
            ):
                return False

    @property
    def used(self) -> int:
        """Bytes of what is kept, or about to be."""
        return self._holding.used

    @property
    def max_bytes(self) -> int | None:
        """The limit of this cache alone."""
        return self._holding.max_bytes

    def _forget(self, key: K) -> bool:
        with self._guard:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._take_off(entry)
            surplus = self._holding.surplus()
        self._holding.give(surplus)
        return entry is not None

    def _take_off(self, entry: Entry[K, V]) -> None:
        """Under the guard."""
        self._sieve.remove(entry)
        self._dirtied.remove(entry)
        self._holding.used -= entry.cost

    # -- as a shrinker -------------------------------------------------------------------------------

    def count_objects(self, control: ScanControl) -> int:
        """Pages that could be given back: the clean ones, and the dirty ones if I/O is allowed."""
        dirty = 0 if control.gfp & Gfp.IO else self._dirtied.pages
        return max(self._holding.pages - dirty, 0)

    def scan(self, control: ScanControl) -> Plan[int]:
        """Look at so many pages' worth of objects; pages freed. Asks: Offload (writing back)."""
        page_bytes = self._holding.page_bytes
        looked = self._evict(control.scan_count * page_bytes, None)
        if looked is None:
            return STOP
        control.scanned = max(looked[0] // page_bytes, 1)
        freed = looked[1]
        if not freed and control.gfp & Gfp.IO and self._dirtied.pages:
            if not (yield from self._dirtied.write_some(control.scope, control.scan_count, True)):
                return STOP
        return freed

    def give(self, units: int, mask: int, scope: int, hard: bool) -> Plan[int]:
        """For the budget: drop that many bytes' worth; bytes freed. Asks: Offload (writing back), Park.

        What is idle among as many bytes; or, if `hard`, whatever is clean, and what can be made so. For one who
        may not wait it does not wait for a lock either.
        """
        page_bytes = self._holding.page_bytes
        pages = -(-units // page_bytes)
        if not hard:
            looked = self._evict(pages * page_bytes, None)
            return 0 if looked is None else looked[1] * page_bytes
        freed = self._drop(self._holding.excess(pages), bool(mask & _WAITS))
        if freed < pages and mask & _IO and self._dirtied.pages:
            if (yield from self._dirtied.write_some(scope, pages - freed)):
                freed += self._drop(self._holding.excess(pages - freed))
        return freed * page_bytes

    def _drop(self, wanted: int, waits: bool = True) -> int:
        """Drop so many bytes, or all that is clean: in two rounds no mark spares any. Pages freed."""
        if len(self._entries) == self._dirtied.count:
            return 0
        round_ = self.used + LEAST * len(self._entries)
        looked = self._evict(2 * round_ + LEAST, wanted, waits)
        return 0 if looked is None else looked[1]

    def _evict(self, size: int, wanted: int | None, waits: bool = False) -> tuple[int, int] | None:
        """Look at objects worth `size` bytes, drop the unused: bytes looked at, pages freed.

        None if somebody else is inside, and it is not to wait for him, as a scan is not.
        """
        if not self._guard.acquire(waits):
            return None
        dropped: list[Entry[K, V]] = []
        try:
            looked, gone = self._sieve.sift(size, wanted, dropped)
            for entry in dropped:
                del self._entries[entry.key]
            self._holding.used -= gone
            self.evicted += len(dropped)
            surplus = self._holding.surplus()
        finally:
            self._guard.release()
        self._holding.give(surplus)
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
        while not self.closed:
            self.flush()
            with self._guard:
                if not self.closed and not self._dirtied.count:  # else it was put meanwhile
                    self.closed = True
                    break
        else:
            return
        self._dirtied.stop()
        self._registration.unregister()
        self.clear()
        self._dirtied.leave()
        self._holding.close()

    def stats(self) -> CacheStats:
        dirtied, holding = self._dirtied, self._holding
        return CacheStats(
            self.name, len(self._entries), self.used, holding.pages * holding.page_bytes, dirtied.bytes, self.hits,
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
            holding = self._holding
            assert self.used <= holding.pages * holding.page_bytes, "more is kept than is charged"
            self._dirtied.check_invariants()
