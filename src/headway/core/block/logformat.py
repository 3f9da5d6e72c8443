"""How a write cache lies on its fast device: two superblocks, and a log of segments in a ring; all in blocks.

It does no I/O. A *position* counts blocks since the log was made and never comes again; its place is
its rest modulo the length of the ring. A segment is a header, then as many blocks as the header has
entries, and never crosses the ring's end::

    superblock | superblock | header, entries ... | header, entries ... | (free) ...

An entry is a block of data with its checksum, a run of zeros (whose block in the ring is not used), or
nothing, for a write that failed. Headers are found one after the other from the tail, which the
superblock tells: at the end of the segment before, or at the beginning of the ring. A header counts if
its checksum, position and sequence number are right and its epoch is not older than the one before, or
than the superblock says of the first; every start has an epoch of its own, so nothing that a power cut
left behind is ever believed. A header
says up to which segment all was durable when it was written: only what is newer has its data checked.

Source: own, after the jobs of dm-writecache's metadata. It is not its layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from headway.errors import UsageError

MAGIC: Final = b"hwwcach2"
NOBODY: Final = (1 << 64) - 1  # the number of an entry that is nothing
_SUPER: Final = struct.Struct("<8sIIQQQQQQQI")
_HEAD: Final = struct.Struct("<8sQQQQII")
_ENTRY: Final = struct.Struct("<QII")
SIZES: Final = (512, 1024, 2048, 4096)


class Entry(NamedTuple):
    """Block `number` is in the log; or, if `zeros` is not 0, so many blocks from there are zeros."""

    number: int
    zeros: int
    check: int


class State(NamedTuple):
    """What a superblock says that changes: `generation` of superblocks, `epoch` of the start that wrote it,
    `tail`, and of the segment there its `sequence`, and `since`, the epoch it has at least."""

    generation: int
    epoch: int
    tail: int
    sequence: int
    since: int


class Header(NamedTuple):
    """`durable`: the last segment of which all was durable when this was written."""

    sequence: int
    position: int
    epoch: int
    durable: int
    entries: list[Entry | None]


def most_in_segment(block: int) -> int:
    """How many entries one header has room for."""
    return (block - _HEAD.size) // _ENTRY.size


@final
@dataclass(frozen=True, slots=True)
class Format:
    """Bytes of a block, most entries of a segment, blocks of the ring, and blocks of what is cached."""

    block: int
    section: int
    slots: int
    blocks: int

    def address(self, position: int) -> int:
        """Where a position is on the fast device, in bytes."""
        return (2 + position % self.slots) * self.block

    def described(self, offset: int, length: int, view: memoryview | None) -> list[Entry]:
        """The entries of a write of `view`, or of zeros where there is none."""
        size, first = self.block, offset // self.block
        if view is None:
            return [Entry(first, length // size, 0)]
        return [
            Entry(number, 0, check(view[at : at + size]))
            for number, at in enumerate(range(0, length, size), first)
        ]

    @property
    def end(self) -> int:
        return (2 + self.slots) * self.block

    def superblock(self, state: State) -> bytes:
        """One block; it goes to the place of its generation."""
        raw = _SUPER.pack(MAGIC, self.block, self.section, self.slots, self.blocks, *state, 0)
        return (raw[:-4] + zlib.crc32(raw).to_bytes(4, "little")).ljust(self.block, b"\0")

    def superblock_at(self, state: State) -> int:
        return state.generation % 2 * self.block

    def header(self, header: Header) -> bytes:
        """One block."""
        blank = Entry(NOBODY, 0, 0)
        body = b"".join(_ENTRY.pack(*(entry or blank)) for entry in header.entries)
        fields = (MAGIC, header.sequence, header.position, header.epoch, header.durable)
        raw = _HEAD.pack(*fields, len(header.entries), 0) + body
        return (_HEAD.pack(*fields, len(header.entries), zlib.crc32(raw)) + body).ljust(
            self.block, b"\0"
        )

    def parse_header(
        self, view: memoryview, position: int, sequence: int, since: int
    ) -> Header | None:
        """The header of that segment, if it is one, and of that epoch or a later one."""
        magic, found, at, epoch, durable, count, _ = _HEAD.unpack_from(view)
        if magic != MAGIC or (found, at) != (sequence, position) or not 0 < count <= self.section:
            return None
        if epoch < since or position % self.slots + 1 + count > self.slots:
            return None
        entries: list[Entry | None] = []
        for at in range(count):
            entry = Entry(*_ENTRY.unpack_from(view, _HEAD.size + at * _ENTRY.size))
            entries.append(None if entry.number == NOBODY else entry)
        header = Header(sequence, position, epoch, durable, entries)
        inside = all(
            entry is None or entry.number + max(1, entry.zeros) <= self.blocks for entry in entries
        )
        return header if inside and self.header(header) == view[: self.block] else None


def check(view: memoryview) -> int:
    """The checksum of a block of data."""
    return zlib.crc32(view)


def fit(cache: int, origin: int, block: int, section: int) -> Format:
    """The largest ring in a cache of so many bytes. Raises: UsageError if it is too small."""
    if not 0 < section <= most_in_segment(block):
        raise UsageError(
            f"layer writecache: section={section}: with blocks of {block} bytes it is 1 to "
            f"{most_in_segment(block)}"
        )
    form = Format(block, section, cache // block - 2, origin // block)
    least = 2 * (section + 1)  # wherever the head is, one whole segment fits an empty ring
    if form.slots < least:
        raise UsageError(
            f"layer writecache: the cache has {cache} bytes: {(least + 2) * block} is the least, with sections "
            f"of {section} blocks of {block}; choose a larger cache, or smaller ones"
        )
    return form


def parse(raw: bytes, cache: int, origin: int) -> tuple[Format, State] | None:
    """What the superblocks at the beginning of a cache say: the newer one that is whole; None if there is none.

    Raises: UsageError if it is the cache of something else.
    """
    found: tuple[Format, State] | None = None
    for at in (0, *SIZES):
        if len(raw) < at + _SUPER.size or not raw.startswith(MAGIC, at):
            continue
        _, block, section, slots, blocks, *rest, _ = _SUPER.unpack_from(raw, at)
        form, state = Format(block, section, slots, blocks), State(*rest)
        if block not in SIZES or at != form.superblock_at(state):
            continue  # with small blocks the ring is here, and in it whatever users write
        whole = form.superblock(state)[: _SUPER.size] == raw[at : at + _SUPER.size]
        newer = found is None or (form == found[0] and state.generation > found[1].generation)
        if whole and newer:  # the first says how large blocks are: it is before the ring
            found = form, state
    if found is not None and (found[0].end > cache or found[0].blocks != origin // found[0].block):
        raise UsageError(
            f"layer writecache: the cache was made for a device of {found[0].blocks * found[0].block} bytes, in "
            f"{found[0].end} bytes of its own; here they are {origin} and {cache}"
        )
    return found
