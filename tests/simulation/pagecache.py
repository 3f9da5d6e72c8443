"""A page cache on a stack: written later, by whoever needs its memory, through layers that need memory too.

This is the loop that reserves are there for: a request for a page reclaims, reclaim writes a dirty page out,
the layers it passes take buffers of the same zone. Each of them has its reserve, so each write ends.
"""

from __future__ import annotations

from headway.core.block.bio import WRITE, Bio
from headway.core.block.bioset import BioSet
from headway.core.block.sending import carry_out
from headway.core.block.stack import Stack
from headway.core.mm.gfp import Gfp
from headway.core.mm.pages import PageRun
from headway.core.mm.shrinker import STOP, ScanControl
from headway.core.mm.slowpath import SlowPath
from headway.core.plan import Plan, Ticket, park
from tests.simulation.disks import BLOCK


class Page:
    """One block in memory. Nobody changes its data while it is being written."""

    def __init__(self, run: PageRun) -> None:
        self.run = run
        self.data = memoryview(bytearray(BLOCK))
        self.dirty = False
        self.busy: list[Ticket] | None = None  # who waits for the write, or the use, to end
        self.left = False  # whoever wrote it was cancelled: the end of the write lets it go


class PageCache:
    """At most what the zone can spare; `write_outs` has one bio, for one write at a time."""

    name, offloads = "page cache", False

    def __init__(self, stack: Stack, path: SlowPath) -> None:
        self.layer = stack.top
        self.path = path
        self.share = path.zone.share(0, name="page cache")
        self.bios = BioSet(stack.runtime, "write-outs", min_count=1)
        self.pages: dict[int, Page] = {}
        self.written = self.evicted = 0
        self.registration = path.reclaim.shrinkers.register(self, name="page cache", batch=2)

    # -- for users -----------------------------------------------------------------------------------

    def write(self, number: int, value: int, who: str) -> Plan[bool]:
        """Keep a block, to be written later; False if there is no page for it."""
        page = yield from self._hold(number, who)
        if page is None:
            return False
        page.data[:] = bytes([value]) * BLOCK
        page.dirty = True
        self._let_go(page)
        return True

    def read(self, number: int, who: str) -> Plan[bytes | None]:
        """A block, if it is here."""
        if number not in self.pages:
            return None
        page = yield from self._hold(number, who, make=False)
        if page is None:
            return None
        data = bytes(page.data)
        self._let_go(page)
        return data

    def write_out(self, number: int) -> Plan[bool]:
        """Write a block if it is dirty; False if that failed."""
        page = yield from self._hold(number, "", make=False)
        if page is None:
            return True
        try:
            return not page.dirty or (yield from self._write(number, page))
        finally:
            self._let_go(page)

    def close(self) -> Plan[None]:
        """Drop everything; dirty pages must have been written."""
        yield from self.registration.leave()
        for page in self.pages.values():
            assert page.busy is None
            self.share.free(page.run)
        self.pages.clear()
        self.bios.close()
        self.share.close()

    # -- pages -----------------------------------------------------------------------------------------

    def _hold(self, number: int, who: str, make: bool = True) -> Plan[Page | None]:
        """The page, and nobody else has it until `_let_go`."""
        while True:
            page = self.pages.get(number)
            if page is None:
                if not make:
                    return None
                run = yield from self.path.alloc(self.share, Gfp.KERNEL, 0, who)
                if run is None:
                    return None
                if number in self.pages:  # somebody else was quicker
                    self.share.free(run)
                    continue
                page = self.pages[number] = Page(run)
            elif page.busy is not None:
                ticket = Ticket(f"page {number}")
                page.busy.append(ticket)
                yield from park(ticket)
                continue
            page.busy = []
            return page

    def _let_go(self, page: Page) -> None:
        if page.left:
            return
        assert page.busy is not None
        waiting, page.busy = page.busy, None
        for ticket in waiting:
            ticket.wake()

    def _write(self, number: int, page: Page) -> Plan[bool]:
        """Write a page that is held; whether that worked. Who is cancelled leaves it held by the write."""
        bio = yield from self.bios.make(WRITE, number * BLOCK, page.data, BLOCK)
        under_way = [page]

        def over(bio: Bio) -> None:
            under_way.clear()
            self.written += 1
            page.dirty = bio.error is not None
            self.bios.free(bio)
            if page.left:
                page.left = False
                self._let_go(page)

        try:
            yield from carry_out(self, bio, over, "write-out")
        except Exception:
            return False
        finally:
            page.left = bool(under_way)
        return True

    # -- as a shrinker -------------------------------------------------------------------------------

    def count_objects(self, control: ScanControl) -> int:
        free = [page for page in self.pages.values() if page.busy is None]
        return sum(not page.dirty or bool(control.gfp & Gfp.IO) for page in free)

    def scan(self, control: ScanControl) -> Plan[int]:
        """Give back clean pages, and write dirty ones out first, if the mask allows I/O."""
        freed = looked = 0
        for number, page in list(self.pages.items()):
            if freed >= control.scan_count or looked >= 2 * control.scan_count:
                break
            if page.busy is not None or self.pages.get(number) is not page:
                continue
            looked += 1
            if page.dirty and not control.gfp & Gfp.IO:
                continue
            page.busy = []
            try:
                if not page.dirty or (yield from self._write(number, page)):
                    del self.pages[number]
                    self.share.free(page.run)
                    self.evicted += 1
                    freed += 1
            finally:
                self._let_go(page)
        return freed or STOP
