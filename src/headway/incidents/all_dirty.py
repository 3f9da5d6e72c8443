"""all-dirty (2001): all memory is dirty cache or pinned, and writing a page out needs a page.

An allocator that retries finds nothing, for nothing is clean and there is nobody to kill whose
death would free a page. With a closed circuit, elements that only write-out may take and that come back
when a page is written, the first page goes out and frees itself, then the next. What admission asks for
(book the page for your write-out before you make a page dirty) does it too, and holds a page for each.

Source: I. Molnar against S. von Krawczynski and B. LaHaise, "mempool-2.5.1-D2" (2001).
"""

from __future__ import annotations

from typing import Any

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Plan
from headway.incidents.stage import DONE, STALL, Fix, Incident, Stage

PAGES = 4
ROUNDS = 5  # how often the retrying allocator is watched before it is called a stall


class _Memory:
    """All pages: free, or dirty. Nothing else can be taken from."""

    def __init__(self, free: int) -> None:
        self.free_pages = free
        self.dirty = 0

    def alloc(self, gfp: Gfp) -> Any:
        if self.free_pages == 0:
            return None
        self.free_pages -= 1
        return object()

    light = alloc

    def free(self, element: Any) -> None:
        self.free_pages += 1


def play(stage: Stage, fix: str | None) -> str:
    memory = _Memory(PAGES)
    pool: BackedMempool[Any] | None = None
    if fix == "mempool":
        pool = BackedMempool(memory, min_count=1, runtime=stage.simulator, name="write-out pages")
    booked = _make_dirty(stage, memory, admission=fix == "admission")
    ended: list[str] = []
    stage.enter("write-out", _write_out(stage, memory, pool, booked, ended))
    finished = stage.play()
    return ended[0] if ended else finished


def _make_dirty(stage: Stage, memory: _Memory, *, admission: bool) -> list[Any]:
    """The writers take every page that they are given; with admission each books one to write it with."""
    booked: list[Any] = []
    while memory.free_pages >= (2 if admission and not booked else 1):
        if admission and not booked:
            booked.append(memory.alloc(Gfp.KERNEL))
            stage.say("writer", "books a page for its write-out")
        memory.alloc(Gfp.KERNEL)
        memory.dirty += 1
    stage.say("writer", f"makes {memory.dirty} pages dirty", f"{memory.free_pages} free")
    return booked


def _write_out(
    stage: Stage,
    memory: _Memory,
    pool: BackedMempool[Any] | None,
    booked: list[Any],
    ended: list[str],
) -> Plan[None]:
    tries = 0
    while memory.dirty:
        if pool is not None:
            page = yield from stage.alloc("write-out", pool, "a page to write with")
        else:
            page = booked.pop() if booked else memory.alloc(Gfp.NOIO)
        if page is None:
            tries += 1
            stage.say("write-out", f"try {tries} for a page to write with", "none: it tries again")
            if tries == ROUNDS:
                ended.append(STALL)
                return
            yield from stage.turn()
            continue
        memory.dirty -= 1
        memory.free_pages += 1
        stage.say("write-out", "writes a page", f"{memory.dirty} dirty, {memory.free_pages} free")
        if pool is not None:
            stage.free("write-out", pool, page)
        else:
            booked.append(page)
        yield from stage.turn()


INCIDENT = Incident(
    "all-dirty",
    "all memory is dirty, and to write a page out takes a page",
    STALL,
    (
        Fix("mempool", "a closed circuit: a reserve that only write-out may take", DONE),
        Fix("admission", "book the page for the write-out before a page is made dirty", DONE),
    ),
    play,
)
