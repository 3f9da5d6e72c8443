"""Is larger than what is below: an extent gets its place when it is first written, and gives it up when discarded.

Extents that have a place are passed on; the others read as zeros, and a first write goes to `provisioning`,
as does a whole extent that is discarded or zeroed. The table of extents (`thinmap`) is changed in
transactions of a journal whose commit makes data durable before the entries that tell of it. When no place
is free, first writes fail with ENOSPC, and all else goes on.
Reserves: two sections of the journal, 2 blocks, 1 bio for the journal, 2 for first writes, 2 to split with;
workers with a rescuer. It falls back to nothing: a first write waits for its transaction.

Source: Linux ``drivers/md/dm-thin.c`` (6.12), of which this is one device in a pool of its own.
"""

from __future__ import annotations

from functools import partial

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.layer import Layer, combined
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.provisioning import Provisioning
from headway.core.block.spec import Options, Site
from headway.core.block.tagformat import Format, parse
from headway.core.block.thinmap import MAGIC, Geometry, geometry_of, laid_out
from headway.core.plan import Plan
from headway.errors import UsageError


class Thin(Layer):
    """`form` says where the table is, `geometry` where the places are."""

    def __init__(
        self, below: Layer, form: Format, geometry: Geometry, site: Site, create: bool
    ) -> None:
        self.name = f"thin on {below.name}"
        self.below = (below,)
        self._extent, self.size = geometry.extent, geometry.extents * geometry.extent
        self.limits = Limits(boundary=geometry.extent)
        self.splits, self.discard_granularity = site.bios("splits"), geometry.extent
        self.keeps_zeros = self._create = create
        self.places = places = Provisioning(self, below, form, geometry, site)
        self._guard, self._map, self.tells = places.guard, places.map, places.extent

    def submit_now(self, bio: Bio) -> bool:
        op, offset = bio.op, bio.offset
        extent, rest = divmod(offset, self._extent)
        inside = 0 < bio.length <= self._extent - rest
        if not inside or bio.fua or (op is not READ and op is not WRITE):
            return False
        with self._guard:
            found = self._map.find(extent)
            if found is None or (op is WRITE and extent in self._map.coming):
                # A flush would not cover it before the table's change is in the journal.
                return False
            self._map.enter(extent)
        try:
            bio.offset = found + rest
            return self.below[0].submit_now(bio)
        finally:  # also if a signal's exception comes while bytes are being moved
            bio.offset = offset
            with self._guard:
                self._map.leave(extent)

    def submit(self, bio: Bio, line: Line) -> None:
        op, length = bio.op, bio.length
        if op is FLUSH:
            self.places.flush(bio)
            return
        if not length:
            self.places.end(bio)
            return
        extent, rest = divmod(bio.offset, self._extent)
        place = None
        with self._guard:
            if op is not READ and self.places.must_wait(bio, extent):
                return
            found = self._map.find(extent)
            if found is not None and length == self._extent and (op is ZERO or op is DISCARD):
                place = self._map.give_up(extent)
            if found is not None and place is None:
                self._map.enter(extent)
        if place is not None:
            self.places.give_up(bio, extent, place)
        elif found is not None:
            bio.push(partial(self._ended, extent, bio.fua))
            bio.fua, bio.offset = False, found + rest
            line.send(bio, self.below[0])
        elif op is WRITE:
            self.places.first_write(bio, extent)
        else:
            if bio.view is not None:
                bio.view[:] = bytes(length)
            self.places.end(bio)

    def _ended(self, extent: int, fua: bool, bio: Bio) -> bool:
        with self._guard:
            self._map.leave(extent)
        bio.fua, durable = fua, fua and bio.error is None
        if durable:
            self.places.flush(bio)
        return durable

    def start(self) -> Plan[None]:
        return self.places.start(self._create)

    def close(self) -> Plan[None]:
        return self.places.sections.close()

    def stats(self) -> dict[str, int]:
        return {
            "places": self._map.geometry.places, "free": len(self._map.free),
            "mapped": self._map.mapped, "refused": self.places.refused,
            "commits": self.places.sections.commits, "replayed": self.places.sections.replayed,
        }  # fmt: skip


def make(below: Layer, options: Options, site: Site) -> Layer:
    create = options.flag("create", site.create)
    block, extent, wanted = _sizes(options)
    grain = combined(below).alignment
    if create:
        form, geometry = laid_out(below.size, block, extent, wanted)
    else:
        raw = AtRest(below, "layer thin").read(0, 4096)
        form = parse(raw, below.size, b"", below.name, MAGIC, "thin")
        geometry = geometry_of(form, below.size)
    if geometry.extent % grain or form.block % grain:
        raise UsageError(
            f"layer thin: extents of {geometry.extent} and blocks of {form.block} bytes are not whole blocks of "
            f"{below.name}, which has {grain}: choose multiples of that"
        )
    return Thin(below, form, geometry, site, create)


def _sizes(options: Options) -> tuple[int, int, int]:
    block = int(options.choice("block", "4096", ("512", "1024", "2048", "4096")))
    extent = options.size("extent", 1 << 20)
    if extent < block or extent % block:
        raise UsageError(f"layer thin: extent={extent} is not a multiple of block={block}")
    return block, extent, options.size("size", 0)


def room(size: int, options: Options) -> int:
    """With the table, and a place for every extent."""
    block, extent, wanted = _sizes(options)
    places = -(-size // extent) * extent
    form, _ = laid_out(1 << 62, block, extent, max(places, wanted))
    return -(-form.end // extent) * extent + places
