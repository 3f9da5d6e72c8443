"""Values larger than memory: which pages stay, which go to swap, and how they come back.

It knows bytes, not objects. A value is cut into pages; each has a frame, or a slot of the swap, or both (it
was read back and not changed, so it can be dropped without being written). Who needs a frame tries the
memory, lightly and then under NOIO; then the reserve; then the frame of the page that was not used for
longest, written out if it has no slot. Only then does it wait, in order of arrival.

One slot is kept for loading: where swap and memory are full, the page that must go out to let another in
takes it, and the one that came in gives its own up. Loads that need it go one after the other.

A page is written from its frame, and the frame is what the writer gets: write-out needs no memory. So one
frame of reserve is enough to store and load values of any size while every allocation fails. If the swap is
full and nothing can be dropped, the store is refused at once, and the old value stays.

Bound: one frame for each page in memory; one short record for each page, in memory or not, which is outside
the zone's limit.

Source: Linux ``mm/swap_state.c``, ``mm/vmscan.c`` (``pageout``, 6.12), restated.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from headway.core.block.lru import EVICT, KEEP, Clock, Verdict
from headway.core.block.spilled import Page, SpillStats, Value
from headway.core.block.supply import Memory, Supply
from headway.core.block.swap import NO_SLOT, Swap
from headway.core.plan import Plan, Runtime, Ticket, park
from headway.errors import BlockError, HeadwayError, NoMemory, PoolClosed


class Spill:
    """Values by key. All fields but the statistics change under `guard`."""

    __slots__ = (
        "_borrower", "_clock", "_closed", "_pages", "_values", "guard", "name", "page_size", "read",
        "runtime", "supply", "swap", "written",
    )  # fmt: skip

    def __init__(
        self, swap: Swap, memory: Memory, *, runtime: Runtime, name: str, reserve_count: int = 1
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.swap = swap
        self.page_size = swap.slot_size
        self.supply = Supply(runtime, memory, reserve_count, name)
        self.guard = self.supply.guard
        self._clock: Clock[Page] = Clock()  # pages that have a frame and are not moving
        self._values: dict[Hashable, Value] = {}
        self._pages = 0  # of all values
        self._borrower: Page | None = None  # the page whose load has taken the last slot
        self._closed = False
        self.written = self.read = 0

    # -- storing and loading -------------------------------------------------------------------------

    def put_plan(self, key: Hashable, data: memoryview) -> Plan[None]:
        """Store a value in the place of what had its key.

        Waits: for a frame, which may mean one write to the swap. Raises: NoMemory at once if neither
        memory nor swap has room (the old value stays); BlockError if the swap fails; PoolClosed.
        """
        value = Value(len(data))
        size = self.page_size
        try:
            for start in range(0, len(data), size):
                frame = yield from self._take()
                part = data[start : start + size]
                frame[: len(part)] = part
                with self.guard:
                    page = Page(frame, self.runtime.now())
                    value.pages.append(page)
                    self._pages += 1
                    self._clock.add(page)
                    waking = self._offer()
                for ticket in waking:
                    ticket.wake()
        except BaseException:
            self._drop(value)
            raise
        with self.guard:
            old = self._values.get(key)
            self._values[key] = value
        if old is not None:
            self._drop(old)

    def get_plan(self, key: Hashable) -> Plan[bytearray]:
        """The value of a key. Waits: for its pages to be read; for frames. Raises: KeyError, BlockError."""
        while True:
            with self.guard:
                value = self._values[key]
            found = bytearray(value.length)
            if (yield from self._load(key, value, memoryview(found))):
                return found

    def _load(self, key: Hashable, value: Value, into: memoryview) -> Plan[bool]:
        """False: the key has another value by now."""
        size = self.page_size
        for number, page in enumerate(value.pages):
            part = into[number * size : (number + 1) * size]
            while True:
                ticket = None
                with self.guard:
                    if self._values.get(key) is not value:
                        return False
                    if page.frame is not None:
                        part[:] = page.frame[: len(part)]
                        page.touched = self.runtime.now()
                        break
                    if page.moving:
                        ticket = Ticket(self.name)
                        page.waiters.append(ticket)
                    else:
                        page.moving = True
                if ticket is not None:
                    yield from park(ticket)
                else:
                    yield from self._read_in(page)
        return True

    def delete(self, key: Hashable) -> None:
        """Forget a value. Waits: never. Raises: KeyError."""
        with self.guard:
            value = self._values.pop(key)
        self._drop(value)

    def _drop(self, value: Value) -> None:
        frames: list[Any] = []
        with self.guard:
            for page in value.pages:
                page.dropped = True
                self._pages -= 1
                if page.moving:
                    continue  # whoever moves it looks at `dropped`
                if page.frame is not None:
                    self._clock.remove(page)
                    frames.append(page.frame)
                    page.frame = None
                if page.slot != NO_SLOT:
                    self.swap.free(page.slot)
        for frame in frames:
            self.supply.put(frame)

    # -- frames --------------------------------------------------------------------------------------

    def _take(self, loading: Page | None = None) -> Plan[Any]:
        """A frame: of the memory, of the reserve, of a page that goes out, or handed over."""
        supply = self.supply
        frame = supply.took((yield supply.light_try))
        if frame is None:
            try:
                frame = supply.took((yield supply.heavy_try))
            except Exception:  # an allocator that fails in its own way has no memory for us
                frame = None
        kicked = False  # somebody saw a page for us: look, whoever else waits
        while frame is None:
            ticket = victim = None
            with self.guard:
                if self._closed:
                    raise PoolClosed(f"spill store {self.name!r} is closed")
                if kicked or not supply.queue:
                    frame = supply.take_reserve()
                    victim = self._victim() if frame is None else None
                if frame is None and victim is None:
                    ticket = Ticket(self.runtime.owner())
                    supply.queue.join(ticket)
                    supply.look_around()
                    supply.waits += 1
            if victim is not None:
                frame = yield from self._write_out(victim, loading)
                kicked = True
            elif ticket is not None:
                frame = yield from self._wait(ticket)
                kicked = True
        return frame

    def _wait(self, ticket: Ticket) -> Plan[Any]:
        """What was handed over; None: look again (it was kicked)."""
        supply = self.supply
        try:
            yield from park(ticket)
        except BaseException:
            with self.guard:
                gift = supply.queue.leave(ticket)
                supply.look_around()
            for frame in gift or ():
                supply.put(frame)
            supply.kick()  # what we may have been told is for the next
            raise
        with self.guard:
            gift = supply.queue.leave(ticket)
            supply.look_around()
        if gift:
            return gift[0]
        return supply.took((yield supply.light_try))

    def _victim(self) -> Page | None:
        """The page that goes next, off the clock and marked as moving. Under the guard."""

        def judge(page: Page) -> Verdict:
            return KEEP if page.moving else EVICT

        page = self._clock.evict(judge)
        if page is not None:
            page.moving = True
        return page

    def _offer(self) -> list[Ticket]:
        """A page came to rest: the first who waits may write it out. Under the guard."""
        ticket = self.supply.queue.first()
        return [] if ticket is None or ticket.claim() else [ticket]

    def _write_out(self, page: Page, loading: Page | None = None) -> Plan[Any]:
        """Take a page's frame, its content written if it has no slot; None: look again.

        Raises: NoMemory if the swap is full, BlockError if it fails; the page stays then.
        """
        slot = page.slot
        if slot == NO_SLOT:
            try:
                slot = self._slot(loading)
            except BlockError as error:
                self._rest(page)
                if loading is not None and (yield from self._after_borrower(loading)):
                    return None
                raise NoMemory(f"spill store {self.name!r}: {error.args[-1]}") from error
            yield from self._write(page, slot)
        with self.guard:
            frame, page.frame = page.frame, None
            page.slot = slot
            page.moving = False
            waking, page.waiters = page.waiters, []
            if page.dropped:
                self.swap.free(slot)
        for ticket in waking:
            ticket.wake()
        return frame

    def _write(self, page: Page, slot: int) -> Plan[None]:
        """Write a moving page. Who is cancelled leaves it moving; the end of the write lets it rest."""
        end: list[BaseException | None] = []
        turns = [1, 0]  # whoever comes second, the end or a cancellation, lets the page rest

        def ended(error: BaseException | None) -> None:
            end.append(error)
            if turns.pop():
                self._written_alone(page, slot, error)

        try:
            yield from self.swap.write_plan(slot, page.frame, ended)
        except BaseException:
            if turns.pop():
                self._written_alone(page, slot, end[0])
            raise
        self.written += 1

    def _written_alone(self, page: Page, slot: int, error: BaseException | None) -> None:
        """Nobody wants the frame any more: the page keeps it, and the slot if that is right."""
        if error is not None:
            self.swap.free(slot)
        page.slot = slot if error is None else NO_SLOT
        self._rest(page)

    def _slot(self, loading: Page | None) -> int:
        """A slot; the last one only for a load, which gives one back when it is done."""
        try:
            return self.swap.alloc(keep=1)
        except BlockError:
            if loading is None:
                raise
            with self.guard:
                if self._borrower is not None:
                    raise
                self._borrower = loading
            try:
                return self.swap.alloc()
            except BaseException:
                self._borrower = None
                raise

    def _after_borrower(self, loading: Page) -> Plan[bool]:
        """Wait until the load that has the last slot is done; False: there is none."""
        with self.guard:
            borrower = self._borrower
            if borrower is None or borrower is loading:
                return False
            ticket = Ticket(self.name)
            borrower.waiters.append(ticket)
        yield from park(ticket)
        return True

    def _read_in(self, page: Page) -> Plan[None]:
        """Give a page that is marked as moving its frame back. Raises: BlockError, NoMemory."""
        try:
            frame = yield from self._take(page)
        except BaseException:
            self._rest(page)
            raise

        def ended(error: BaseException | None) -> None:  # whoever is cancelled, the read goes on
            if error is None:
                self.read += 1
                page.frame = frame
                if self.swap.scarce and not page.dropped:
                    self.swap.free(page.slot)
                    page.slot = NO_SLOT
            self._rest(page)
            if error is not None:
                self.supply.put(frame)

        yield from self.swap.read_plan(page.slot, frame, ended)

    def _rest(self, page: Page) -> None:
        """A transfer of a page has ended, one way or the other."""
        frame = None
        with self.guard:
            page.moving = False
            if self._borrower is page:
                self._borrower = None
            waking, page.waiters = page.waiters, []
            if page.dropped:
                frame, page.frame = page.frame, None
                if page.slot != NO_SLOT:
                    self.swap.free(page.slot)
            elif page.frame is not None:
                self._clock.add(page)
                waking += self._offer()
        if frame is not None:
            self.supply.put(frame)
        for ticket in waking:
            ticket.wake()

    # -- as a shrinker ---------------------------------------------------------------------------------

    def count_objects(self, control: Any) -> int:
        """Pages in memory. Waits: never; takes no lock."""
        return len(self._clock)

    def scan(self, control: Any) -> Plan[int]:
        """Write out up to `control.scan_count` pages; how many frames were freed. It needs IO."""
        return (yield from self.spill_plan(control.scan_count))

    def spill_plan(self, page_count: int) -> Plan[int]:
        """Give back the frames of so many pages, the least used first; how many it were."""
        freed = 0
        while freed < page_count:
            with self.guard:
                page = self._victim()
            if page is None:
                break
            try:
                frame = yield from self._write_out(page)
            except HeadwayError:
                break  # full, or failing: whoever needs the page hears of it
            self.supply.put(frame)
            freed += 1
        return freed

    # -- its end -----------------------------------------------------------------------------------------

    def keys(self) -> Iterator[Hashable]:
        with self.guard:
            return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def close(self) -> None:
        """Forget all values and give the memory back; when nothing is under way. The swap stays open."""
        with self.guard:
            self._closed = True
            values, self._values = self._values, {}
        for value in values.values():
            self._drop(value)
        self.supply.close()

    def stats(self) -> SpillStats:
        resident = len(self._clock)
        return SpillStats(
            self.name, len(self._values), self.page_size, resident, self._pages - resident,
            self.written, self.read, self.supply.waits,
        )  # fmt: skip

    def check_invariants(self) -> None:
        """When nothing is under way: every page has a frame or a slot, and every frame and slot a page."""
        with self.guard:
            pages = [page for value in self._values.values() for page in value.pages]
            assert len(pages) == self._pages
            assert all(not page.moving and not page.dropped for page in pages)
            assert all(page.frame is not None or page.slot != NO_SLOT for page in pages)
            framed = [page for page in pages if page.frame is not None]
            assert all(page in self._clock for page in framed) and len(framed) == len(self._clock)
            assert self.supply.frames == len(framed) + len(self.supply.reserve)
            assert self.swap.used == sum(page.slot != NO_SLOT for page in pages)
