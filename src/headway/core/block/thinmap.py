"""Which extent of a thin device lies where: the table, what is free, and what will be after a commit.

It does no I/O and has no guard: the layer `thin` calls it under its own. The table is kept whole in memory,
four little-endian bytes for each extent as on the device: 0, or the extent's place plus one. Nothing on the
device says what is free: that is what no entry names. A place that was given up is *pending* until the
commit that says so is durable, since until then a power cut would bring the old entry back.

An extent is *coming* from when its first write was given a place until the table that says so is in the
journal, and likewise while its place is given up: what else wants to change it waits, so that nothing
is answered that relies on an entry which a flush would not cover yet. It is *busy* while requests for
its place are under way; then it is not given up.

Source: own; the order of events is that of ``drivers/md/dm-thin.c`` (6.12).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, final

from headway.core.block.bio import Bio
from headway.core.block.tagformat import NEVER, Format, most_in_section
from headway.errors import UsageError

MAGIC: Final = b"hwthinp1"
_ENTRY: Final = struct.Struct("<I")
_SALT: Final = struct.Struct("<IIQ")
_SECTION: Final = 32  # most blocks of the table in one commit


class Geometry(NamedTuple):
    """Bytes of an extent, how many there are, and how many places; `start` of the first, in bytes."""

    extent: int
    extents: int
    places: int
    start: int


def laid_out(size: int, block: int, extent: int, wanted: int) -> tuple[Format, Geometry]:
    """The metadata and the places on a device of `size` bytes; `wanted` 0: as large as there are places.

    Raises: UsageError if nothing fits.
    """
    extents = -(-wanted // extent) if wanted else size // extent
    blocks = max(1, -(-extents * _ENTRY.size // block))
    form = Format(block, min(_SECTION, blocks, most_in_section(block)), blocks, b"", magic=MAGIC)
    start = -(-form.end // extent) * extent
    places = (size - start) // extent
    if places < 1 or extents >= 1 << 32:
        raise UsageError(
            f"layer thin: {size} bytes in extents of {extent}: no place is left beside {start} bytes of metadata; "
            "choose smaller extents, or a larger device"
        )
    extents = extents if wanted else places
    salt = _SALT.pack(extent, 0, extents)
    return Format(form.block, form.section, blocks, salt, magic=MAGIC), Geometry(
        extent, extents, places, start
    )


def geometry_of(form: Format, size: int) -> Geometry:
    """What a superblock says."""
    extent, _, extents = _SALT.unpack(form.salt)
    start = -(-form.end // extent) * extent
    return Geometry(extent, extents, (size - start) // extent, start)


@final
class Map:
    """The table of one device. See the module for its words."""

    __slots__ = ("_busy", "_form", "_table", "coming", "due", "free", "geometry", "pending")

    def __init__(self, form: Format, geometry: Geometry) -> None:
        self.geometry, self._form = geometry, form
        self._table = bytearray(form.blocks * form.block)
        self._busy: dict[int, int] = {}
        self.coming: dict[int, list[Bio]] = {}
        self.pending: list[int] = []
        self.due = 0  # places that a commit under way will set free
        self.free = list(range(geometry.places - 1, -1, -1))

    @property
    def mapped(self) -> int:
        return (
            self.geometry.places - len(self.free) - len(self.pending) - self.due - len(self.coming)
        )

    def find(self, extent: int) -> int | None:
        """Where an extent is, in bytes; None: nowhere, and it reads as zeros."""
        place: int = _ENTRY.unpack_from(self._table, extent * _ENTRY.size)[0]
        return self.geometry.start + (place - 1) * self.geometry.extent if place else None

    def address(self, place: int) -> int:
        return self.geometry.start + place * self.geometry.extent

    def block(self, extent: int) -> tuple[int, memoryview]:
        """The block of the table that tells of an extent: number and bytes, as they are and will be."""
        number, size = extent * _ENTRY.size // self._form.block, self._form.block
        return number, memoryview(self._table)[number * size : (number + 1) * size]

    def put(self, extent: int, place: int) -> None:
        _ENTRY.pack_into(self._table, extent * _ENTRY.size, place + 1)

    def give_up(self, extent: int) -> int | None:
        """Take it out of the table: its place, which is pending when that is in the journal; until then the
        extent is coming. None: busy."""
        if extent in self._busy:
            return None
        self.coming[extent] = []
        place: int = _ENTRY.unpack_from(self._table, extent * _ENTRY.size)[0] - 1
        _ENTRY.pack_into(self._table, extent * _ENTRY.size, 0)
        return place

    def enter(self, extent: int) -> None:
        """A request for its place begins."""
        self._busy[extent] = self._busy.get(extent, 0) + 1

    def leave(self, extent: int) -> None:
        count = self._busy[extent] - 1
        if count:
            self._busy[extent] = count
        else:
            del self._busy[extent]

    # -- giving back ---------------------------------------------------------------------------------

    def committing(self) -> list[int]:
        """A commit begins: what it will set free."""
        places, self.pending = self.pending, []
        self.due += len(places)
        return places

    def committed(self, places: list[int], durable: bool) -> None:
        self.due -= len(places)
        (self.free if durable else self.pending).extend(places)

    def load(self, number: int, block: memoryview, tag: bytes) -> bool:
        """A block of the table as the device has it; False if it is not what was written."""
        if tag == NEVER:
            return True
        if self._form.tag(number, block) != tag:
            return False
        size = self._form.block
        self._table[number * size : (number + 1) * size] = block
        return True

    def loaded(self) -> None:
        """All blocks are there: find what is free. Raises: UsageError if a place is named twice, or is none."""
        used = bytearray(self.geometry.places)
        for (entry,) in _ENTRY.iter_unpack(self._table):
            if entry:
                if entry > len(used) or used[entry - 1]:
                    raise UsageError(
                        f"layer thin: the table names place {entry - 1} of {len(used)} twice, or the device was "
                        "cut off; it is not safe to write to"
                    )
                used[entry - 1] = 1
        self.free = [place for place in range(len(used) - 1, -1, -1) if not used[place]]
