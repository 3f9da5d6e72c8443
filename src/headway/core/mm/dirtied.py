"""When dirty objects of a cache are written back, by whom, and in which order.

It does not know how they are written (a callback does), does not evict (`headway.core.mm.cache` does),
and does not count how much is too much: each cache is a device of the zone's throttle
(`headway.core.mm.dirty`), with its part of the limits. The oldest go first. A background plan writes what
has been dirty for 30 seconds, or as soon as a tenth of the zone is dirty (or that share of the cache's
part, of its group's limit, or of its budget); above a fifth, whoever dirties writes back himself before
he may go on, so a fast producer is slowed to the speed of the writing, and a slow cache does not use up
what a fast one needs. Reclaim that may do I/O writes too, when it finds nothing clean; what others write it
leaves to them, for such a write may be waiting for the very room that is being made.

Two writes of one key never overlap, so an old value cannot land on a new one. What fails to be
written stays dirty, and stays charged: data is lost only by being overwritten or deleted.

Bound: the dirty part of a zone is a fifth of it, plus one object for each thread that dirties.

Source: Linux ``mm/page-writeback.c`` (6.12): 30 s of expiry, 10% and 20%. Departure: who is over the
limit does the work instead of sleeping for it, as there is a callback that he can run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar, final

from headway.core.mm.dirty import DirtyDevice, DirtyThrottle
from headway.core.mm.domain import Domain
from headway.core.mm.holding import Holding
from headway.core.mm.sieve import Entry
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Guard, Plan, Runtime, Ticket, now, offload, park, spawn
from headway.errors import UsageError

K = TypeVar("K")
V = TypeVar("V")

WriteBack: TypeAlias = Callable[[K, V], object]
EXPIRE_S: Final = 30.0
RETRY_S: Final = 1.0  # after a failed write, and at most for another's to end
BACKGROUND: Final = 10  # a tenth of the zone
LIMIT: Final = 5  # a fifth


def throttle_of(path: SlowPath, runtime: Runtime) -> DirtyThrottle:
    """The limits on what may be dirty in a zone; made when it is first asked for."""
    zone = path.zone
    background, limit = (zone.page_count // part * zone.page_bytes for part in (BACKGROUND, LIMIT))
    made = DirtyThrottle(max(limit, 1), background, runtime=runtime, name=f"dirty in {zone.name}")
    with zone._step:
        if path.dirty is None:
            path.dirty = made
        throttle: DirtyThrottle = path.dirty
    return throttle


@final
class Dirtied(Generic[K, V]):
    """The dirty entries of one cache, oldest first. All changes under the cache's guard."""

    __slots__ = (
        "_charge", "_done", "_group", "_guard", "_holding", "_idle", "_of", "_order", "_runtime", "_stopping",
        "_write", "_writing", "bytes", "device", "errors", "pages", "running", "written",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        holding: Holding,
        path: SlowPath,
        runtime: Runtime,
        write_back: WriteBack[K, V] | None,
        group: Domain | None = None,
    ) -> None:
        self._of = None if write_back is None else throttle_of(path, runtime)
        self.device: DirtyDevice | None = (
            None if self._of is None else self._of.device(holding.charge.name)
        )
        self._group = group if self._of is None else group or holding.dirty_group(self._of)
        self._guard = guard
        self._holding = holding
        self._charge = holding.charge
        self._runtime = runtime
        self._write = write_back
        self._order: dict[Entry[K, V], None] = {}
        self._writing: dict[K, Entry[K, V]] = {}
        self._done: list[Ticket] = []  # whoever waits for a write to end
        self._idle: Ticket | None = None
        self._stopping = False
        self.bytes = 0
        self.pages = 0  # counted as dirty in the zone
        self.running = False  # the background plan
        self.written = self.errors = 0  # statistics

    def check(self, name: str) -> None:
        """Raises: UsageError if nothing can be written back."""
        if self._write is None:
            raise UsageError(
                f"cache {name!r}: a dirty value was put into it, but it cannot be written back; give "
                "the cache a write_back="
            )

    # -- under the guard -----------------------------------------------------------------------------

    def add(self, entry: Entry[K, V], now_s: float) -> bool:
        """It is dirty; False if there is no room for dirty data: then it has to be written at once."""
        if not self._count(entry.cost):
            return False
        entry.dirty, entry.dirtied_s = True, now_s
        self._order[entry] = None
        return True

    def remove(self, entry: Entry[K, V], *, written: bool = False) -> None:
        """It is clean, or gone."""
        if entry.dirty:
            entry.dirty = False
            del self._order[entry]
            self._count(-entry.cost, written)

    def _count(self, change: int, written: bool = False) -> bool:
        page_bytes, device = self._charge.zone.page_bytes, self.device
        pages = -(-(self.bytes + change) // page_bytes)
        more = pages - self.pages
        if more > 0 and not self._charge.soil(more):
            return False
        self.bytes += change
        self.pages = pages
        assert device is not None
        if more > 0:
            device.account(more * page_bytes, self._group)
        elif more < 0:
            self._charge.wash(-more)
            tell = device.cleaned if written else device.dropped
            tell(-more * page_bytes, self._group)
        return True

    def _pick(self) -> Entry[K, V] | None:
        """The oldest that nobody writes, and no older value of whose key is being written."""
        for entry in self._order:
            if entry.key not in self._writing:
                return entry
        return None

    @property
    def count(self) -> int:
        """Objects that are dirty."""
        return len(self._order)

    # -- writing -------------------------------------------------------------------------------------

    def _write_entry(self, entry: Entry[K, V], scope: int, for_room: bool = False) -> Plan[None]:
        """Write one; `entry` was put into `_writing` by the caller, under the guard.

        Whoever waits for units hears of the end, as others may write it now. Only a failure of one who makes
        room is not told: two of those would wake each other for ever.
        """
        assert self._write is not None
        written = failed = False
        try:
            yield from offload(self._write, entry.key, entry.value, scope=scope)
            written = True
        except Exception:
            failed = True
            raise
        finally:
            with self._guard:
                del self._writing[entry.key]
                if written:
                    self.written += 1
                    self.remove(entry, written=True)
                else:
                    self.errors += 1
                done, self._done = self._done, []
            for ticket in done:
                ticket.wake()
            if written:
                self._charge.zone.tell_clean()
            if not (failed and for_room):
                self._holding.tell()

    def _choose(self, ticket: Ticket | None) -> tuple[Entry[K, V] | None, bool]:
        """The oldest that nobody writes, to be written by us; if there is none, whether others write.

        Then `ticket` hears of the end of a write.
        """
        with self._guard:
            entry, others = self._pick(), bool(self._writing)
            if entry is not None:
                self._writing[entry.key] = entry
            elif others and ticket is not None:
                self._done.append(ticket)
        return entry, others

    def _write_oldest(self, scope: int) -> Plan[bool]:
        """Write the oldest, or wait for a write of another's to end; False if nothing is dirty.

        Raises: what the write raised.
        """
        ticket = Ticket("end of a write")
        entry, others = self._choose(ticket)
        if entry is not None:
            yield from self._write_entry(entry, scope)
        elif others:
            yield from park(ticket, RETRY_S)
        else:
            return False
        return True

    def write_all(self, scope: int) -> Plan[None]:
        """Until nothing is dirty. Raises: what a write raised."""
        while (yield from self._write_oldest(scope)):
            pass

    def write_some(self, scope: int, pages: int, patient: bool = False) -> Plan[bool]:
        """For reclaim: so many pages' worth; False if none could be written.

        It does not wait for what others write; but for RETRY_S, if `patient`, and there is nothing else to write.
        """
        least = self.pages - pages
        done = False
        while self._order and self.pages > least:
            ticket = Ticket("end of a write") if patient and not done else None
            entry, others = self._choose(ticket)
            if entry is None:
                if ticket is not None and others:
                    done = yield from park(ticket, RETRY_S)
                return done
            try:
                yield from self._write_entry(entry, scope, True)
                done = True
            except Exception as error:
                self._complain(error)
                return done
        return done

    def throttle(self, entry: Entry[K, V], kept: bool, scope: int) -> Plan[None]:
        """After a dirty put: write through what was not kept; pay for being over the limit."""
        if not kept:
            yield from self._write_through(entry, scope)
            return
        assert self.device is not None
        while self.device.is_over(self._group):
            if not (yield from self._write_oldest(scope)):
                break  # it is others who are dirty
        with self._guard:
            begin = not self.running and not self._stopping and bool(self._order)
            self.running = self.running or begin
            idle = None
            if self.device.is_due(self._group):
                idle, self._idle = self._idle, None
        if begin:
            try:
                yield from spawn(self._background(), f"write-back of {self._charge.name}")
            except BaseException as error:
                self.running = False
                if not isinstance(error, Exception):
                    raise
                self._runtime.report(  # the value is kept: the next one that is put tries again
                    f"cache {self._charge.name!r}: nobody could be started to write in the background: "
                    f"{error}",
                    once=True,
                )
        elif idle is not None:
            idle.wake()

    def _write_through(self, entry: Entry[K, V], scope: int) -> Plan[None]:
        while True:
            ticket = Ticket("end of a write")
            with self._guard:
                free = entry.key not in self._writing
                if free:
                    self._writing[entry.key] = entry
                else:
                    self._done.append(ticket)
            if free:
                yield from self._write_entry(entry, scope)
                return
            yield from park(ticket, RETRY_S)

    # -- in the background ---------------------------------------------------------------------------

    def _background(self) -> Plan[None]:
        ended = False
        assert self.device is not None
        try:
            while True:
                idle = Ticket(f"dirty data of {self._charge.name}")
                with self._guard:
                    entry = next(iter(self._order), None)
                    if entry is None or self._stopping:
                        self.running = False
                        ended = True
                        return
                    self._idle = idle
                left_s = entry.dirtied_s + EXPIRE_S - (yield from now())
                if left_s > 0 and not self.device.is_due(self._group):
                    yield from park(idle, left_s)
                    continue
                try:
                    yield from self._write_oldest(0)
                except Exception as error:
                    self._complain(error)
                    yield from park(idle, RETRY_S)
        finally:
            if not ended:  # cancelled, or its loop was closed
                self.running = False

    def stop(self) -> None:
        """End the background plan. Waits: never."""
        with self._guard:
            self._stopping = True
            idle, self._idle = self._idle, None
        if idle is not None:
            idle.wake()

    def leave(self) -> None:
        """The cache is closed: nothing of it is dirty any more."""
        if self._of is not None and self.device is not None:
            self._of.forget(self.device)

    def _complain(self, error: Exception) -> None:
        self._runtime.report(
            f"cache {self._charge.name!r}: writing back raised {type(error).__name__}: {error}; "
            "it stays dirty and is tried again",
            once=True,
        )

    def check_invariants(self) -> None:
        assert self.bytes == sum(entry.cost for entry in self._order)
        assert all(entry.dirty and entry.linked for entry in self._order)
        dirty = 0 if self.device is None else self.device.dirty
        assert dirty == self.pages * self._charge.zone.page_bytes
        assert self.pages == -(-self.bytes // self._charge.zone.page_bytes) == self._charge.dirty
