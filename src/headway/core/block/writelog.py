"""The log of a write cache, carried out: committed, written back, and found again after a power cut.

What lies where is `ring`'s, how it looks on the device is `logformat`'s. Two workers, each one thing at
a time. The committer (`committing`) seals the open segment, waits for the writes into it, writes headers,
and flushes the fast device once for all of them. The cleaner starts when
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

from headway.core.block.bio import FLUSH, WRITE, ZERO
from headway.core.block.committing import Committer, again
from headway.core.block.device import Extent
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.core.block.logcopy import Runs
from headway.core.block.logformat import Entry, Format, Header, State
from headway.core.block.logreplay import Found
from headway.core.block.ring import Place, Ring, Segment, Where
from headway.core.block.spec import Site
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError

_BATCH: Final = 32  # most segments that are written back before the tail moves
_TOLD: Final = 1024  # blocks that are looked at for one extent


@final
class WriteLog:
    """The log of `slow` on `fast`. `ring` and all fields change under the guard."""

    def __init__(
        self, slow: Layer, fast: Layer, form: Format, state: State, site: Site, buffer: int,
        marks: tuple[int, int],
    ) -> None:  # fmt: skip
        self.guard = site.runtime.guard()
        self.ring = Ring(form.slots, form.section, state.tail, state.sequence, state.epoch + 1)
        self.slow, self.fast, self.form, self._state = slow, fast, form, state
        self._low, self._high = marks  # blocks of the ring
        self._commits = site.bios("commits", 1)
        self._cleans = site.bios("write-backs", 1)
        self._header = site.pool("header", site.buffers(form.block), 1)
        self._buffers = site.pool("write-back", site.buffers(buffer), 1)
        committing = site.workers("commit", limit=1, rescuer=False)
        self.committer = Committer(self.guard, committing, self._commit, self._after_commit)
        self.flush = self.committer.flush
        self._cleaner = site.workers("write-back", limit=1, rescuer=False)
        self._waiting: deque[tuple[Ticket, int, int]] = deque()  # for room, with what they need
        self._cleaning = self._draining = False
        self._idle: Ticket | None = None  # who waits until nothing is written back
        self.stuck: BlockError | None = None  # of the last write-back
        self.commits = self.written_back = self.replayed = self.waits = 0

    # -- room ----------------------------------------------------------------------------------------

    def place_now(self, count: int, covers: int) -> Place | None:
        """Room for `count` entries of `covers` blocks, if that needs no wait. Waits: never."""
        with self.guard:
            if self.committer.error is not None or self._waiting:
                return None
            return self.ring.place(count, covers)

    def place(self, count: int, covers: int) -> Plan[Place]:
        """Room for `count` entries of `covers` blocks. Raises: what the devices failed with. Waits: for write-back."""
        with self.guard:
            if self.committer.error is not None:
                raise again(self.committer.error)
            place = None if self._waiting else self.ring.place(count, covers)
            if place is None:
                ticket = Ticket("room in the write cache", count)
                self._waiting.append((ticket, count, covers))
                self.waits += 1
        if place is not None:
            return place
        self.committer.ask()
        self.clean()
        try:
            yield from park(ticket)
        except BaseException:
            with self.guard:
                self._waiting = deque(one for one in self._waiting if one[0] is not ticket)
                gift = ticket.take_gift()
            if gift is not None and isinstance(gift[0], Place):
                self.ended(gift[0], None)
            raise
        gift = ticket.take_gift()
        assert gift is not None
        if isinstance(gift[0], BlockError):
            raise again(gift[0])
        given: Place = gift[0]
        return given

    def ended(self, place: Place, entries: list[Entry] | None) -> None:
        """The blocks of a place are on the fast device; None: they are not, and nothing is changed by that."""
        with self.guard:
            ticket = self.ring.failed(place) if entries is None else self.ring.done(place, entries)
            full = self.ring.filled > self._high
        if ticket is not None:
            ticket.wake()
        if full:
            self.clean()

    def forget(self, offset: int, length: int) -> None:
        """Nobody needs the contents of these bytes."""
        with self.guard:
            self.ring.forget(offset // self.form.block, length // self.form.block)

    def find(self, offset: int, length: int) -> Where:
        """Where these bytes are, as far as they are in one place; what is in a segment, `read` lets go."""
        with self.guard:
            return self.ring.find(offset // self.form.block, length // self.form.block)

    def extent(self, offset: int) -> Plan[Extent]:
        """Data or hole: as the log tells of what it has, and the slow device of the rest."""
        size = self.form.block
        start = offset // size * size
        most = min(_TOLD, self.form.blocks - start // size)
        found = self.find(start, most * size)
        end = start + found.count * size
        if found.segment is not None:
            self.read(found.segment)
        elif not found.zeros:
            below = yield from self.slow.extent(offset)
            return Extent(min(below.end, end), below.hole)
        return Extent(end, found.zeros)

    def is_durable(self) -> bool:
        """Whether a flush would find nothing to do."""
        with self.guard:
            waits = self.committer.error is not None or self.committer.is_waited_for
            return not waits and not self.ring.dirty

    def _give(self, error: BlockError | None = None) -> list[Ticket]:
        """Under the guard: give room, or an error, to those who wait; whom to wake."""
        woken = []
        while self._waiting:
            ticket, count, covers = self._waiting[0]
            given = self.ring.place(count, covers) if error is None else error
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

    def _commit(self) -> Plan[None]:
        with self.guard:
            self.ring.seal()
            sealed = self.ring.sealed()
        if sealed:
            yield from self._make_durable(sealed)
            with self.guard:
                self.ring.committed(sealed)
                self.commits += 1

    def _make_durable(self, sealed: list[Segment]) -> Plan[None]:
        form = self.form
        [block] = yield from Line().take(self._header)
        try:
            for segment in sealed:
                with self.guard:
                    ticket = segment.settled()
                if ticket is not None:
                    yield from park(ticket)
                header = Header(
                    segment.sequence, segment.start, segment.epoch, self.ring.durable, segment.entries
                )  # fmt: skip
                part = block[: form.block]
                part[:] = form.header(header)
                yield from self._commits.ask(self.fast, WRITE, form.address(segment.start), part)
            yield from self._commits.ask(self.fast, FLUSH)
        finally:
            self._header.free(block)

    def _after_commit(self) -> None:
        with self.guard:
            failed = self.committer.error
            woken = [] if failed is None else self._give(failed)
            wanted = bool(self._waiting) or self._draining or self.ring.filled > self._high
        for ticket in woken:
            ticket.wake()
        if wanted and failed is None:
            self.clean()

    # -- writing back ------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Have room made. Waits: never."""
        with self.guard:
            busy, self._cleaning = self._cleaning, True
        if not busy:
            self._cleaner.queue(self._clean)

    def _clean(self) -> Plan[None]:
        error: BlockError | None = None
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
                error = again(raised)
        for ticket in woken:
            ticket.wake()
        if uncommitted:
            self.committer.ask()

    def _batch(self) -> list[Segment]:
        """Under the guard: what is to be written back next."""
        batch = self.ring.oldest(_BATCH, 0 if self._draining else self._low)
        if not batch and self._waiting:  # one write may need more than is above the mark
            batch = self.ring.oldest(1, 0)
        return batch

    def _write_back(self, batch: list[Segment]) -> Plan[None]:
        with self.guard:
            needed = self.ring.needed(batch)
        [buffer] = yield from Line().take(self._buffers)
        try:
            runs = Runs(self.ring, self.form, self.slow, self.fast, self._cleans, buffer)
            yield from runs.copy(sorted(needed.items()))
        finally:
            self._buffers.free(buffer)
        yield from self._cleans.ask(self.slow, FLUSH)
        with self.guard:
            after = self.ring.tail_after(batch)
        yield from self._say(*after)
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

    def _say(self, tail: int, sequence: int, since: int) -> Plan[None]:
        """Make it durable where the log begins. Called by one task at a time."""
        state = State(self._state.generation + 1, self.ring.epoch, tail, sequence, since)
        part = memoryview(self.form.superblock(state))
        yield from self._cleans.ask(self.fast, WRITE, self.form.superblock_at(state), part)
        yield from self._cleans.ask(self.fast, FLUSH)
        self._state = state

    # -- its life --------------------------------------------------------------------------------------

    def start(self, create: bool) -> Plan[None]:
        """Make a new log, or find what is in the old one. Raises: BlockError."""
        form, state = self.form, self._state
        if create:
            yield from self._cleans.ask(self.fast, ZERO, 0, None, form.end)
            yield from self._cleans.ask(self.fast, FLUSH)
        else:
            [block] = yield from Line().take(self._header)
            try:
                found = Found(form, state, self.fast, self._cleans, block[: form.block])
                self.replayed = yield from found.replay(self.ring)
            finally:
                self._header.free(block)
        yield from self._say(*self.ring.tail_after([]))  # also makes durable what was found

    def close(self, drain: bool) -> Plan[None]:
        """Commit what is left; with `drain` write all of it back. What cannot be stays in the log.

        Raises: BlockError, what a device failed with, if something is not where it should be by now.
        """
        yield from self.committer.last()  # after its end: it may ask for room yet
        idle = Ticket("the last write-back")
        with self.guard:
            self._draining = drain
            if drain or self._cleaning:
                self._idle = idle
        if drain:
            self.clean()
        if drain or self._idle is idle:
            yield from park(idle)
        failure = self.committer.error or (self.stuck if drain else None)
        if failure is not None and self.ring.segments:
            raise again(failure)

    def stats(self) -> dict[str, object]:
        failure = self.committer.error or self.stuck
        return {
            "cached": self.ring.cached, "used": self.ring.used, "slots": self.form.slots,
            "commits": self.commits, "written_back": self.written_back, "replayed": self.replayed,
            "waits": self.waits, "failure": None if failure is None else str(failure),
        }  # fmt: skip
