"""E-002 (2013): the completion of a write waits, in reclaim, for the completion of another write.

A memory group C is at its limit, all of its pages under writeback. The device has written them; what
remains is done by a work queue: for each page a transaction, which allocates, and only then does its
writeback end. The transaction's charge finds C full, so its worker reclaims; reclaim waits for a page
under writeback, so that a group full of dirty pages is not killed early. That page's own item is behind
the worker in the queue, or with another that waits for the next. No worker is left.

The wait looked at IO alone. Looking at FS instead ends it, since the file system's own requests have none
(*fs-test*); so does taking IO from them (*noio*). A scope that takes FS does not: they have none. Without
any wait (*no-wait*) the group is killed while its pages are about to be clean. What stayed is a bounded
wait after the scan (*after-batch*; before that *timed*), and dirty limits for the group, which keep it from
filling with what cannot be dropped (*group-dirty*).

Source: H. Dickins, D. Chinner, M. Hocko, "linux-next: slab shrinkers: BUG at mm/list_lru.c:92" (2013);
Linux ``mm/vmscan.c``, ``shrink_folio_list``, and its comment on three cases (6.12).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, final

from headway.budgets import Budget
from headway.core.mm.dirty import DirtyThrottle
from headway.core.mm.gfp import Gfp, Scope, restrict
from headway.core.plan import Plan, Ticket, park
from headway.incidents.stage import DEADLOCK, DONE, OUT_OF_MEMORY, Fix, Incident, Stage

PAGES, WORKERS, WANTED = 4, 2, 2
DISK_S: Final = 0.01
THROTTLE_S: Final = 0.1
ROUNDS: Final = 3  # without progress: sixteen in Linux
_TRANSACTION: Final = Gfp.NOFS | Gfp.NOFAIL


# -- what reclaim does with a page under writeback ---------------------------------------------------


class Case(Enum):
    """What reclaim does with a page that it finds under writeback."""

    IMMEDIATE = "counts it; the background stalls once, later"
    LATER = "marks it to be reclaimed as soon as it is written, and goes on"
    WAIT = "waits for it"


class Rule(Enum):
    """Whose requests may wait."""

    IO = "those that may do I/O"  # Linux 3.6 to 4.1
    FS = "those that may enter the file system"  # since 4.2
    NOBODY = "none"


@final
@dataclass(slots=True)
class Page:
    """A page under writeback, or clean."""

    name: str
    writeback: bool = True
    reclaim: bool = False  # reclaim has met it before
    swap: bool = False  # it is of the swap cache, not of a file
    swap_by_fs: bool = False  # and its swap device is a file
    may_deadlock: bool = False  # its mapping says that waiting for it may never end (since 6.16)
    waiting: list[Ticket] = field(default_factory=list)


def case_of(
    page: Page, gfp: Gfp, *, group: int | None = 1, kswapd: bool = False, many: bool = False,
    rule: Rule = Rule.FS,
) -> Case:  # fmt: skip
    """`group`: None for reclaim of the whole machine, else the version of the group's interface.

    Version 2 throttles those who dirty, and so does the machine: there nobody has to wait here.
    """
    if kswapd and page.reclaim and many:
        return Case.IMMEDIATE
    enters_fs = bool(gfp & Gfp.FS or (page.swap and gfp & Gfp.IO and not page.swap_by_fs))
    may_wait = {Rule.IO: bool(gfp & Gfp.IO), Rule.FS: enters_fs, Rule.NOBODY: False}[rule]
    if group != 1 or not page.reclaim or not may_wait or page.may_deadlock:
        return Case.LATER
    return Case.WAIT


# -- the story ---------------------------------------------------------------------------------------


@final
class _Play:
    """A group at its limit, a device, a queue of completions and its workers, one who wants more."""

    def __init__(self, stage: Stage, fix: str | None, pages: int) -> None:
        self.stage, self.fix = stage, fix
        self.killed = False
        self.rule = Rule.IO
        if fix == "fs-test":
            self.rule = Rule.FS
        elif fix in ("no-wait", "after-batch", "timed"):
            self.rule = Rule.NOBODY
        self.group = 2 if fix == "group-dirty" else 1
        scopes = {"noio": Scope.NOIO, "nofs-scope": Scope.NOFS}
        self.scope = int(scopes.get(fix or "", 0))
        self.limit = Budget(pages, force=True, name="C", runtime=stage.simulator)
        self.pages = [Page(f"p{number}", reclaim=True) for number in range(1, pages + 1)]
        self.items: list[Page] = []
        self.idle: list[Ticket] = []  # workers without an item
        self.throttled: list[Ticket] = []
        self.to_come = 0
        self._fill(pages)

    def _fill(self, pages: int) -> None:
        """Writers fill C; with dirty limits of its own only as far as these go."""
        if self.fix == "group-dirty":
            throttle = DirtyThrottle(8 * pages, runtime=self.stage.simulator)
            disk, group = throttle.device("disk"), throttle.group("C", pages // 2)
            for page in self.pages:
                page.writeback = disk.try_dirtied(1, group)
        self.limit.alloc(pages)
        dirty = [page for page in self.pages if page.writeback]
        self.to_come = len(dirty)
        self.stage.say("flusher", f"writes {len(dirty)} of the {pages} pages of C", "C is full")

    # -- reclaim and charge --------------------------------------------------------------------------

    def charge(self, who: str, gfp: Gfp, after: int) -> Plan[bool]:
        """One page for C, with reclaim of its pages behind `after`; False if it is out of memory."""
        fruitless = 0
        while not self.limit.try_alloc(1):
            if (yield from self._reclaim(who, gfp, after)):
                fruitless = 0
                continue
            fruitless += 1
            if fruitless == ROUNDS:
                return self._give_up(who, gfp)
            yield from self._throttle(who)
        return True

    def _reclaim(self, who: str, gfp: Gfp, after: int) -> Plan[bool]:
        for page in self.pages[after:]:
            if page.writeback:
                if case_of(page, gfp, group=self.group, rule=self.rule) is Case.LATER:
                    page.reclaim = True
                    continue
                self.stage.say(who, f"reclaims, and meets {page.name} under writeback", "it waits")
                page.waiting.append(Ticket(f"the end of {page.name}'s writeback"))
                yield from park(page.waiting[-1])
            if page in self.pages:
                self.pages.remove(page)
                self.limit.free(1)
                self.stage.say(who, f"drops {page.name}, which is clean")
                return True
        return False

    def _throttle(self, who: str) -> Plan[None]:
        """After a scan that freed nothing. Workers are not held up: they are what reclaim waits for."""
        if who.startswith("W") or self.fix not in ("after-batch", "timed"):
            yield from self.stage.turn()
            return
        ticket = Ticket("a write to end")
        if self.fix == "after-batch":
            self.throttled.append(ticket)
        woken = yield from park(ticket, THROTTLE_S)
        self.stage.say(who, "was throttled", "until a write ended" if woken else "for 100 ms")

    def _give_up(self, who: str, gfp: Gfp) -> bool:
        if gfp & Gfp.NOFAIL:
            self.limit.alloc(1, Gfp.ATOMIC)
            self.stage.say(who, "may not fail", f"charged over the limit: {self.limit.used}")
            return True
        self.killed = True
        left = sum(page.writeback for page in self.pages)
        self.stage.say(who, "is killed: out of memory", f"{left} pages would have been clean soon")
        return False

    # -- who is there ----------------------------------------------------------------------------------

    def disk(self) -> Plan[None]:
        """The data of all pages is written; each has an item of work to do before its writeback ends."""
        yield from park(Ticket("the disk"), DISK_S)
        self.items = [page for page in self.pages if page.writeback]
        self.stage.say("D", "has written all pages", f"{len(self.items)} items for W")
        for ticket in self.idle:
            ticket.wake()

    def worker(self, name: str) -> Plan[None]:
        if not self.to_come:
            return
        self.idle.append(Ticket("an item"))
        yield from park(self.idle[-1])
        while self.items:
            page = self.items.pop(0)
            self.stage.say(name, f"takes the item of {page.name}", "a transaction: it allocates")
            after = self.pages.index(page) + 1
            yield from self.charge(name, restrict(_TRANSACTION, self.scope), after)
            yield from self.stage.turn()
            self.limit.free(1)
            page.writeback = False
            self.stage.say(name, f"ends the writeback of {page.name}")
            waiting, page.waiting = page.waiting, []
            for ticket in (*waiting, *self.throttled):
                ticket.wake()
            self.throttled.clear()

    def writer(self) -> Plan[None]:
        for number in range(1, WANTED + 1):
            if not (yield from self.charge("T", Gfp.KERNEL, 0)):
                return
            self.stage.say("T", f"has page {number} of {WANTED}")
            yield from self.stage.turn()


def play(
    stage: Stage,
    fix: str | None,
    *,
    pages: int = PAGES,
    workers: int = WORKERS,
    writer: bool = True,
) -> str:
    """`pages` items for so many `workers`."""
    story = _Play(stage, fix, pages)
    stage.enter("D", story.disk())
    for number in range(1, workers + 1):
        stage.enter(f"W{number}", story.worker(f"W{number}"))
    if writer:
        stage.enter("T", story.writer())
    ended = stage.play()
    return OUT_OF_MEMORY if story.killed else ended


INCIDENT = Incident(
    "E-002",
    "the end of a write waits, in reclaim, for the end of another write",
    DEADLOCK,
    (
        Fix("noio", "the completion allocates without IO", DONE),
        Fix("nofs-scope", "a scope that takes FS from the completion", DEADLOCK),
        Fix("fs-test", "only who may enter the file system waits", DONE),
        Fix("no-wait", "nobody waits", OUT_OF_MEMORY),
        Fix("after-batch", "a bounded wait after the scan, until writes end", DONE),
        Fix("timed", "a timed wait after the scan", DONE),
        Fix("group-dirty", "dirty limits for the group, and no wait", DONE),
    ),
    play,
)
