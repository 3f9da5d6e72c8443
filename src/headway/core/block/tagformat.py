"""Blocks with a tag each on a device: superblock, two journal slots, tags, data; all in blocks.

`integrity` keeps a user's blocks so, `thin` its table, with a `magic` of its own. It does no I/O. A tag is a
hash of a block's number and its bytes, keyed if there is a key; a tag of zeros means: never written, and
reads as zeros. A journal slot holds one section: a header that names blocks and their tags, with a checksum,
then the blocks. A section is whole if its checksum and all its tags are right; else it was never finished,
and nobody was told that it was::

    superblock | slot 0: header, n blocks | slot 1: header, n blocks | tags | data

Source: own. It is not dm-integrity's layout, and has another magic number: the kernel must not take it
for its own.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Final, final

from headway.errors import UsageError

MAGIC: Final = b"hwintgr1"
WIDTH: Final = 32  # bytes of a tag
NEVER: Final = bytes(WIDTH)
_SUPERBLOCK: Final = struct.Struct("<8sIIQ16sI")
_HEADER: Final = struct.Struct("<8sQQ32s")
_ENTRY: Final = struct.Struct(f"<Q{WIDTH}s")
_SIZES: Final = (512, 1024, 2048, 4096)


def most_in_section(block: int) -> int:
    """How many blocks one header can name."""
    return (block - _HEADER.size) // _ENTRY.size


@final
@dataclass(frozen=True, slots=True)
class Format:
    """Bytes of a block, blocks of a section, blocks of data; `salt` goes into every tag, as does `key`."""

    block: int
    section: int
    blocks: int
    salt: bytes
    key: bytes = field(default=b"", repr=False)
    magic: bytes = MAGIC

    def tag(self, number: int, view: memoryview | bytes) -> bytes:
        start = self.salt + number.to_bytes(8, "little")
        if self.key:
            keyed = hmac.new(self.key, start, "sha256")
            keyed.update(view)
            return keyed.digest()
        state = hashlib.sha256(start)
        state.update(view)
        return state.digest()

    @property
    def tags_per_block(self) -> int:
        return self.block // WIDTH

    @property
    def section_size(self) -> int:
        """Bytes, with the header."""
        return (self.section + 1) * self.block

    def slot(self, sequence: int) -> int:
        """Where the section with this number goes, in bytes."""
        return self.block + sequence % 2 * self.section_size

    @property
    def tags_start(self) -> int:
        return self.block + 2 * self.section_size

    @property
    def tags_size(self) -> int:
        return -(-self.blocks // self.tags_per_block) * self.block

    @property
    def data_start(self) -> int:
        return self.tags_start + self.tags_size

    @property
    def end(self) -> int:
        return self.data_start + self.blocks * self.block

    # -- superblock and sections ---------------------------------------------------------------------

    def superblock(self) -> bytes:
        """With a check that tells a wrong key from a changed block."""
        raw = _SUPERBLOCK.pack(
            self.magic, self.block, self.section, self.blocks, self.salt, bool(self.key)
        )
        return (raw + self.tag(1 << 63, raw)).ljust(self.block, b"\0")

    def head(self, sequence: int, entries: list[tuple[int, bytes]]) -> bytes:
        """The header of a section: numbers and tags of its blocks, in their order."""
        body = b"".join(_ENTRY.pack(number, tag) for number, tag in entries)
        blank = _HEADER.pack(self.magic, sequence, len(entries), NEVER) + body
        whole = _HEADER.pack(self.magic, sequence, len(entries), self.tag(1 << 63, blank)) + body
        return whole.ljust(self.block, b"\0")

    def parse_section(self, view: memoryview) -> tuple[int, list[tuple[int, bytes]]] | None:
        """Number and entries of a slot's section; None if there is no whole one."""
        magic, sequence, count, _ = _HEADER.unpack_from(view)
        if magic != self.magic or not 0 < count <= self.section:
            return None
        entries = [_ENTRY.unpack_from(view, _HEADER.size + at * _ENTRY.size) for at in range(count)]
        if not hmac.compare_digest(self.head(sequence, entries), view[: self.block]):
            return None
        for at, (number, tag) in enumerate(entries, 1):
            part = view[at * self.block : (at + 1) * self.block]
            if number >= self.blocks or self.tag(number, part) != tag:
                return None
        return sequence, entries


def fit(size: int, block: int, section: int, salt: bytes, key: bytes) -> Format:
    """The largest one for `integrity` in `size` bytes. Raises: UsageError if there is no room for a block."""
    if block not in _SIZES or not 0 < section <= most_in_section(block):
        raise UsageError(
            f"layer integrity: sections of {section} blocks of {block} bytes: a header names at most "
            f"{most_in_section(block)}"
        )
    rest = size // block - 1 - 2 * (section + 1)
    blocks = max(0, rest * (block // WIDTH) // (block // WIDTH + 1))
    form = Format(block, section, blocks, salt, key)
    if not blocks:
        raise UsageError(
            f"layer integrity: {size} bytes are too few: {form.end + 2 * block} hold one block"
        )
    return form


def parse(
    raw: bytes, size: int, key: bytes, name: str, magic: bytes = MAGIC, layer: str = "integrity"
) -> Format:
    """What a superblock says. Raises: UsageError if it is none, or the key is not its key."""
    if len(raw) < _SUPERBLOCK.size + WIDTH or not raw.startswith(magic):
        raise UsageError(f"layer {layer}: {name} has no superblock: create=yes makes one")
    _, block, section, blocks, salt, keyed = _SUPERBLOCK.unpack_from(raw)
    if bool(keyed) != bool(key):
        raise UsageError(
            f"layer {layer}: {name} was made {'with' if keyed else 'without'} a key-file"
        )
    form = Format(block, section, blocks, salt, key, magic)
    good = block in _SIZES and 0 < section <= most_in_section(block) and form.end <= size
    if not good or form.superblock()[: _SUPERBLOCK.size + WIDTH] != raw[: _SUPERBLOCK.size + WIDTH]:
        raise UsageError(
            f"layer {layer}: the superblock of {name} is damaged, cut off, or its key is another"
        )
    return form
