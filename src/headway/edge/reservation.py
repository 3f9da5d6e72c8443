"""Reservations with memory in them: what is drawn on a promise is a view of the zone's arena.

It decides nothing: `headway.core.mm.reservation` promises, the zone keeps, the arena has the bytes.

Source: B. LaHaise's reservations in "mempool-2.5.1-D2" (2001).
"""

from __future__ import annotations

from headway.core.mm import reservation as core
from headway.core.mm.pages import order_for
from headway.core.units import parse_size
from headway.edge.arena import PAGE_BYTES
from headway.edge.slab import Pages
from headway.edge.zone import Zone
from headway.errors import UsageError


class Reservations(core.Reservations[memoryview]):
    """Promises of buffers of `size` in `zone`: a request is told yes, or waits in order of arrival.

    A promise costs accounting, not idle memory: clean cache of the zone lies in it until it is drawn on.

    >>> import headway as hw
    >>> zone = hw.Zone("1MiB", min_free=0)
    >>> journal = hw.Reservations(zone, "64KiB", name="journal")
    >>> with journal.reserve(4) as transaction:
    ...     block = transaction.draw()
    ...     len(block), transaction
    ...     transaction.free(block)
    (65536, <Reserve 'reserve': 1 of 4 drawn, 4 in all>)
    >>> journal.try_reserve(16) is not None
    True

    Raises: UsageError if the zone could never give such a buffer.
    """

    __slots__ = ("zone",)

    def __init__(self, zone: Zone, size: int | str = PAGE_BYTES, *, name: str = "reservations"):
        size_bytes = parse_size(size, f"size of {name!r}")
        if not size_bytes:
            raise UsageError(f"size of {name!r} is {size!r}; a buffer has at least 1 byte")
        self.zone = zone
        super().__init__(
            zone.slow_path(),
            runtime=zone._runtime,
            memory=Pages(zone._arena, zone._lending, zone._found),
            order=order_for(-(-size_bytes // PAGE_BYTES)),
            size_bytes=size_bytes,
            name=name,
        )
        zone.adopt(self)
