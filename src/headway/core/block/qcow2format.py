"""What a qcow2 file says of itself: its header, and where the bytes of each cluster are.

It reads nothing: the layer `qcow2` does. A disk is cut into clusters; an entry of eight bytes tells where
each is in the file. The entries are in tables of one cluster, and the first table (L1) tells where those
are. What is not known here is refused when the image is opened, never guessed.

Source: QEMU, ``docs/interop/qcow2`` (versions 2 and 3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from headway.errors import UsageError

MAGIC: Final = b"QFI\xfb"
HEADER_BYTES: Final = 4096  # at most: with the extensions, and the name of what it stands on
ENTRY: Final = 8
SECTOR: Final = 512  # what compressed bytes are counted in

_FIXED: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES: Final = struct.Struct(">QQQII")
_OFFSET: Final = 0x00FFFFFFFFFFFE00
_COMPRESSED: Final = 1 << 62
_READS_AS_ZEROS: Final = 1
_MOST_L1: Final = 32 << 20  # bytes; QEMU's own limit
_BACKING_FORMAT: Final = 0xE2792ACA
_INCOMPATIBLE: Final = {
    2: "its data in another file",
    3: "a compression other than zlib",
    4: "extended tables (subclusters)",
}
_HARMLESS: Final = 0b11  # not closed, or damaged in its counts of references: neither is read


class Where(Enum):
    """Where the bytes of a cluster are."""

    HERE = "here"
    PACKED = "compressed"
    ZEROS = "zeros"
    BELOW = "in what the image stands on"


@final
@dataclass(frozen=True, slots=True)
class Place:
    """`length` is of the packed bytes, in whole sectors less what comes before; else 0. Units: bytes."""

    where: Where
    offset: int = 0
    length: int = 0


_ZEROS: Final = Place(Where.ZEROS)
_BELOW: Final = Place(Where.BELOW)


@final
@dataclass(frozen=True, slots=True)
class Image:
    """A header. Sizes and offsets are in bytes, `l1_count` in entries."""

    version: int
    size: int
    cluster: int
    l1_offset: int
    l1_count: int
    backing: str  # what it names, if it stands on another image
    backing_format: str

    @property
    def per_table(self) -> int:
        """Clusters that one table tells of."""
        return self.cluster // ENTRY

    def table(self, entry: int) -> int:
        """Where an entry of L1 says that a table is; 0: there is none."""
        return entry & _OFFSET

    def place(self, entry: int) -> Place:
        """What an entry of a table says."""
        if entry & _COMPRESSED:
            bits = 62 - (self.cluster.bit_length() - 1 - 8)
            offset = entry & ((1 << bits) - 1)
            sectors = (entry & (_COMPRESSED - 1)) >> bits
            return Place(Where.PACKED, offset, (sectors + 1) * SECTOR - offset % SECTOR)
        if self.version > 2 and entry & _READS_AS_ZEROS:
            return _ZEROS
        offset = entry & _OFFSET
        return Place(Where.HERE, offset) if offset else _BELOW


def parse(raw: bytes, name: str) -> Image:
    """The image that begins with `raw` (`HEADER_BYTES` of it, or all there is).

    Raises: UsageError if it is none, or one that is not read here.
    """
    if len(raw) < _FIXED.size or raw[:4] != MAGIC:
        raise _refused(name, "it is no qcow2 image", "leave the layer out, or name another file")
    (_, version, backing_at, backing_length, bits, size, encryption, l1_count, l1_offset, *_) = (
        _FIXED.unpack_from(raw)
    )
    if version not in (2, 3) or not 9 <= bits <= 21:
        raise _refused(name, f"it has version {version} and clusters of 2**{bits} bytes", _CONVERT)
    length = _FIXED.size
    if version == 3:
        if len(raw) < _FIXED.size + _FEATURES.size:
            raise _refused(name, "its header ends early", "it is damaged")
        features, _, _, _, length = _FEATURES.unpack_from(raw, _FIXED.size)
        if features & ~_HARMLESS:
            raise _refused(name, f"it has {_said(features & ~_HARMLESS)}", _CONVERT)
    if encryption:
        raise _refused(name, "it is encrypted", _CONVERT)
    cluster = 1 << bits
    needed = -(-size // (cluster * (cluster // ENTRY)))
    if l1_count < needed or l1_count * ENTRY > _MOST_L1:
        raise _refused(
            name, f"it has {l1_count} first entries for {size} bytes, which need {needed}",
            "it is damaged",
        )  # fmt: skip
    backing = _text(raw, backing_at, backing_length, name) if backing_at else ""
    ending = backing_at or cluster
    form = _extension(raw[: min(ending, len(raw))], length, _BACKING_FORMAT)
    return Image(version, size, cluster, l1_offset, needed, backing, form)


_CONVERT: Final = "convert it first (qemu-img convert -O qcow2)"


def _refused(name: str, found: str, remedy: str) -> UsageError:
    return UsageError(f"layer qcow2: {name}: {found}: {remedy}")


def _said(features: int) -> str:
    known = [text for bit, text in _INCOMPATIBLE.items() if features >> bit & 1]
    unknown = features & ~sum(1 << bit for bit in _INCOMPATIBLE)
    return ", ".join(
        [*known, f"features {unknown:#x} that are not known here"] if unknown else known
    )


def _text(raw: bytes, offset: int, length: int, name: str) -> str:
    if length > 1023 or offset + length > len(raw):
        raise _refused(
            name, f"the name of what it stands on is at offset {offset}", "it is damaged"
        )
    return raw[offset : offset + length].decode("utf-8", "replace")


def _extension(raw: bytes, at: int, wanted: int) -> str:
    """The text of one header extension, or nothing."""
    while at + 8 <= len(raw):
        kind, length = struct.unpack_from(">II", raw, at)
        if not kind:
            break
        if kind == wanted:
            return raw[at + 8 : at + 8 + length].decode("ascii", "replace")
        at += 8 + -(-length // 8) * 8
    return ""
