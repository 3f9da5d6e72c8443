"""Places of a thin device, given and taken back: the transactions, what waits for them, and the start.

It does not see requests for extents that have a place (the layer `thin` passes them on). A first write is
carried out by a worker: the place is cleared, unless all of it is written; the data is written; on
completion the extent enters the table, in a transaction. A transaction changes one block of the table,
and before it changes anything it draws its worst case, one block's room in the journal. What else wants to
change an extent that is coming, or being given up, waits until that is there, and is then submitted again.

Where no place is free, but a commit will set some free, a write waits for that commit.
Bound: as many waiting bios as are submitted; a first write holds one bio at a time.

Source: Linux ``drivers/md/dm-thin.c`` (6.12), ``fs/xfs`` (unwritten extents converted on completion).
"""

from __future__ import annotations

import errno
from functools import partial
from typing import final

from headway.core.block.bio import FLUSH, READ, WRITE, ZERO, Bio, corrupt, refused
from headway.core.block.device import Extent
from headway.core.block.layer import Layer
from headway.core.block.line import Line, submit
from headway.core.block.sections import Sections
from headway.core.block.spec import Site
from headway.core.block.tagformat import WIDTH, Format
from headway.core.block.thinmap import Geometry, Map
from headway.core.plan import Plan


@final
class Provisioning:
    """The places of `layer` on `below`. `map` and `_thirsty` change under the guard."""

    def __init__(
        self, layer: Layer, below: Layer, form: Format, geometry: Geometry, site: Site
    ) -> None:
        self._layer, self._below, self._form = layer, below, form
        self.guard = site.runtime.guard()
        self.map = Map(form, geometry)
        self.sections = Sections(below, form, site, ahead=True)
        self._bios = site.bios("first writes")
        self._blocks = site.pool("table", site.buffers(form.block), 2)
        self._workers = site.workers("first writes", limit=4)
        self._thirsty: list[Bio] = []  # writes that wait for a commit to set places free
        self.refused = 0

    # -- what a request may find -----------------------------------------------------------------------

    def extent(self, offset: int) -> Plan[Extent]:
        """A hole where no place is given out."""
        yield from ()
        first, size = offset // self.map.geometry.extent, self.map.geometry.extent
        with self.guard:
            return Extent((first + 1) * size, self.map.find(first) is None)

    def must_wait(self, bio: Bio, extent: int) -> bool:
        """Under the guard: keep a change of an extent that is coming; it is submitted again."""
        waiting = self.map.coming.get(extent)
        if waiting is None:
            return False
        waiting.append(bio)
        return True

    def first_write(self, bio: Bio, extent: int) -> None:
        """Carry out a write to an extent without a place. Waits: never."""
        with self.guard:
            if self.must_wait(bio, extent):
                return
            free, later = bool(self.map.free), bool(self.map.pending or self.map.due)
            if free:
                place = self.map.free.pop()
                self.map.coming[extent] = []
            elif later:
                self._thirsty.append(bio)
            asks = bool(self.map.pending)
        if free:
            self._workers.queue(self._first, bio, extent, place)
        elif not later:
            self.refused += 1
            why = f"all {self.map.geometry.places} places on {self._below.name} are taken"
            bio.complete(refused(bio, self._layer.name, why, errno.ENOSPC))
        elif asks:
            self.flush(Bio(FLUSH))

    def give_up(self, bio: Bio, extent: int, place: int) -> None:
        """Have an extent's place be free some time; it is out of the map already. Waits: never."""
        self._workers.queue(self._give_up, bio, extent, place)

    def flush(self, bio: Bio) -> None:
        """Complete `bio` when all that was done before is durable. Waits: never."""
        with self.guard:
            bio.push(partial(self._flushed, self.map.committing()))
        self.sections.flush(bio)

    def end(self, bio: Bio, error: BaseException | None = None) -> None:
        """Complete a bio, when it is durable if it asks for that."""
        if bio.fua and error is None:
            self.flush(bio)
        else:
            bio.complete(error)

    def _flushed(self, places: list[int], bio: Bio) -> None:
        with self.guard:
            self.map.committed(places, bio.error is None)
            thirsty, self._thirsty = self._thirsty, []
        for waiting in thirsty:
            if bio.error is not None:
                waiting.complete(bio.error)
            else:
                self._workers.queue(submit, self._layer, waiting)

    # -- transactions, by workers ------------------------------------------------------------------------

    def _first(self, bio: Bio, extent: int, place: int) -> Plan[None]:
        at, size = self.map.address(place), self.map.geometry.extent
        error: Exception | None = None
        entered = False
        try:
            if bio.length < size:
                yield from self._bios.ask(self._below, ZERO, at, None, size)
            yield from self._bios.ask(self._below, WRITE, at + bio.offset % size, bio.view)
            with self.guard:
                self.map.put(extent, place)
            entered = True
            yield from self.sections.put(*self.map.block(extent))
        except Exception as raised:
            error = raised
        with self.guard:
            if not entered:
                self.map.free.append(place)
        self._came(extent)
        self.end(bio, error)

    def _give_up(self, bio: Bio, extent: int, place: int) -> Plan[None]:
        error: Exception | None = None
        try:
            yield from self.sections.put(*self.map.block(extent))
            with self.guard:
                self.map.pending.append(place)
        except Exception as raised:
            error = raised  # the place stays out of use
        self._came(extent)
        self.end(bio, error)

    def _came(self, extent: int) -> None:
        """What the table says of an extent is in the journal: what waited for that is submitted again."""
        with self.guard:
            waiting = self.map.coming.pop(extent)
        for other in waiting:
            self._workers.queue(submit, self._layer, other)

    # -- its life --------------------------------------------------------------------------------------

    def start(self, create: bool) -> Plan[None]:
        """Make an empty table, or load the one there is. Raises: BlockError; UsageError if it is wrong."""
        yield from self.sections.start(create)
        if create:
            return
        try:
            yield from self._load()
        except BaseException:
            self.sections.give_back()
            raise

    def _load(self) -> Plan[None]:
        tags, block = yield from Line().take(self._blocks, 2)
        try:
            yield from self._read_table(tags[: self._form.block], block[: self._form.block])
            self.map.loaded()
        finally:
            self._blocks.free(tags)
            self._blocks.free(block)

    def _read_table(self, tags: memoryview, block: memoryview) -> Plan[None]:
        form, per = self._form, self._form.tags_per_block
        for number in range(form.blocks):
            if number % per == 0:
                start = form.tags_start + number // per * form.block
                yield from self._bios.ask(self._below, READ, start, tags)
            at = form.data_start + number * form.block
            yield from self._bios.ask(self._below, READ, at, block)
            tag = bytes(tags[number % per * WIDTH : (number % per + 1) * WIDTH])
            if not self.map.load(number, block, tag):
                raise corrupt(self._layer.name, "block of the table", number, at)
