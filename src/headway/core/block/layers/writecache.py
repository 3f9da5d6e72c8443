"""Takes the writes of a slow device on a fast one, and writes them back in time; no power cut loses what was flushed.

A write goes to the log on the fast device, a flush commits the log (`writelog`), and when it is fuller than
`high` the oldest blocks are written back until it is down to `low`. A read goes where the newest copy is, and
is split where that changes. A run of zeros takes one block of the log, but counts as many. A discard forgets what
the log has, and goes on. When the log is full, a write waits for the slow device, as without the layer.
Reserves: a block, a buffer of `buffer` bytes and a bio for each of the two workers; 2 bios to split with.

Source: Linux ``drivers/md/dm-writecache.c`` (6.12). Departure: a log; the kernel has a table of blocks.
"""

from __future__ import annotations

from functools import partial

from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.logformat import Entry
from headway.core.block.logopening import log_of
from headway.core.block.ring import Place
from headway.core.block.spec import Options, Site
from headway.core.block.writelog import WriteLog
from headway.core.plan import Plan


class WriteCache(Layer):
    """`log` may be an empty one (`create`); with `drain` closing writes all of it back."""

    def __init__(self, log: WriteLog, splits: BioSet, *, create: bool, drain: bool) -> None:
        self.name = f"writecache on {log.slow.name}"
        self.below = (log.slow, log.fast)
        self._size = size = log.form.block
        self.size = log.form.blocks * size
        self.limits = Limits(alignment=size, max_length=log.form.section * size)
        self.splits = splits
        self.keeps_zeros, self.stable_writes = create, True  # an empty log; one has checksums
        self.log, self._create, self._drain, self.tells = log, create, drain, log.extent

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is FLUSH:
            return self.log.is_durable()
        if not bio.length or not self.limits.fits(bio.offset, bio.length):
            return False
        if bio.op is READ:
            return self._read_now(bio)
        return bio.op is WRITE and not bio.fua and self._write_now(bio)

    def _read_now(self, bio: Bio) -> bool:
        offset = bio.offset
        found = self.log.find(offset, bio.length)
        if found.segment is None:
            whole = found.count * self._size == bio.length and not found.zeros
            return whole and self.below[0].submit_now(bio)
        try:  # it may be interrupted in the device, and no segment is pinned for ever by that
            bio.offset = self.log.form.address(found.position)
            return found.count * self._size == bio.length and self.below[1].submit_now(bio)
        finally:
            bio.offset = offset
            self.log.read(found.segment)

    def _write_now(self, bio: Bio) -> bool:
        entries = self.log.form.described(bio.offset, bio.length, bio.view)
        count, offset, done = len(entries), bio.offset, False
        place = self.log.place_now(count, count)
        if place is None:
            return False
        try:
            bio.offset = self.log.form.address(place.position)
            done = self.below[1].submit_now(bio)
            return done
        finally:  # interrupted too: a commit waits for the end of each write
            bio.offset = offset
            self.log.ended(place, entries if done and bio.error is None else None)

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is FLUSH:
            self.log.flush(bio)
        elif not bio.length:
            bio.complete()
        elif bio.op is READ:
            return self._read(bio, line)
        elif bio.op is DISCARD:
            self.log.forget(bio.offset, bio.length)
            line.send(bio, self.below[0])
        else:
            return self._write(bio, line)
        return None

    def _read(self, bio: Bio, line: Line) -> Plan[None] | None:
        found = self.log.find(bio.offset, bio.length)
        if found.count * self._size < bio.length:
            if found.segment is not None:
                self.log.read(found.segment)
            return line.cut(bio, found.count * self._size, self)
        if found.zeros:
            assert bio.view is not None
            bio.view[:] = bytes(bio.length)
            bio.complete()
        elif (segment := found.segment) is None:
            line.send(bio, self.below[0])
        else:
            bio.push(lambda bio: self.log.read(segment))
            bio.offset = self.log.form.address(found.position)
            line.send(bio, self.below[1])
        return None

    def _write(self, bio: Bio, line: Line) -> Plan[None]:
        entries = self.log.form.described(bio.offset, bio.length, bio.view)
        need = len(entries), bio.length // self._size
        place = self.log.place_now(*need) or (yield from self.log.place(*need))
        bio.push(partial(self._written, place, entries, bio.fua))
        if bio.op is not WRITE:  # zeros are in the header alone
            bio.complete()
            return
        bio.fua = False  # a commit makes it durable
        bio.offset = self.log.form.address(place.position)
        line.send(bio, self.below[1])

    def _written(self, place: Place, entries: list[Entry], fua: bool, bio: Bio) -> bool:
        bio.fua, good = fua, bio.error is None
        self.log.ended(place, entries if good else None)
        if fua and good:
            self.log.flush(bio)
        return fua and good

    def start(self) -> Plan[None]:
        return self.log.start(self._create)

    def close(self) -> Plan[None]:
        return self.log.close(self._drain)

    def stats(self) -> dict[str, object]:
        return self.log.stats()


def make(below: Layer, options: Options, site: Site) -> Layer:
    log, create = log_of(below, options, site)
    return WriteCache(log, site.bios("splits"), create=create, drain=options.flag("drain", True))


def room(size: int, options: Options) -> int:
    """With the last block whole."""
    return size + -size % int(options.text("block", "4096"))
