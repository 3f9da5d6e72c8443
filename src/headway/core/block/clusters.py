"""Where the clusters of a qcow2 image are, and what is in those that are packed.

It carries no bio out: the layer `qcow2` does. The first table is at hand; a slice of another is read when
it is needed, and `kept` if memory is there. A packed cluster is read whole, and unpacked as far as is
wanted: what that yields is the standard library's memory, one cluster at most, and no reserve's.

Source: QEMU, ``docs/interop/qcow2``.
"""

from __future__ import annotations

import errno
import struct
import zlib
from functools import partial
from typing import Final, final

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import READ
from headway.core.block.kept import Kept
from headway.core.block.layer import Layer, combined
from headway.core.block.line import Line
from headway.core.block.qcow2format import (
    ENTRY,
    HEADER_BYTES,
    MAGIC,
    SECTOR,
    Image,
    Place,
    Where,
    parse,
)  # fmt: skip
from headway.core.block.spec import Options, Site
from headway.core.plan import Plan
from headway.core.units import format_size
from headway.errors import BlockError, UsageError

_SLICE: Final = 4096  # bytes of a table that are read at once
_MOST_FIRST: Final = 1 << 20  # bytes of the first table: a disk of 64 TiB in clusters of 64 KiB
_RAW_DEFLATE: Final = -15
_ENTRY: Final = struct.Struct(">Q")


@final
class Clusters:
    """`file` holds the image; `cache` is how many slices are kept. Any thread."""

    def __init__(self, file: Layer, image: Image, site: Site, cache: int) -> None:
        self.image, self._file = image, file
        self._first = _first_table(file, image)
        self._grain = grain = combined(file).alignment
        self._slice = max(min(_SLICE, image.cluster), grain)
        self._tables = site.pool("tables", site.buffers(self._slice), 1)
        self._most_packed = image.cluster + SECTOR  # what does not get smaller is not packed
        self._packed = site.pool("packed", site.buffers(self._most_packed + 2 * grain), 1)
        self._bios = site.bios("tables and packed", 1)
        self._kept: Kept[int] = Kept(self._tables, cache)
        self.slices = self.unpacked = 0

    def known(self, cluster: int) -> Place | None:
        """Where a cluster is, if that needs no reading."""
        at = self._entry_at(cluster)
        if not at:
            return Place(Where.BELOW)
        return self._kept.look(at // self._slice, partial(self._place, at % self._slice))

    def _entry_at(self, cluster: int) -> int:
        """Where in the file the entry of a cluster is; 0: nowhere, for there is no table."""
        number, rest = divmod(cluster, self.image.per_table)
        table = self.image.table(_ENTRY.unpack_from(self._first, number * ENTRY)[0])
        return table and table + rest * ENTRY

    def _place(self, at: int, table: memoryview) -> Place:
        return self.image.place(_ENTRY.unpack_from(table, at)[0])

    def find(self, cluster: int) -> Plan[Place]:
        """Where a cluster is. Raises: BlockError. Waits: for a buffer, for I/O."""
        found = self.known(cluster)
        if found is not None:
            return found
        number, at = divmod(self._entry_at(cluster), self._slice)
        [buffer] = yield from Line().take(self._tables)
        kept = False
        try:
            table = buffer[: self._slice]
            yield from self._read(number * self._slice, table, cluster)
            self.slices += 1
            found = self._place(at, table)
            kept = self._kept.keep(number, buffer)
        finally:
            if not kept:
                self._tables.free(buffer)
        return found

    def _read(self, offset: int, view: memoryview, cluster: int) -> Plan[None]:
        if offset + len(view) > self._file.size:
            raise self.after_the_end(cluster, offset)
        yield from self._bios.ask(self._file, READ, offset, view)

    def unpack(self, place: Place, cluster: int, length: int) -> Plan[memoryview]:
        """The first `length` bytes of a packed cluster. Raises: BlockError. Waits: for a buffer, for I/O."""
        if place.length > self._most_packed:
            raise self.damaged(cluster, f"{place.length} bytes are more than a cluster, packed")
        grain = self._grain
        start = place.offset // grain * grain
        # The last sector may be cut off by the end of the file.
        end = min(-(-(place.offset + place.length) // grain) * grain, self._file.size)
        [buffer] = yield from Line().take(self._packed)
        try:
            yield from self._read(start, buffer[: max(0, end - start)], cluster)
            packed = buffer[place.offset - start : end - start]
            found = zlib.decompressobj(_RAW_DEFLATE).decompress(packed, length)
        except zlib.error as error:
            raise self.damaged(cluster, str(error)) from None
        finally:
            self._packed.free(buffer)
        if len(found) != length:
            raise self.damaged(cluster, f"packed are {len(found)} bytes")
        self.unpacked += 1
        return memoryview(found)

    def after_the_end(self, cluster: int, offset: int) -> BlockError:
        return self.damaged(cluster, f"its bytes are at offset {offset}, after the end of the file")

    def damaged(self, cluster: int, what: str) -> BlockError:
        offset = cluster * self.image.cluster
        text = f"{self._file.name}: the cluster at offset {offset}: {what}: the image is damaged"
        return BlockError(errno.EIO, text, offset=offset)

    def stats(self) -> dict[str, int]:
        return {"slices": self.slices, "kept": len(self._kept), "unpacked": self.unpacked}

    def close(self) -> None:
        """Give back what is kept."""
        self._kept.close()


def _first_table(file: Layer, image: Image) -> bytes:
    length, rest = image.l1_count * ENTRY, AtRest(file, "layer qcow2")
    if length > _MOST_FIRST:
        raise UsageError(
            f"layer qcow2: {file.name}: its first table has {format_size(length)}, which no limit would count, "
            f"and {format_size(_MOST_FIRST)} is the most: convert it to larger clusters (qemu-img convert -O qcow2)"
        )
    first = rest.read(image.l1_offset, -(-length // image.cluster) * image.cluster)[:length]
    if len(first) != length:
        raise UsageError(
            f"layer qcow2: {file.name}: its first table is at offset {image.l1_offset}, and the file has "
            f"{file.size} bytes: it is damaged"
        )
    return first


def opened(below: Layer, options: Options, site: Site) -> tuple[Image, Layer | None]:
    """The image on `below`, and what it stands on. Raises: UsageError."""
    if site.create:
        raise UsageError("layer qcow2: it only reads: put it on the source (--source-layer qcow2)")
    image = parse(AtRest(below, "layer qcow2").read(0, HEADER_BYTES), below.name)
    grain = combined(below).alignment
    if image.cluster % grain:
        raise UsageError(
            f"layer qcow2: clusters of {image.cluster} bytes are not whole blocks of {below.name}, which has "
            f"{grain}: use a device with smaller ones"
        )
    return image, _stands_on(image, below, options, site)


def _stands_on(image: Image, below: Layer, options: Options, site: Site) -> Layer | None:
    given = options.text("backing", "")
    if image.backing and not given:
        raise UsageError(
            f"layer qcow2: {below.name} stands on {image.backing!r}, which is not opened unasked: give "
            "backing=DEVICE, a raw one (or convert it: qemu-img convert -O qcow2)"
        )
    if given and not image.backing:
        raise UsageError(f"layer qcow2: {below.name} stands on nothing: leave backing out")
    layer = site.open(given) if given else None
    if layer is None or image.backing_format == "raw":
        return layer
    if AtRest(layer, "layer qcow2").read(0, len(MAGIC)) == MAGIC:
        raise UsageError(
            f"layer qcow2: {given} is a qcow2 image too; only a raw one is read below another: convert it "
            "first (qemu-img convert -O raw)"
        )
    return layer
