"""Keeps a tag of every block, and finds what was changed; a block and its tag change together.

Writes go through a journal (`sections`): so no power cut leaves a block whose tag is another's. A read
takes the block, then its tag, then looks whether memory has a newer one; if they differ although nothing
was put in place meanwhile, the block was changed, and that is EIO with its offset. With a key file the
tags are keyed, and only who has the key can make a right one.
Reserves: two sections (of up to 100 blocks), 2 blocks for tags, 2 bios for reads and 1 for the journal;
workers with a rescuer.

Source: Linux ``drivers/md/dm-integrity.c`` (6.12). Departure: a layout of its own (`tagformat`).
"""

from __future__ import annotations

from headway.core.block.at_rest import AtRest
from headway.core.block.bio import DISCARD, FLUSH, READ, Bio, corrupt
from headway.core.block.layer import Layer
from headway.core.block.limits import Limits
from headway.core.block.line import Line
from headway.core.block.sections import Sections
from headway.core.block.spec import Options, Site
from headway.core.block.tagformat import NEVER, WIDTH, Format, fit, most_in_section, parse
from headway.core.plan import Plan


class Integrity(Layer):
    """`form` says where on `below` things are."""

    def __init__(self, below: Layer, form: Format, site: Site, create: bool) -> None:
        self.name = f"integrity on {below.name}"
        self.below = (below,)
        self.size = form.blocks * form.block
        self.limits = Limits(alignment=form.block)
        self.keeps_zeros, self.copies_writes = create, True  # no tag is set; a journal has copies
        self._form, self._create = form, create
        self.sections = Sections(below, form, site)
        self._bios = site.bios("reads")
        self._tags = site.pool("tags", site.buffers(form.block), 2)
        self._workers = site.workers("reads", limit=4)
        self.corrupt = 0

    def submit(self, bio: Bio, line: Line) -> Plan[None] | None:
        if bio.op is READ and bio.length:
            self._workers.queue(self._read, bio)
        elif bio.op is FLUSH:
            self.sections.flush(bio)
        elif bio.op is DISCARD or not bio.length:
            bio.complete()
        else:
            return self._write(bio)
        return None

    def _write(self, bio: Bio) -> Plan[None]:
        size = self._form.block
        for at in range(0, bio.length, size):
            data = None if bio.view is None else bio.view[at : at + size]
            yield from self.sections.put((bio.offset + at) // size, data)
        if bio.fua:
            self.sections.flush(bio)
        else:
            bio.complete()

    def _read(self, bio: Bio) -> Plan[None]:
        error: BaseException | None = None
        try:
            again = True
            while again:
                size, epoch = self._form.block, self.sections.epoch
                held = self.sections.holds(bio.offset // size, bio.end // size)
                yield from self._do(self._form.data_start + bio.offset, bio.view)
                wrong = yield from self._checked(bio)
                # Put in place meanwhile: block and tag may be of two times, memory's have been newer.
                again = epoch != self.sections.epoch and (held or wrong is not None)
                if wrong is not None and not again:
                    self.corrupt += 1
                    raise corrupt(self.name, "block", wrong, wrong * self._form.block)
        except Exception as raised:
            error = raised
        bio.complete(error)

    def _checked(self, bio: Bio) -> Plan[int | None]:
        """Compare with the tags, and take what is newer from memory; the first wrong block."""
        form, view = self._form, bio.view
        assert view is not None
        [tags] = yield from Line().take(self._tags)
        held = None
        try:
            for number in range(bio.offset // form.block, bio.end // form.block):
                if number // form.tags_per_block != held:
                    held = number // form.tags_per_block
                    yield from self._do(form.tags_start + held * form.block, tags[: form.block])
                start = number * form.block - bio.offset
                part = view[start : start + form.block]
                at = number % form.tags_per_block * WIDTH
                tag = bytes(tags[at : at + WIDTH])
                if self.sections.newest(number, part):
                    continue
                if tag == NEVER:
                    part[:] = bytes(form.block)
                elif form.tag(number, part) != tag:
                    return number
        finally:
            self._tags.free(tags)
        return None

    def _do(self, offset: int, view: memoryview | None) -> Plan[None]:
        return self._bios.ask(self.below[0], READ, offset, view)

    def start(self) -> Plan[None]:
        return self.sections.start(self._create)

    def close(self) -> Plan[None]:
        return self.sections.close()

    def stats(self) -> dict[str, object]:
        held = self.sections
        return {"corrupt": self.corrupt, "commits": held.commits, "replayed": held.replayed}


def make(below: Layer, options: Options, site: Site) -> Layer:
    path, create = options.text("key-file", ""), options.flag("create", site.create)
    block, section = _sizes(options)
    options.finish()
    key = b""
    if path:
        secret = site.crypto.key_file(path)
        key = bytes(secret.reveal())
        secret.wipe()
    if create:
        form = fit(below.size, block, section, site.crypto.random(16), key)
    else:
        form = parse(AtRest(below, "layer integrity").read(0, 4096), below.size, key, below.name)
    return Integrity(below, form, site, create)


def _sizes(options: Options) -> tuple[int, int]:
    block = int(options.choice("block", "4096", ("512", "1024", "2048", "4096")))
    return block, options.number("section", most_in_section(block), least=1)


def room(size: int, options: Options) -> int:
    """With tags and journal, and the last block whole."""
    block, section = _sizes(options)
    return Format(block, section, -(-size // block), bytes(16)).end + block
