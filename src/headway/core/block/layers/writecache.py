"""Takes the writes of a slow device on a fast one, and writes them back in time; no power cut loses what was flushed.

A write goes to the log on the fast device, a flush commits the log, and when it is fuller than `high` the
oldest blocks are written back to the slow one until it is down to `low`. A read is served from where
the newest copy is, and split where that changes. Zeros take one block of the log, however many they are.
A discard forgets what the log has, and goes on to the slow device. `ring`, `logformat` and `writelog` have
the log itself. There is nothing to fall back to when the log is full: a write waits for the slow device, as
it would without the layer.
Reserves: a block, a buffer of `buffer` bytes and a bio for each of the two workers; 2 bios to split with.

Source: Linux ``drivers/md/dm-writecache.c`` (6.12). Departure: a log with one flush for each commit, where
the kernel has a table of blocks and two.
"""

from __future__ import annotations

from functools import partial

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.logformat import SIZES, Entry, Format, State, check, fit, most_in_segment, parse
from headway.core.block.ring import Found, Place
from headway.core.block.spec import Options, Site
from headway.core.block.writelog import WriteLog
from headway.core.plan import Plan
from headway.errors import UsageError


class WriteCache(Layer):
    """`log` is the one of `slow` on `fast`."""

    def __init__(
        self, slow: Layer, fast: Layer, form: Format, log: WriteLog, splits: BioSet, *,
        create: bool, drain: bool,
    ) -> None:  # fmt: skip
        self.name = f"writecache on {slow.name}"
        self.below = (slow, fast)
        self.size = form.blocks * form.block
        self.limits = Limits(alignment=form.block, max_length=form.section * form.block)
        self.splits = splits
        self.keeps_zeros = create  # then there is nothing in the log
        self.log = log
        self._form, self._size = form, form.block
        self._create, self._drain = create, drain

    # -- the inline door -----------------------------------------------------------------------------

    def submit_now(self, bio: Bio) -> bool:
        if bio.op is FLUSH:
            return self.log.is_durable()
        if not bio.length or not self.limits.fits(bio.offset, bio.length):
            return False
        if bio.op is READ:
            return self._read_now(bio)
        return bio.op is WRITE and not bio.fua and self._write_now(bio)

    def _read_now(self, bio: Bio) -> bool:
        found, offset = self._find(bio), bio.offset
        if found.segment is None:
            if found.count * self._size < bio.length:
                return False
            if not found.zeros:
                return self.below[0].submit_now(bio)
            _clear(bio)
            return True
        bio.offset = self._form.address(found.position)
        done = found.count * self._size == bio.length and self.below[1].submit_now(bio)
        bio.offset = offset
        self.log.read(found.segment)
        return done

    def _write_now(self, bio: Bio) -> bool:
        place = self.log.place_now(bio.length // self._size)
        if place is None:
            return False
        entries, offset = self._entries(bio), bio.offset
        bio.offset = self._form.address(place.position)
        done = self.below[1].submit_now(bio)
        bio.offset = offset
        if done and bio.error is None:
            self.log.done(place, entries)
        else:
            self.log.failed(place)
        return done

    # -- the plan ------------------------------------------------------------------------------------

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is FLUSH:
            self.log.flush(bio)
        elif not bio.length:
            bio.complete()
        elif bio.op is READ:
            return self._read(bio, line)
        elif bio.op is DISCARD:
            self.log.forget(bio.offset // self._size, bio.length // self._size)
            line.send(bio, self.below[0])
        else:
            return self._write(bio, line)
        return None

    def _find(self, bio: Bio) -> Found:
        with self.log.guard:
            return self.log.ring.find(bio.offset // self._size, bio.length // self._size)

    def _read(self, bio: Bio, line: Line) -> Plan[None] | None:
        found = self._find(bio)
        if found.count * self._size < bio.length:
            if found.segment is not None:
                self.log.read(found.segment)
            return self._split(bio, found.count * self._size, line)
        if found.zeros:
            _clear(bio)
            bio.complete()
        elif found.segment is None:
            line.send(bio, self.below[0])
        else:
            segment = found.segment
            bio.push(lambda bio: self.log.read(segment))
            bio.offset = self._form.address(found.position)
            line.send(bio, self.below[1])
        return None

    def _split(self, bio: Bio, length: int, line: Line) -> Plan[None]:
        """The front, which is in one place, and the rest behind it."""
        front = yield from self.splits.alloc(line)
        line.send(bio.split_to(front, length), self)
        line.send(bio, self)

    def _write(self, bio: Bio, line: Line) -> Plan[None]:
        count = bio.length // self._size if bio.op is WRITE else 1
        place = self.log.place_now(count) or (yield from self.log.place(count))
        entries = self._entries(bio)
        bio.push(partial(self._written, place, entries, bio.fua))
        if bio.op is not WRITE:  # zeros are in the header alone
            bio.complete()
            return
        bio.fua = False  # a commit makes it durable
        bio.offset = self._form.address(place.position)
        line.send(bio, self.below[1])

    def _entries(self, bio: Bio) -> list[Entry]:
        size, first = self._size, bio.offset // self._size
        if bio.view is None:
            return [Entry(first, bio.length // size, 0)]
        return [
            Entry(number, 0, check(bio.view[at : at + size]))
            for number, at in enumerate(range(0, bio.length, size), first)
        ]

    def _written(self, place: Place, entries: list[Entry], fua: bool, bio: Bio) -> bool:
        bio.fua = fua
        if bio.error is not None:
            self.log.failed(place)
            return False
        self.log.done(place, entries)
        if fua:
            self.log.flush(bio)
        return fua

    # -- its life --------------------------------------------------------------------------------------

    def start(self) -> Plan[None]:
        return self.log.start(self._create)

    def close(self) -> Plan[None]:
        return self.log.close(self._drain)

    def stats(self) -> dict[str, object]:
        log = self.log
        return {
            "cached": log.ring.cached, "used": log.ring.used, "slots": self._form.slots,
            "commits": log.commits, "written_back": log.written_back, "replayed": log.replayed,
            "waits": log.waits, "failure": None if log.failure is None else str(log.failure),
        }  # fmt: skip


def _clear(bio: Bio) -> None:
    assert bio.view is not None
    bio.view[:] = bytes(bio.length)


def make(below: Layer, options: Options, site: Site) -> Layer:
    name, create = options.text("cache", ""), options.flag("create", site.create)
    block = int(options.choice("block", "4096", tuple(map(str, SIZES))))
    section = options.number("section", most_in_segment(block), least=1)
    high, low = options.number("high", 50, least=1), options.number("low", 45)
    buffer, drain = options.size("buffer", 256 << 10), options.flag("drain", True)
    if not name or not low <= high <= 100:
        raise UsageError(
            f"layer writecache: cache={name}, low={low}, high={high}: a fast device is wanted, and percentages "
            "of it with low below high"
        )
    fast = site.open(name)
    at_rest = AtRest(fast, "layer writecache")
    raw = at_rest.read(0, 2 * SIZES[-1])
    found = parse(raw, fast.size, below.size)
    if found is None and not create and any(raw):
        raise UsageError(f"layer writecache: {name} has no superblock: create=yes makes one")
    if found is not None and create and _is_used(*found, at_rest):
        raise UsageError(
            f"layer writecache: {name} has writes that are not on their device yet: open it with that once"
        )
    create = create or found is None
    if create or found is None:
        found = fit(fast.size, below.size, block, section), State(0, 0, 0, 1)
    form, state = found
    marks = form.slots * low // 100, form.slots * high // 100
    log = WriteLog(below, fast, form, state, site, max(buffer, form.block), marks)
    return WriteCache(below, fast, form, log, site.bios("splits"), create=create, drain=drain)


def _is_used(form: Format, state: State, cache: AtRest) -> bool:
    """Whether the log has a segment that is not written back."""
    for position in (state.tail, -(-state.tail // form.slots) * form.slots):
        raw = cache.read(form.address(position), form.block)
        if form.parse_header(memoryview(raw), position, state.sequence) is not None:
            return True
    return False


def room(size: int, options: Options) -> int:
    """With the last block whole."""
    block = int(options.text("block", "4096"))
    options.texts("cache")
    return -(-size // block) * block
