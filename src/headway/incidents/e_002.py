"""E-002 (2013): who ends the writeback of a page waits, inside reclaim, for the writeback of another page to end.

A group of tasks, C, is at its memory limit. The data of its pages has been written, and for each page an item
is queued on W: only a transaction ends that page's writeback. A transaction allocates, that is charged to C, and
reclaim in C waits for a page under writeback whose item is queued behind, or is in the hands of a worker that
waits likewise. W starts more workers while it may (so with as many workers as pages it is only slow).

E-002b is why the wait was there: without it, a writer that fills C with dirty pages finds nothing to reclaim
and is killed, while the device would have cleaned a page soon. Zone, slow path, work queue and the throttle of
writers are the real ones; the list of pages, and the rule by which it is scanned, are the incident's.

Source: D. Chinner, H. Dickins, M. Hocko and A. Morton, "linux-next: slab shrinkers: BUG at mm/list_lru.c:92" (2013);
Linux commits e62e384e9d and c3b94f44fc (3.6), ecf5fc6e9654 (4.2), on ``mm/vmscan.c``.
"""

from __future__ import annotations

from typing import Any, Final, final

from headway.core.block.workqueue import Workqueue
from headway.core.mm.dirty import DirtyThrottle
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.oom import Oom
from headway.core.mm.pools import FixedMempool
from headway.core.mm.shrinker import ScanControl
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Ticket, park
from headway.errors import NoMemory
from headway.incidents.stage import (
    DEADLOCK,
    DONE,
    DROPPED_WORK,
    EARLY_KILL,
    Fix,
    Incident,
    Stage,
)

PAGE_BYTES: Final = 4096
PAGES: Final = 4  # under writeback
WORKERS: Final = 2
LOG_S: Final = 0.005  # a transaction
CONGESTION_S: Final = 0.1
SLOW_WRITE_S: Final = 0.5
WRITES: Final = 6  # of the writer in E-002b


@final
class _Page:
    """A page of a file."""

    def __init__(self, name: str, run: Any) -> None:
        self.name = name
        self.run = run
        self.writeback = self.failed = self.bad = self.gone = False
        self._waiting: list[Ticket] = []

    def wait(self) -> Plan[None]:
        while self.writeback:
            ticket = Ticket(f"the writeback of {self.name}")
            self._waiting.append(ticket)
            yield from park(ticket)

    def end_writeback(self) -> None:
        self.writeback = False
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            ticket.wake()


