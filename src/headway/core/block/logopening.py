"""The log of a write cache as its options ask for it: opened, or laid out anew.

It decides when there is nothing to lose in a new one. The log is started by the layer.

Source: own.
"""

from __future__ import annotations

from headway.core.block.at_rest import AtRest
from headway.core.block.layer import Layer
from headway.core.block.logformat import SIZES, Format, State, fit, most_in_segment, parse
from headway.core.block.spec import Options, Site
from headway.core.block.writelog import WriteLog
from headway.errors import UsageError


def log_of(below: Layer, options: Options, site: Site) -> tuple[WriteLog, bool]:
    """The log, and whether it is a new one. Raises: UsageError."""
    name, create = options.text("cache", ""), options.flag("create", site.create)
    block = int(options.choice("block", "4096", tuple(map(str, SIZES))))
    section = options.number("section", most_in_segment(block), least=1)
    high, low = options.number("high", 50, least=1), options.number("low", 45)
    buffer = options.size("buffer", 256 << 10)
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
    if found is None or create:
        create = True
        found = fit(fast.size, below.size, block, section), State(0, 0, 0, 1, 0)
    form, state = found
    marks = form.slots * low // 100, form.slots * high // 100
    return WriteLog(below, fast, form, state, site, max(buffer, form.block), marks), create


def _is_used(form: Format, state: State, cache: AtRest) -> bool:
    """Whether the log has a segment that is not written back."""
    for position in (state.tail, -(-state.tail // form.slots) * form.slots):
        raw = cache.read(form.address(position), form.block)
        header = form.parse_header(memoryview(raw), position, state.sequence, state.since)
        if header is not None:
            return True
    return False
