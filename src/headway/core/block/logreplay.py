"""What a write cache's log holds after a start: headers followed from the tail, and doubtful data checked.

It ends at the first header that is not the next one. Of a segment that was not durable for certain, an
entry whose data is not what its header says is passed over, and no other: it was not flushed, and so may be
lost, or somebody changed it while it was written, which is no reason to lose what others flushed after it.
Then the places where the next header may be are cleared, so that none is completed by accident.

Bound: a read for each segment, and for each block since the last flush that a header knows of.

Source: own.
"""

from __future__ import annotations

from typing import NamedTuple

from headway.core.block.bio import READ, WRITE
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer
from headway.core.block.logformat import Entry, Format, Header, State, check
from headway.core.block.ring import Ring
from headway.core.plan import Plan


class Found(NamedTuple):
    """Reading of a log: one bio of `bios` at a time, and one block."""

    form: Format
    state: State
    fast: Layer
    bios: BioSet
    block: memoryview

    def replay(self, ring: Ring) -> Plan[int]:
        """Put all that counts into an empty `ring`; how many entries. Raises: what the device failed with."""
        headers = yield from self._headers()
        sure = headers[-1].durable if headers else 0
        entries = 0
        for header in headers:
            if header.sequence > sure:
                came = yield from self._came(header)
                if came != header.entries:
                    # Said on the device too: later headers vouch for this one.
                    header = header._replace(entries=came)
                    self.block[:] = self.form.header(header)
                    place = self.form.address(header.position)
                    yield from self.bios.ask(self.fast, WRITE, place, self.block)
            ring.replay(header)
            entries += sum(entry is not None for entry in header.entries)
        self.block[:] = bytes(self.form.block)
        for position in self._next(headers[: len(ring.segments)]):
            if position < ring.tail + self.form.slots:  # it is free
                yield from self.bios.ask(self.fast, WRITE, self.form.address(position), self.block)
        return entries

    def _headers(self) -> Plan[list[Header]]:
        found: list[Header] = []
        while True:
            for position in self._next(found):
                header = yield from self._header_at(position, found)
                if header is not None:
                    found.append(header)
                    break
            else:
                return found

    def _next(self, found: list[Header]) -> list[int]:
        """Where the header after these may be: behind them, or at the beginning of the ring."""
        slots = self.form.slots
        end = found[-1].position + 1 + len(found[-1].entries) if found else self.state.tail
        return [end, -(-end // slots) * slots] if end % slots else [end]

    def _header_at(self, position: int, found: list[Header]) -> Plan[Header | None]:
        form = self.form
        yield from self.bios.ask(self.fast, READ, form.address(position), self.block)
        sequence, since = self.state.sequence, self.state.since
        if found:
            sequence, since = found[-1].sequence + 1, found[-1].epoch
        header = form.parse_header(self.block, position, sequence, since)
        if header is None:
            return None
        begin = found[0].position if found else position
        return header if position + 1 + len(header.entries) - begin <= form.slots else None

    def _came(self, header: Header) -> Plan[list[Entry | None]]:
        """The entries of a segment whose data came to the device before the power went."""
        came: list[Entry | None] = []
        for at, entry in enumerate(header.entries, header.position + 1):
            if entry is not None and not entry.zeros:
                yield from self.bios.ask(self.fast, READ, self.form.address(at), self.block)
                came.append(entry if check(self.block) == entry.check else None)
            else:
                came.append(entry)
        return came
