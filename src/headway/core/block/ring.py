"""A write cache's log as it is in memory: where there is room, and where the newest copy of a block is.

It does no I/O and has no guard: `writelog` calls it under its own. Writes are given a *place* in the open
segment, which is sealed when it is full or somebody wants to commit; the sealed ones are committed, and
then written back, in order, from the tail. A block's newest copy is the one with the highest position
whose write has ended. A reader pins the segment it reads from; what is pinned is not released.

::

    tail            committed_end                head
     | segment | segment | sealed | open ......... |  free

A run of zeros takes one block of the ring, and counts as the blocks it *covers*: what all segments cover is
never more than the ring has blocks.

Bound: the ring's blocks; in memory one entry for each of them.

Source: own.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import final

from headway.core.block.logformat import Entry, Header
from headway.core.plan import Ticket


@final
class Segment:
    """Its room, and who uses it: `pending` writes, until it is committed, and `readers`."""

    __slots__ = (
        "_quiet", "_settled", "covers", "entries", "epoch", "pending", "readers", "sequence", "start",
    )  # fmt: skip

    def __init__(self, sequence: int, start: int, epoch: int) -> None:
        self.sequence = sequence
        self.start = start  # the position of its header
        self.epoch = epoch  # of the start of the log that wrote it
        self.entries: list[Entry | None] = []
        self.covers = 0  # blocks that its entries are of
        self.pending = 0
        self.readers = 0
        self._settled: Ticket | None = None  # who waits until no write is under way
        self._quiet: Ticket | None = None  # who waits until nobody reads

    @property
    def end(self) -> int:
        return self.start + 1 + len(self.entries)

    def settled(self) -> Ticket | None:
        """A ticket to wait on until no write is under way in it; None: none is."""
        if not self.pending:
            return None
        self._settled = Ticket(f"the writes of segment {self.sequence}")
        return self._settled

    def quiet(self) -> Ticket | None:
        """A ticket to wait on until nobody reads from it; None: nobody does."""
        if not self.readers:
            return None
        self._quiet = Ticket(f"the readers of segment {self.sequence}")
        return self._quiet

    def wrote(self) -> Ticket | None:
        """A write has ended: whom to wake."""
        self.pending -= 1
        return None if self.pending else self._settled

    def read(self) -> Ticket | None:
        """A read has ended: whom to wake."""
        self.readers -= 1
        return None if self.readers else self._quiet


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Room for `count` entries of a segment, from `position` on."""

    segment: Segment
    position: int
    count: int


@final
@dataclass(frozen=True, slots=True)
class Where:
    """Where a run of `count` blocks is: in a segment (pinned) from `position`, zeros, or below (neither)."""

    count: int
    position: int = -1
    segment: Segment | None = None
    zeros: bool = False


