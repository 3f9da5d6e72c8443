"""A journal of two sections: one takes writes in memory, the other is being made durable.

It does not check what is read, nor know what the blocks are: `integrity` keeps a user's in it, `thin` its
table. A write is copied into the open section, and
is done; that is a disk's cache, which a flush empties. One worker commits (`committing`): the journal slot
is written, flushed (this also makes what was put in place before durable, so the other slot is free for the
next section), and then tags and data go to their places. Whatever happens in between, a block and its tag
are both old, or both new, or in a whole section that is put in place again at the next start.

A block is read from memory until it is in its place. `epoch` counts sections put in place: whoever reads
a block, then its tag, then looks into memory, knows by it that they may have changed between. After a
failure of the device nothing more is written, and every flush tells it.
Bound: two buffers of one section, taken for good; 1 bio, and 1 block for tags.

Source: Linux ``drivers/md/dm-integrity.c`` (6.12), in small: there sections are many.
"""

from __future__ import annotations

from contextlib import suppress
from typing import final

from headway.core.block.bio import FLUSH, READ, WRITE, ZERO, Op
from headway.core.block.committing import Committer, again
from headway.core.block.layer import Layer
from headway.core.block.line import Line
from headway.core.block.spec import Site
from headway.core.block.tagformat import WIDTH, Format
from headway.core.plan import Plan, Ticket, park