@final
class _Group:
    """C: its memory, its pages in the order in which reclaim looks at them, and the rule by which it waits.

    `rule`: wait for a page if the request has IO, or has FS; after a batch that gave nothing, for at most a
    tenth of a second; a tenth of a second for each page; or never.
    """

    def __init__(self, stage: Stage, rule: str, page_count: int) -> None:
        runtime = stage.simulator
        self.stage, self.rule = stage, rule
        self.zone = Zone(page_count, Watermarks(0, 0, 0), runtime=runtime, name="C")
        self.path = SlowPath(self.zone, runtime, Oom.RAISE)
        self.cache = self.zone.share(0, name="page cache")
        self.log = self.zone.share(0, name="transactions")
        self.listed: list[_Page] = []
        self.path.reclaim.shrinkers.register(self, name="pages of C")
        throttle = DirtyThrottle("1GiB", runtime=runtime)
        limit = (page_count - 1) * PAGE_BYTES
        self.device = throttle.device("D")
        self.limits = throttle.group("C", limit, limit // 4)

    def count_objects(self, control: ScanControl) -> int:
        return self.cache.held_count

    def scan(self, control: ScanControl) -> Plan[int]:
        """Look at pages until one is free."""
        for _ in range(min(control.scan_count, len(self.listed))):
            if not self.listed:
                break
            page = self.listed.pop(0)
            if page.writeback:
                yield from self._meet(page, control)
            if not page.writeback:
                page.gone = True
                self.cache.free(page.run)
                self.stage.say(control.who, f"reclaims {page.name}")
                return 1
            self.listed.append(page)
        if self.rule == "after-batch":
            yield from park(Ticket("writeback, after a batch"), CONGESTION_S)
        return 0

    def _meet(self, page: _Page, control: ScanControl) -> Plan[None]:
        needs = {"io": Gfp.IO, "fs": Gfp.FS}.get(self.rule)
        if needs is not None and control.gfp & needs:
            self.stage.say(control.who, f"reclaims: {page.name} is under writeback", "waits for it")
            yield from page.wait()
        elif self.rule == "timed":
            yield from park(Ticket("congestion"), CONGESTION_S)


@final
class _Completions:
    """W: what is left to do for a page after its data was written."""

    def __init__(self, group: _Group, limit: int, fix: str | None) -> None:
        self.group, self.stage, self.fix = group, group.stage, fix
        self.queue = Workqueue(self.stage.simulator, "W", limit=limit)
        self.lost: list[_Page] = []
        self.allocates = True

    def io_done(self, page: _Page) -> None:
        """D: the data of a page was written, or was not."""
        how = "not written" if page.failed else "written"
        if self.fix == "early-end":
            page.end_writeback()
        self.stage.say("D", f"the data of {page.name} is {how}", "an item is queued on W")
        self.queue.queue(self._item, page)

    def _item(self, page: _Page) -> Plan[None]:
        who = f"W for {page.name}"
        if self.allocates:
            yield from self._transaction(who)
        if page.failed and page.gone:
            self.lost.append(page)
            self.stage.say(who, f"is to mark {page.name} bad", "it is gone: nobody will know")
            return
        page.bad = page.failed
        page.end_writeback()
        said = "marks it bad, and ends its writeback" if page.bad else "ends its writeback"
        self.stage.say(who, said)

    def _transaction(self, who: str) -> Plan[None]:
        group = self.group
        gfp, scope = (Gfp.NOIO if self.fix == "noio" else Gfp.NOFS), Scope.NONE
        if self.fix == "fs-scope":
            gfp, scope = Gfp.KERNEL, Scope.NOFS
        run = yield from group.path.alloc(group.log, gfp, int(scope), who)
        assert run is not None
        yield from park(Ticket("the log"), LOG_S)
        group.log.free(run)


_RULES = {
    "may-enter-fs": "fs",
    "fs-cache": "fs",
    "after-batch": "after-batch",
    "timed": "timed",
    "dirty-throttling": "never",
}


def play(stage: Stage, fix: str | None, *, workers: int = WORKERS, page_count: int = PAGES) -> str:
    """Pages under writeback, and one clean one that reclaim comes to after them."""
    group = _Group(stage, _RULES.get(fix or "", "io"), page_count + 1)
    done = _Completions(group, workers, fix)
    pages = _filled(group, page_count, throttled=fix == "dirty-throttling")
    pages[
        min(workers, len(pages) - 1)
    ].failed = True  # the first whose item has to wait for a worker
    names = ", ".join(page.name for page in pages)
    clean = page_count + 1 - len(pages)
    stage.say("flusher", f"has written {names}", f"C is full, {clean} of its pages clean")

    def flusher() -> Plan[None]:
        yield from done.queue.start()
        for page in pages:
            done.io_done(page)
        yield from done.queue.close()

    stage.enter("flusher", flusher())
    ended = stage.play()
    return DROPPED_WORK if ended == DONE and done.lost else ended


def _filled(group: _Group, page_count: int, *, throttled: bool) -> list[_Page]:
    """C at its limit; the pages under writeback. A throttled writer stops before all are dirty."""
    pages = []
    clean = []
    for number in range(1, page_count + 2):
        page = _Page(f"p{number}", group.cache.take(0))
        may = not throttled or group.device.try_dirtied(PAGE_BYTES, group.limits)
        if may and number <= page_count:
            page.writeback = True
            pages.append(page)
        else:
            clean.append(page)
    group.listed = [*pages[1:], *clean, pages[0]]
    return pages


def play_b(stage: Stage, fix: str | None) -> str:
    """A writer in C, and a device that is slower than he is."""
    rule = "io" if fix == "wait" else _RULES.get(fix or "", "never")
    group = _Group(stage, rule, PAGES)
    done = _Completions(group, WORKERS, fix)
    done.allocates = False  # they have a reserve of their own: this is about the writer
    lock: FixedMempool[str] = FixedMempool(["lock"], runtime=stage.simulator, name="lock")
    inodes = _Inodes(stage, lock)
    group.path.reclaim.shrinkers.register(inodes, name="inodes", seeks=1, needs=Gfp.FS)
    written = _Disk(done)
    killed: list[str] = []

    def writer() -> Plan[None]:
        yield from done.queue.start()
        try:
            for number in range(1, WRITES + 1):
                yield from _write(group, lock, written, f"p{number}", fix)
        except NoMemory:
            stage.say("writer", "finds nothing to reclaim", "out of memory: it is killed")
            killed.append("writer")
        for page in list(written.pages):
            yield from page.wait()
        yield from done.queue.close()

    stage.enter("writer", writer())
    ended = stage.play()
    return EARLY_KILL if ended == DONE and killed else ended


def _write(
    group: _Group, lock: FixedMempool[str], disk: _Disk, name: str, fix: str | None
) -> Plan[None]:
    """A page of the file is allocated and written, under a lock of the file system."""
    yield from lock.alloc_plan(Gfp.KERNEL, 0, "writer", 1, None)
    gfp = Gfp.KERNEL if fix == "fs-cache" else Gfp.NOFS
    try:
        run = yield from group.path.alloc(group.cache, gfp, 0, "writer")
    finally:
        lock.free("lock")
    page = _Page(name, run)
    page.writeback = True
    group.listed.append(page)
    group.stage.say("writer", f"writes {name}", f"{group.zone.room()} pages of C are free")
    disk.submit(page)
    if fix == "dirty-throttling":
        yield from group.device.dirtied_plan(PAGE_BYTES, group.limits, False, 0, "writer")


@final
class _Inodes:
    """What a file system gives to reclaim, if it may be asked: under its own lock."""

    def __init__(self, stage: Stage, lock: FixedMempool[str]) -> None:
        self._stage = stage
        self._lock = lock

    def count_objects(self, control: ScanControl) -> int:
        return 8

    def scan(self, control: ScanControl) -> Plan[int]:
        if not self._lock.reserve_count:
            self._stage.say(
                control.who, "reclaims: the file system wants its lock", "it waits for itself"
            )
        yield from self._lock.alloc_plan(Gfp.KERNEL, 0, control.who, 1, None)
        self._lock.free("lock")
        return 0


@final
class _Disk:
    """D: writes one page after the other, slowly."""

    def __init__(self, done: _Completions) -> None:
        self._done = done
        self._queue: list[_Page] = []
        self.pages: list[_Page] = []

    def submit(self, page: _Page) -> None:
        self.pages.append(page)
        self._queue.append(page)
        if len(self._queue) == 1:
            self._done.stage.enter("D", self._serve())

    def _serve(self) -> Plan[None]:
        while self._queue:
            yield from park(Ticket("the disk"), SLOW_WRITE_S)
            if self._done.fix == "dirty-throttling":
                self._done.group.device.cleaned(PAGE_BYTES, self._done.group.limits)
            self._done.io_done(self._queue.pop(0))


def _fixes(titles: dict[str, str], **ends: str) -> tuple[Fix, ...]:
    return tuple(
        Fix(name, title, ends.get(name.replace("-", "_"), DONE)) for name, title in titles.items()
    )


_SHARED = {
    "after-batch": "wait after a batch, for at most a tenth of a second, and not for one page",
    "timed": "a timed wait for congestion to end",
    "dirty-throttling": "slow the group's writers by its own limits; reclaim never waits for a page",
}
E002 = Incident(
    "E-002",
    "writeback ends in a queue whose workers wait for writeback to end",
    DEADLOCK,
    _fixes(
        {
            "noio": "transactions of a completion allocate with NOIO",
            "fs-scope": "a flag of the task takes FS away from all it allocates",
            "may-enter-fs": "reclaim waits for a page only if the request has FS",
            **_SHARED,
            "early-end": "end the writeback when the data is written, before the transaction",
        },
        fs_scope=DEADLOCK,
        early_end=DROPPED_WORK,
    ),
    play,
)
E002B = Incident(
    "E-002b",
    "nobody waits, and a writer is killed for want of memory that the device would have cleaned",
    EARLY_KILL,
    _fixes(
        {
            "wait": "reclaim waits for a page under writeback, as in 3.6",
            "may-enter-fs": "it waits only if the request has FS, which a file system's has not",
            "fs-cache": "and file systems allocate their pages with FS",
            **_SHARED,
        },
        may_enter_fs=EARLY_KILL,
        fs_cache=DEADLOCK,
    ),
    play_b,
)