@final
class Ring:
    """`slots` blocks, of which segments of up to `section` entries take what they need."""

    __slots__ = (
        "_newest", "_open", "_zeros", "committed_end", "covered", "durable", "epoch", "head", "section", "segments",
        "sequence", "slots", "tail",
    )  # fmt: skip

    def __init__(self, slots: int, section: int, tail: int, sequence: int, epoch: int) -> None:
        self.slots, self.section = slots, section
        self.tail = self.head = self.committed_end = tail
        self.sequence = sequence  # of the next segment
        self.epoch = epoch  # of new segments
        self.durable = sequence - 1  # the last one that is committed
        self.segments: list[Segment] = []  # committed or sealed, in order
        self._open: Segment | None = None
        self.covered = 0  # the sum of what segments cover
        self._newest: dict[int, int] = {}  # block number to position
        self._zeros: set[int] = set()  # the positions of runs of zeros

    @property
    def used(self) -> int:
        """Blocks of the ring that cannot be had."""
        return self.head - self.tail

    @property
    def filled(self) -> int:
        """Blocks of the ring that are used, or covered if that is more: all of them at most."""
        return max(self.used, self.covered)

    @property
    def cached(self) -> int:
        """Blocks whose newest copy is here."""
        return len(self._newest)

    @property
    def dirty(self) -> bool:
        """Whether something is not committed."""
        return self._open is not None or self.durable + 1 != self.sequence

    # -- room ----------------------------------------------------------------------------------------

    def place(self, count: int, covers: int) -> Place | None:
        """Room for a write of `count` entries of `covers` blocks, or None. Neither is more than `section`."""
        if self.covered + covers > self.slots:
            return None
        segment = self._open
        if segment is not None and (
            len(segment.entries) + count > self.section or self._left() < count
        ):
            self.seal()
            segment = None
        if segment is None:
            segment = self._begin(count + 1)
            if segment is None:
                return None
        elif self.used + count > self.slots:
            return None
        place = Place(segment, self.head, count)
        segment.entries += [None] * count
        segment.pending += 1
        segment.covers += covers
        self.covered += covers
        self.head += count
        return place

    def _to_end(self) -> int:
        return self.slots - self.head % self.slots

    def _left(self) -> int:
        """Blocks before the ring's end for the open segment: none if it ends there, where `_to_end` says all."""
        return self.slots - 1 - (self.head - 1) % self.slots

    def _begin(self, need: int) -> Segment | None:
        to_end = self._to_end()
        skip = 0 if to_end >= need else to_end
        if self.head == self.tail:
            self.tail += skip
        if self.used + skip + need > self.slots:
            return None
        self.head += skip
        segment = self._open = Segment(self.sequence, self.head, self.epoch)
        self.head += 1
        return segment

    def seal(self) -> None:
        """Nothing more goes into the open segment."""
        segment, self._open = self._open, None
        if segment is None:
            return
        assert segment.entries
        self.segments.append(segment)
        self.sequence += 1

    def sealed(self) -> list[Segment]:
        """What is to be committed, in order."""
        return [segment for segment in self.segments if segment.sequence > self.durable]

    # -- writes --------------------------------------------------------------------------------------

    def done(self, place: Place, entries: list[Entry]) -> Ticket | None:
        """A write has ended well: its blocks are the newest now. Whom to wake."""
        first = place.position - place.segment.start - 1
        place.segment.entries[first : first + place.count] = entries
        self._learn(place.position, entries)
        return place.segment.wrote()

    def _learn(self, position: int, entries: list[Entry] | list[Entry | None]) -> None:
        newest = self._newest
        for at, entry in enumerate(entries, position):
            if entry is None:
                continue
            if entry.zeros:
                self._zeros.add(at)
            for number in range(entry.number, entry.number + max(1, entry.zeros)):
                if newest.get(number, -1) < at:
                    newest[number] = at

    def failed(self, place: Place) -> Ticket | None:
        """A write has ended badly, or was not begun: its entries stay nothing. Whom to wake."""
        return place.segment.wrote()

    def forget(self, first: int, count: int) -> None:
        """Blocks whose contents nobody needs any more."""
        for number in range(first, first + count):
            self._newest.pop(number, None)

    # -- reads ---------------------------------------------------------------------------------------

    def find(self, first: int, count: int) -> Where:
        """Where `first` is, and how many of the blocks after it are there too. What is in a segment is pinned."""
        newest = self._newest
        at = newest.get(first)
        run = 1
        if at is None:
            while run < count and first + run not in newest:
                run += 1
            return Where(run)
        if at in self._zeros:
            while run < count and newest.get(first + run) in self._zeros:
                run += 1
            return Where(run, zeros=True)
        segment = self._segment(at)
        end = min(count, segment.end - at)
        while run < end and newest.get(first + run) == at + run and at + run not in self._zeros:
            run += 1
        segment.readers += 1
        return Where(run, at, segment)

    def _segment(self, position: int) -> Segment:
        if self._open is not None and position >= self._open.start:
            return self._open
        return self.segments[bisect_right(self.segments, position, key=lambda one: one.start) - 1]

    # -- committed, written back, released ---------------------------------------------------------------

    def committed(self, segments: list[Segment]) -> None:
        """They are durable."""
        if segments:
            self.durable = segments[-1].sequence
            self.committed_end = segments[-1].end

    def oldest(self, most: int, leave: int) -> list[Segment]:
        """Committed segments from the tail on, at most `most`, until only `leave` blocks would be filled."""
        batch: list[Segment] = []
        covered = self.covered
        for segment in self.segments[:most]:
            used = self.head - (batch[-1].end if batch else self.tail)
            if segment.sequence > self.durable or max(used, covered) <= leave:
                break
            batch.append(segment)
            covered -= segment.covers
        return batch

    def needed(self, batch: list[Segment]) -> dict[int, int]:
        """Of what is in them, what must be written back: block number to position.

        An older copy is needed too while the newer one is not committed: that may be lost.
        """
        needed: dict[int, int] = {}
        for segment in batch:
            for at, entry in enumerate(segment.entries, segment.start + 1):
                if entry is None:
                    continue
                for number in range(entry.number, entry.number + max(1, entry.zeros)):
                    newest = self._newest.get(number)
                    if newest is not None and (newest == at or newest >= self.committed_end):
                        needed[number] = at
        return needed

    def is_zeros(self, position: int) -> bool:
        return position in self._zeros

    def drop(self, batch: list[Segment]) -> None:
        """All of it is below now: new readers go there."""
        for segment in batch:
            for at, entry in enumerate(segment.entries, segment.start + 1):
                if entry is not None:
                    self._zeros.discard(at)
                    for number in range(entry.number, entry.number + max(1, entry.zeros)):
                        if self._newest.get(number) == at:
                            del self._newest[number]

    def release(self, batch: list[Segment]) -> None:
        """Nobody reads from it any more: the room is free."""
        assert self.segments[: len(batch)] == batch
        del self.segments[: len(batch)]
        self.covered -= sum(segment.covers for segment in batch)
        self.tail, *_ = self.tail_after([])

    def tail_after(self, batch: list[Segment]) -> tuple[int, int, int]:
        """Position, sequence number and epoch of what comes after: what a superblock says."""
        rest = self.segments[len(batch) :]
        following = rest[0] if rest else self._open
        if following is not None:
            return following.start, following.sequence, following.epoch
        return self.head, self.sequence, self.epoch

    # -- after a start ---------------------------------------------------------------------------------

    def replay(self, header: Header) -> None:
        """A segment that was found on the device."""
        segment = Segment(header.sequence, header.position, header.epoch)
        segment.entries = list(header.entries)
        segment.covers = sum(max(1, entry.zeros) for entry in header.entries if entry is not None)
        self.covered += segment.covers
        if not self.segments:
            self.tail = segment.start
        self.segments.append(segment)
        self._learn(header.position + 1, header.entries)
        self.head, self.sequence = segment.end, header.sequence + 1
        self.committed([segment])