@final
class Sections:
    """The journal of `below`. All fields change under the guard.

    With `ahead` everything else that was written to `below` is made durable first, so that no block here
    tells of what may be lost; then a flush covers that as well.
    """

    def __init__(self, below: Layer, form: Format, site: Site, *, ahead: bool = False) -> None:
        self._below, self._form, self._ahead = below, form, ahead
        self._guard = site.runtime.guard()
        self._bios = site.bios("journal", 1)
        self._pool = site.pool("sections", site.buffers(form.section_size), 2)
        self._tags = memoryview(bytearray(form.block))  # the committer's own
        journal = site.workers("journal", limit=1, rescuer=False)
        self._committer = Committer(self._guard, journal, self._commit, self._settle)
        self.flush = self._committer.flush
        self._buffers: list[memoryview] = []
        self._open: dict[int, int] = {}  # block number to its place in the open section's buffer
        self._closing: dict[int, int] = {}  # the same of the one that is being committed
        self._entries: list[
            tuple[int, bytes]
        ] = []  # its numbers and tags, once it is in the journal
        self._waiting: list[Ticket] = []  # for room
        self._sequence = 0
        self.epoch = self.commits = self.replayed = 0

    # -- in memory ---------------------------------------------------------------------------------

    def put(self, number: int, data: memoryview | None) -> Plan[None]:
        """Take a block (None: zeros). Raises: what the device failed with. Waits: for a commit."""
        size = self._form.block
        while True:
            with self._guard:
                if self._committer.error is not None:
                    raise again(self._committer.error)
                place = self._open.get(number)
                if place is None and len(self._open) < self._form.section:
                    place = self._open[number] = len(self._open) + 1
                if place is not None:
                    part = self._buffers[0][place * size : (place + 1) * size]
                    part[:] = bytes(size) if data is None else data
                    return
                ticket = Ticket("room in the journal")
                self._waiting.append(ticket)
            self._committer.ask()
            yield from park(ticket)

    def newest(self, number: int, into: memoryview) -> bool:
        """Copy a block that is not in its place yet; False: it is."""
        size = self._form.block
        with self._guard:
            for at, held in ((0, self._open), (1, self._closing)):
                place = held.get(number)
                if place is not None:
                    into[:] = self._buffers[at][place * size : (place + 1) * size]
                    return True
        return False

    def holds(self, first: int, end: int) -> bool:
        """Whether a block of a range is not in its place yet."""
        with self._guard:
            return any(
                number in self._open or number in self._closing for number in range(first, end)
            )

    # -- to the device -------------------------------------------------------------------------------

    def _commit(self) -> Plan[None]:
        with self._guard:
            self._closing, self._open = self._open, {}
            self._buffers.reverse()
        self._wake()  # there is room
        if self._ahead:
            yield from self._do(FLUSH, 0, None)
        if self._closing:
            yield from self._journal()

    def _wake(self) -> None:
        with self._guard:
            woken, self._waiting = self._waiting, []
        for ticket in woken:
            ticket.wake()

    def _journal(self) -> Plan[None]:
        """Make the closing section durable in its slot."""
        form, buffer = self._form, self._buffers[1]
        size = form.block
        entries = [
            (number, form.tag(number, buffer[place * size : (place + 1) * size]))
            for number, place in self._closing.items()
        ]
        self._sequence += 1
        buffer[:size] = form.head(self._sequence, entries)
        yield from self._do(WRITE, form.slot(self._sequence), buffer[: (len(entries) + 1) * size])
        yield from self._do(FLUSH, 0, None)
        self.commits += 1
        self._entries = entries

    def _settle(self) -> Plan[None]:
        """Put a section that was committed in its place; it stays in memory if that fails."""
        entries, self._entries = self._entries, []
        if entries:
            try:
                yield from self._place(entries, self._buffers[1])
            except Exception as error:
                self._committer.fail(error)
            else:
                with self._guard:
                    self._closing = {}
                    self.epoch += 1
        if self._committer.error is not None:
            self._wake()  # they are to hear of it

    def _place(self, entries: list[tuple[int, bytes]], buffer: memoryview) -> Plan[None]:
        form, tags = self._form, self._tags
        size, per = form.block, form.tags_per_block
        ordered = sorted((number, at, tag) for at, (number, tag) in enumerate(entries, 1))
        held: int | None = None  # the block of tags that is in memory
        for number, at, tag in ordered:
            if number // per != held:
                if held is not None:
                    yield from self._do(WRITE, form.tags_start + held * size, tags)
                held = number // per
                yield from self._do(READ, form.tags_start + held * size, tags)
            tags[number % per * WIDTH : number % per * WIDTH + WIDTH] = tag
            part = buffer[at * size : (at + 1) * size]
            yield from self._do(WRITE, form.data_start + number * size, part)
        if held is not None:
            yield from self._do(WRITE, form.tags_start + held * size, tags)

    def _do(self, op: Op, offset: int, view: memoryview | None, length: int = 0) -> Plan[None]:
        return self._bios.ask(self._below, op, offset, view, length)

    # -- its life --------------------------------------------------------------------------------------

    def start(self, create: bool) -> Plan[None]:
        """Write a new format, or put in place what a journal holds. Raises: BlockError."""
        self._buffers = yield from Line().take(self._pool, 2)
        try:
            yield from self._create() if create else self._replay()
        except BaseException:
            self.give_back()
            raise

    def _create(self) -> Plan[None]:
        form = self._form
        yield from self._do(ZERO, 0, None, form.data_start)
        yield from self._do(FLUSH, 0, None)
        yield from self._do(WRITE, 0, memoryview(form.superblock()))
        yield from self._do(FLUSH, 0, None)

    def _replay(self) -> Plan[None]:
        form = self._form
        found = []
        for number in (0, 1):
            buffer = self._buffers[number]
            yield from self._do(READ, form.slot(number), buffer[: form.section_size])
            section = form.parse_section(buffer)
            if section is not None:
                found.append((section[0], section[1], buffer))
        for sequence, entries, buffer in sorted(found, key=lambda one: one[0]):
            yield from self._place(entries, buffer)
            self._sequence = sequence
            self.replayed += len(entries)
        if found:
            yield from self._do(FLUSH, 0, None)

    def close(self) -> Plan[None]:
        """Commit what is left, and give the buffers back. What failed, the last flush told."""
        yield from self._committer.last()
        if self._committer.error is None and (self.commits or self.replayed):
            with suppress(Exception):  # then it is put in place once more at the next start
                yield from self._forget()
        self.give_back()

    def _forget(self) -> Plan[None]:
        """Empty the journal, of which all is in place: the older section first, lest it be replayed
        alone, over what is newer."""
        self._tags[:] = bytes(self._form.block)
        yield from self._do(FLUSH, 0, None)
        for sequence in (self._sequence - 1, self._sequence):
            yield from self._do(WRITE, self._form.slot(sequence), self._tags)
            yield from self._do(FLUSH, 0, None)

    def give_back(self) -> None:
        """Let go of the buffers: after `close`, or if whoever uses it could not start."""
        with self._guard:
            buffers, self._buffers = self._buffers, []
        for buffer in buffers:
            self._pool.free(buffer)
