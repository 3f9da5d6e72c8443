"""The log of a write cache, carried out: committed, written back, and found again after a power cut.

What lies where is `ring`'s, how it looks on the device is `logformat`'s. Two workers, each one thing at
a time. The committer seals the open segment, waits for the writes into it, writes headers, and flushes
the fast device once for all of them; then the flushes that wait are complete. The cleaner starts when
more than `high` blocks are used, or somebody waits for room: it writes the newest copies of the oldest
segments to the slow device, in order of their place there, flushes it, moves the tail in the superblock,
flushes that, and only then is the room free. It stops when no more than `low` are used.

Who needs room waits in order of arrival, and is given it (`Ticket.gift`). If writing back fails, those
who wait are told, and it is tried again when room is wanted next; nothing is lost. If a commit fails,
nothing is promised any more: every later write and flush fails, and reads go on.
Bound: for the committer a header's block and a bio, for the cleaner a buffer and a bio; nothing else.

Source: Linux ``drivers/md/dm-writecache.c`` (``writecache_flush``, ``writecache_writeback``, 6.12).
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from headway.core.block.bio import FLUSH, READ, WRITE, ZERO, Bio, Op
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.line import Line, carry_out
from headway.core.block.logformat import Entry, Format, Header, State, check
from headway.core.block.ring import Place, Ring, Segment
from headway.core.block.spec import Site
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError

_BATCH: Final = 32  # most segments that are written back before the tail moves


@final
class WriteLog:
    """The log of `slow` on `fast`. `ring` and all fields change under the guard."""

    def __init__(
        self, slow: Layer, fast: Layer, form: Format, state: State, site: Site, buffer: int,
        marks: tuple[int, int],
    ) -> None:  # fmt: skip
        self.guard = site.runtime.guard()
        self.ring = Ring(form.slots, form.section, state.tail, state.sequence)
        self._slow, self._fast, self._form, self._state = slow, fast, form, state
        self._low, self._high = marks  # blocks of the ring
        self._commits = site.bios("commits", 1)
        self._cleans = site.bios("write-backs", 1)
        self._header = site.pool("header", site.buffers(form.block), 1)
        self._buffers = site.pool("write-back", site.buffers(buffer), 1)
        self._committer = site.workers("commit", limit=1, rescuer=False)
        self._cleaner = site.workers("write-back", limit=1, rescuer=False)
        self._waiting: deque[tuple[Ticket, int]] = deque()  # for room, with the entries they need
        self._flushes: list[Bio] = []
        self._queued = self._cleaning = self._draining = False
        self._idle: Ticket | None = None  # who waits until nothing is written back
        self.error: BaseException | None = None  # of a commit: for good
        self.stuck: BaseException | None = None  # of the last write-back
        self.commits = self.written_back = self.replayed = self.waits = 0

    # -- room ----------------------------------------------------------------------------------------

    def place_now(self, count: int) -> Place | None:
        """Room for `count` entries, if that needs no wait. Waits: never."""
        with self.guard:
            if self.error is not None or self._waiting:
                return None
            return self.ring.place(count)

    def place(self, count: int) -> Plan[Place]:
        """Room for `count` entries. Raises: what the devices failed with. Waits: for write-back."""
        with self.guard:
            if self.error is not None:
                raise self.error
            place = None if self._waiting else self.ring.place(count)
            if place is None:
                ticket = Ticket("room in the write cache", count)
                self._waiting.append((ticket, count))
                self.waits += 1
        if place is not None:
            return place
        self.commit()
        self.clean()
        try:
            yield from park(ticket)
        except BaseException:
            with self.guard:
                self._waiting = deque(one for one in self._waiting if one[0] is not ticket)
                gift = ticket.take_gift()
            if gift is not None and isinstance(gift[0], Place):
                self.failed(gift[0])
            raise
        gift = ticket.take_gift()
        assert gift is not None
        if isinstance(gift[0], BaseException):
            raise gift[0]
        given: Place = gift[0]
        return given

    def done(self, place: Place, entries: list[Entry]) -> None:
        """The blocks of a place are on the fast device."""
        with self.guard:
            ticket = self.ring.done(place, entries)
            full = self.ring.used > self._high
        if ticket is not None:
            ticket.wake()
        if full:
            self.clean()

    def failed(self, place: Place) -> None:
        """They are not, and nothing is changed by that."""
        with self.guard:
            ticket = self.ring.failed(place)
        if ticket is not None:
            ticket.wake()

    def forget(self, first: int, count: int) -> None:
        """Nobody needs the contents of these blocks."""
        with self.guard:
            self.ring.forget(first, count)

    def is_durable(self) -> bool:
        """Whether a flush would find nothing to do."""
        with self.guard:
            return self.error is None and not self.ring.dirty and not self._flushes

    def _give(self, error: BaseException | None = None) -> list[Ticket]:
        """Under the guard: give room, or an error, to those who wait; whom to wake."""
        woken = []
        while self._waiting:
            ticket, count = self._waiting[0]
            given = self.ring.place(count) if error is None else error
            if given is None:
                break
            self._waiting.popleft()
            ticket.gift = [given]
            woken.append(ticket)
        return woken

    def read(self, segment: Segment) -> None:
        """A read that `Ring.find` pinned has ended."""
        with self.guard:
            ticket = segment.read()
        if ticket is not None:
            ticket.wake()

    # -- committing ------------------------------------------------------------------------------------

    def flush(self, bio: Bio) -> None:
        """Complete `bio` when all that was done before is durable. Waits: never."""
        with self.guard:
            self._flushes.append(bio)
        self.commit()

    def commit(self) -> None:
        """Have what is in the log made durable. Waits: never."""
        with self.guard:
            queued, self._queued = self._queued, True
        if not queued:
            self._committer.queue(self._commit)

    def _commit(self) -> Plan[None]:
        with self.guard:
            self._queued = False
            flushes, self._flushes = self._flushes, []
            self.ring.seal()
            sealed, failed = self.ring.sealed(), self.error
        if failed is None and sealed:
            try:
                yield from self._make_durable(sealed)
            except Exception as error:
                failed = error
        with self.guard:
            woken = []
            if failed is not None:
                self.error = failed
                woken = self._give(failed)
            elif sealed:
                self.ring.committed(sealed)
                self.commits += 1
            wanted = bool(self._waiting) or self._draining or self.ring.used > self._high
        for bio in flushes:
            bio.complete(failed)
        for ticket in woken:
            ticket.wake()
        if wanted and failed is None:
            self.clean()

    def _make_durable(self, sealed: list[Segment]) -> Plan[None]:
        form = self._form
        [block] = yield from Line().take(self._header)
        try:
            for segment in sealed:
                with self.guard:
                    ticket = segment.settled()
                if ticket is not None:
                    yield from park(ticket)
                header = Header(
                    segment.sequence, segment.start, self._state.epoch, self.ring.durable, segment.entries
                )  # fmt: skip
                part = block[: form.block]
                part[:] = form.header(header)
                yield from self._do(self._commits, self._fast, WRITE, form.address(segment.start), part)
            yield from self._do(self._commits, self._fast, FLUSH)
        finally:
            self._header.free(block)

    # -- writing back ------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Have room made. Waits: never."""
        with self.guard:
            busy, self._cleaning = self._cleaning, True
        if not busy:
            self._cleaner.queue(self._clean)

    def _clean(self) -> Plan[None]:
        error: BaseException | None = None
        while True:
            with self.guard:
                batch = [] if error is not None else self._batch()
                if not batch:
                    self._cleaning, self.stuck = False, error
                    woken = [] if error is None else self._give(error)
                    if self._idle is not None:
                        woken.append(self._idle)
                        self._idle = None
                    # All the room may be in what is not committed; a commit asks for us again.
                    uncommitted = bool(self._waiting) and self.ring.dirty
                    break
            try:
                yield from self._write_back(batch)
            except Exception as raised:
                error = raised
        for ticket in woken:
            ticket.wake()
        if uncommitted:
            self.commit()

    def _batch(self) -> list[Segment]:
        """Under the guard: what is to be written back next."""
        batch = self.ring.oldest(_BATCH, 0 if self._draining else self._low)
        if not batch and self._waiting:  # one write may need more than is above the mark
            batch = self.ring.oldest(1, 0)
        return batch

    def _write_back(self, batch: list[Segment]) -> Plan[None]:
        with self.guard:
            needed = self.ring.needed(batch)
        yield from self._copy(sorted(needed.items()))
        yield from self._do(self._cleans, self._slow, FLUSH)
        with self.guard:
            tail, sequence = self.ring.tail_after(batch)
        yield from self._say(tail, sequence)
        with self.guard:
            self.ring.drop(batch)
        for segment in batch:
            with self.guard:
                ticket = segment.quiet()
            if ticket is not None:
                yield from park(ticket)
        with self.guard:
            self.ring.release(batch)
            self.written_back += len(needed)
            woken = self._give()
        for ticket in woken:
            ticket.wake()

    def _copy(self, needed: list[tuple[int, int]]) -> Plan[None]:
        """Runs of neighbours, each as long as the buffer, in order."""
        size = self._form.block
        [buffer] = yield from Line().take(self._buffers)
        try:
            at = 0
            while at < len(needed):
                number, position = needed[at]
                zeros = self.ring.is_zeros(position)
                run, most = 1, len(needed) - at if zeros else len(buffer) // size
                while (
                    run < most
                    and at + run < len(needed)
                    and needed[at + run][0] == number + run
                    and self.ring.is_zeros(needed[at + run][1]) == zeros
                ):
                    run += 1
                if zeros:
                    yield from self._do(
                        self._cleans, self._slow, ZERO, number * size, None, run * size
                    )
                else:
                    part = buffer[: run * size]
                    yield from self._gather([pair[1] for pair in needed[at : at + run]], part)
                    yield from self._do(self._cleans, self._slow, WRITE, number * size, part)
                at += run
        finally:
            self._buffers.free(buffer)

    def _gather(self, positions: list[int], into: memoryview) -> Plan[None]:
        """Read blocks of the log, neighbours at once."""
        size, at = self._form.block, 0
        while at < len(positions):
            run = 1
            while at + run < len(positions) and positions[at + run] == positions[at] + run:
                run += 1
            part = into[at * size : (at + run) * size]
            yield from self._do(
                self._cleans, self._fast, READ, self._form.address(positions[at]), part
            )
            at += run

    def _say(self, tail: int, sequence: int) -> Plan[None]:
        """Make it durable where the log begins. Called by one task at a time."""
        state = State(self._state.generation + 1, self._state.epoch, tail, sequence)
        part = memoryview(self._form.superblock(state))
        yield from self._do(
            self._cleans, self._fast, WRITE, self._form.superblock_at(state), part
        )
        yield from self._do(self._cleans, self._fast, FLUSH)
        self._state = state

    def _do(
        self, bios: BioSet, layer: Layer, op: Op, offset: int = 0, view: memoryview | None = None,
        length: int = 0,
    ) -> Plan[None]:  # fmt: skip
        bio = yield from bios.make(op, offset, view, length if view is None else len(view))
        yield from carry_out(layer, bio)
        error = bio.error
        bios.free(bio)
        if error is not None:
            raise error

    # -- its life --------------------------------------------------------------------------------------

    def start(self, create: bool) -> Plan[None]:
        """Make a new log, or find what is in the old one. Raises: BlockError."""
        form, state = self._form, self._state
        if create:
            yield from self._do(self._cleans, self._fast, ZERO, 0, None, form.end)
            yield from self._do(self._cleans, self._fast, FLUSH)
        else:
            yield from self._replay()
        self._state = State(state.generation, state.epoch + 1, state.tail, state.sequence)
        yield from self._say(*self.ring.tail_after([]))  # also makes durable what was found

    def _replay(self) -> Plan[None]:
        """Follow the headers; then make sure that nothing is taken for the next one."""
        form = self._form
        [block] = yield from Line().take(self._header)
        found: list[Header] = []
        try:
            while True:
                header = None
                for position in self._next(found):
                    header = header or (yield from self._header_at(position, found, block))
                if header is None:
                    break
                found.append(header)
            sure = found[-1].durable if found else 0
            for header in found:
                if header.sequence > sure and not (yield from self._is_whole(header, block)):
                    break
                self.ring.replay(header)
                self.replayed += sum(entry is not None for entry in header.entries)
            block[: form.block] = bytes(form.block)
            for position in self._next(found[: len(self.ring.segments)]):
                if position + 1 - self.ring.tail <= form.slots:
                    yield from self._do(
                        self._cleans, self._fast, WRITE, form.address(position), block[: form.block]
                    )
        finally:
            self._header.free(block)

    def _next(self, found: list[Header]) -> list[int]:
        """Where the header after these may be."""
        state, slots = self._state, self._form.slots
        end = found[-1].position + 1 + len(found[-1].entries) if found else state.tail
        return [end, -(-end // slots) * slots] if end % slots else [end]

    def _header_at(
        self, position: int, found: list[Header], block: memoryview
    ) -> Plan[Header | None]:
        form = self._form
        sequence = found[-1].sequence + 1 if found else self._state.sequence
        part = block[: form.block]
        yield from self._do(self._cleans, self._fast, READ, form.address(position), part)
        header = form.parse_header(part, position, sequence)
        if header is None or (found and header.epoch < found[-1].epoch):
            return None
        begin = found[0].position if found else position
        return header if position + 1 + len(header.entries) - begin <= form.slots else None

    def _is_whole(self, header: Header, block: memoryview) -> Plan[bool]:
        """Whether the data of a segment came to the device before the power went."""
        form = self._form
        part = block[: form.block]
        for at, entry in enumerate(header.entries, header.position + 1):
            if entry is not None and not entry.zeros:
                yield from self._do(self._cleans, self._fast, READ, form.address(at), part)
                if check(part) != entry.check:
                    return False
        return True

    def close(self, drain: bool) -> Plan[None]:
        """Commit what is left; with `drain` write all of it back. What failed, the last flush told, and
        stays in the log."""
        last = Bio(FLUSH)
        ticket = Ticket("the last commit")
        last.push(lambda bio: ticket.wake())
        self.flush(last)
        yield from park(ticket)
        idle = Ticket("the last write-back")
        with self.guard:
            self._draining = drain
            if drain or self._cleaning:
                self._idle = idle
        if drain:
            self.clean()
        if drain or self._idle is idle:
            yield from park(idle)

    @property
    def failure(self) -> BlockError | None:
        """What keeps it from working now, for people."""
        error = self.error or self.stuck
        return error if isinstance(error, BlockError) else None
