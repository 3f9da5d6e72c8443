"""E-000 (2008): a bio and the sense buffer its own write needs come from one merged slab cache.

Memory is at its limit. The driver below, which may not wait, gets a sense buffer from a page of the
emergency reserve; the writers above, who may not have such a page, take the free objects beside it
for their bios. When the driver asks again there is nothing: it drops the command it has already, and
does not look at its host's spare one, which is complete. Nothing is in flight, so nothing comes
back; every five seconds the writers try again and the driver reports a failure.

Four acts, each an incident of its own. E-000: bio and sense share a cache. E-000b: a third cache of
the writers is merged as well, and tells which cache must not be merged. E-000c: somebody else has
spent the reserve; no arrangement of slabs helps, only a reserve of the driver's own does. E-000d:
nothing is merged, but one cache serves both from the start.

Source: H. Dickins, P. Zijlstra and C. Lameter, "scsi: fix sense_slab/bio swapping livelock" (2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Wake
from headway.core.mm.pages import PageRun
from headway.core.mm.pools import BackedMempool
from headway.core.mm.slab import Slab
from headway.core.mm.slab_caches import SlabCaches
from headway.core.mm.slab_merge import Entitlement, SlabFlag, SlabSpec
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks, lowest_mark
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Ticket, park
from headway.incidents.stage import DONE, LIVELOCK, Fix, Incident, Stage

PAGE_BYTES: Final = 512  # four bios to a page, so that the story is short
MARKS: Final = Watermarks(8, 10, 12)
BIO, SENSE, KMALLOC, COMMAND = 104, 96, 128, 160
CACHE_LINE: Final = 64  # to which bios and sense buffers are aligned: both take 128 bytes
BIO_POOL_SIZE: Final = 2
WRITES: Final = 3  # that each reclaimer wants to start
RETRY_S: Final = 5.0
ROUNDS: Final = 3  # of nothing, before it is called a livelock


class _Bytes:
    """What lies in a page does not matter here."""

    def lend(self, run: PageRun) -> None: ...
    def take_back(self, run: PageRun) -> None: ...
    def drop(self, element: Any) -> None: ...
    def cut(self, offset: int, size: int) -> Any:
        return bytearray(1)


@final
class _Machine:
    """A zone, its slabs, a pool of bios, and one host with one spare command."""

    def __init__(self, stage: Stage, fix: str | None, act: str) -> None:
        self.stage, self.fix, self.act = stage, fix, act
        self.runtime = stage.simulator
        self.zone = Zone(64, MARKS, runtime=self.runtime, page_bytes=PAGE_BYTES)
        self.caches = SlabCaches(SlowPath(self.zone, self.runtime), self.runtime, _Bytes())
        self.bios = self._slab("bio", BIO, no_merge=fix in ("no-merge-bio", "no-merge-both"))
        alone = fix in ("no-merge-sense", "no-merge-both")
        made = (lambda sense: None) if fix == "constructor" else None
        self.senses = (
            self.bios
            if act == "E-000d"
            else self._slab("sense", SENSE, no_merge=alone, constructor=made)
        )
        self.contexts = self._slab("kmalloc-128", KMALLOC) if act == "E-000b" else None
        whole = fix == "one-object"
        self.commands = self._slab("command", COMMAND + (SENSE if whole else 0))
        self.sense_pool: BackedMempool[Any] | None = None
        if fix == "own-reserve":
            self.sense_pool = BackedMempool(
                self.senses, min_count=1, runtime=self.runtime, name="sense pool"
            )
        self.pool: BackedMempool[Any] = BackedMempool(
            self.bios,
            min_count=BIO_POOL_SIZE,
            runtime=self.runtime,
            name="P",
            wake=Wake.EXCLUSIVE,  # with a retry after five seconds, as it was
            unplug=self.run_queue,
        )
        self.spare: list[tuple[Any, Any]] = [self._whole_command(Gfp.KERNEL) or (None, None)]
        self.queue: list[tuple[Any, Any]] = []
        self.in_flight = self.written = self.wanted = 0
        self.failures = 0  # in a row
        self._failed_at_s = -RETRY_S

    def _slab(
        self,
        name: str,
        size: int,
        *,
        no_merge: bool = False,
        constructor: Callable[[Any], object] | None = None,
    ) -> Slab[Any]:
        entitlement = Entitlement.NONE
        if self.fix == "watermark":
            entitlement = Entitlement.WATERMARK
        elif self.fix == "pfmemalloc":
            entitlement = Entitlement.PFMEMALLOC
        spec = SlabSpec(
            name,
            size,
            align=CACHE_LINE if name in ("bio", "sense") else 8,
            flags=SlabFlag.NO_MERGE if no_merge else SlabFlag.NONE,
            constructed=constructor is not None,
            entitlement=entitlement,
        )
        slab: Slab[Any] = Slab(
            self.caches, spec, runtime=self.runtime, constructor=constructor, order=0
        )
        self.stage.say("slab", f"makes {name}", str(slab.decision).partition(": ")[2])
        return slab

    def fill(self) -> None:
        """Memory is at its limit: no object is free, and one page is left that only ATOMIC may have."""
        others = self.zone.share(0, name="others")
        for slab in (self.bios, self.senses, self.contexts):
            while slab is not None and slab.stats().free_count:
                slab.alloc(Gfp.KERNEL)
        left = lowest_mark(int(Gfp.ATOMIC), MARKS.min) + (0 if self.act == "E-000c" else 1)
        while self.zone.room() > left:
            others.take(0)
        self.stage.say("others", "take all memory", f"ATOMIC may have {left - 3} pages")

    # -- the driver: it may not wait -----------------------------------------------------------------

    def _whole_command(self, gfp: Gfp) -> tuple[Any, Any] | None:
        """A command and its sense buffer; None if there is neither that nor, where it looks, a spare."""
        command = self.commands.alloc(gfp)
        if command is None:
            return self._take_spare()
        if self.fix == "one-object":
            return command, None
        sense = self.senses.alloc(gfp)
        if sense is None and self.sense_pool is not None:
            sense = self.sense_pool.alloc_preallocated()
        if sense is not None:
            return command, sense
        self.commands.free(command)
        return self._take_spare() if self.fix == "spare" else None

    def _take_spare(self) -> tuple[Any, Any] | None:
        if not self.spare:
            return None
        self.stage.say("K", "takes the host's spare command")
        return self.spare.pop()

    def run_queue(self) -> None:
        """K: start what is queued, as far as there are commands."""
        while self.queue:
            whole = self._whole_command(Gfp.ATOMIC)
            if whole is None:
                self._say_failure()
                return
            bio, context = self.queue.pop(0)
            self.in_flight += 1
            self.failures = 0
            self.stage.say("K", "starts a write", f"{self.in_flight} in flight")
            self.stage.enter("D", self._complete(whole, bio, context))

    def worker(self) -> Plan[None]:
        """The queue is run again whenever the waiting writers try again."""
        while self.written < self.wanted:
            yield from park(Ticket("five seconds"), RETRY_S)
            self.run_queue()

    def _say_failure(self) -> None:
        if self.in_flight or self.runtime.clock_s - self._failed_at_s < RETRY_S / 2:
            return  # said already
        self._failed_at_s = self.runtime.clock_s
        self.failures += 1
        idle = ", a spare command lies idle" if self.spare else ""
        self.stage.say(
            "K",
            f"at {self.runtime.clock_s:.0f} s: no sense buffer",
            f"{len(self.queue)} writes wait, none is in flight{idle}",
        )

    def _complete(self, whole: tuple[Any, Any], bio: Any, context: Any) -> Plan[None]:
        yield from park(Ticket("the disk"), 0.01)
        self.in_flight -= 1
        self.written += 1
        self.stage.say("D", "completes a write", f"{self.written} of {self.wanted}")
        self._put_command(whole)
        if context is not None and self.contexts is not None:
            self.contexts.free(context)
        if self.written == 1:
            for name in ("T5", "T6"):  # they come along just now, and what was freed is theirs
                self.stage.enter(name, self.writer(name, WRITES))
            yield from self.stage.turn()
        self.pool.free(bio)
        self.run_queue()

    def _put_command(self, whole: tuple[Any, Any]) -> None:
        if not self.spare:
            self.spare.append(whole)
            return
        command, sense = whole
        self.commands.free(command)
        if sense is not None:
            (self.sense_pool or self.senses).free(sense)

    # -- the writers: they may wait, and have no right to the reserve ----------------------------------

    def writer(self, name: str, count: int, *, kick: bool = True) -> Plan[None]:
        """A reclaimer that wants to start `count` writes, and waits for none of them to end."""
        self.wanted += count
        for number in range(1, count + 1):
            context = None
            while self.contexts is not None and context is None:
                context = self.contexts.alloc(Gfp.NOIO)
                if context is None:
                    self.run_queue()
                    yield from park(Ticket("a context"), RETRY_S)
            if self.contexts is not None:
                self.stage.say(name, f"context #{number}", "from the slab")
                yield from self.stage.turn()
            light = self.bios.stats().free_count
            before = self.pool.stats().reserve_uses
            if not self.pool.stats().reserve_count and not light:
                self.stage.say(name, f"bio #{number} from P", "M is full, P is empty: it waits")
            taken = yield from self.pool.alloc_plan(Gfp.NOIO, 0, name, 1, None)
            assert taken is not None
            reserve = self.pool.stats().reserve_uses > before
            self.stage.say(
                name, f"bio #{number}", "from P's reserve" if reserve else "from the slab"
            )
            self.queue.append((taken[0], context))
        if kick:
            self.run_queue()


def _player(act: str) -> Callable[[Stage, str | None], str]:
    def play(stage: Stage, fix: str | None) -> str:
        machine = _Machine(stage, fix, act)
        stage.simulator.run(machine.writer("T1", 1, kick=False))
        machine.fill()
        machine.run_queue()
        for name in ("T2", "T3", "T4"):
            stage.enter(name, machine.writer(name, WRITES))
        stage.enter("K", machine.worker())
        ended = stage.play(lambda: machine.failures == ROUNDS)
        if ended != DONE:
            return LIVELOCK
        assert machine.written == machine.wanted and not machine.in_flight
        return DONE

    return play


def _fixes(**ends: str) -> tuple[Fix, ...]:
    titles = {
        "spare": "take the host's spare command whichever part is missing",
        "constructor": "give the sense cache a constructor that does nothing: it is not merged",
        "one-object": "make command and sense buffer one object",
        "no-merge-bio": "do not merge the bio cache",
        "no-merge-sense": "do not merge the sense cache",
        "no-merge-both": "merge neither",
        "watermark": "pages remember the watermark they came from",
        "pfmemalloc": "tag pages that were taken regardless of all watermarks",
        "own-reserve": "a mempool for sense buffers",
    }
    return tuple(
        Fix(name, title, ends.get(name.replace("-", "_"), DONE)) for name, title in titles.items()
    )


E000 = Incident(
    "E-000",
    "bios take the emergency memory that their own sense buffers need",
    LIVELOCK,
    _fixes(pfmemalloc=LIVELOCK),
    _player("E-000"),
)
E000B = Incident(
    "E-000b",
    "a third cache is merged, and takes what the bios leave",
    LIVELOCK,
    _fixes(pfmemalloc=LIVELOCK, no_merge_bio=LIVELOCK),
    _player("E-000b"),
)
E000C = Incident(
    "E-000c",
    "somebody else has spent the emergency memory already",
    LIVELOCK,
    _fixes(
        pfmemalloc=LIVELOCK,
        no_merge_bio=LIVELOCK,
        no_merge_sense=LIVELOCK,
        no_merge_both=LIVELOCK,
        constructor=LIVELOCK,
        watermark=LIVELOCK,
    ),
    _player("E-000c"),
)
E000D = Incident(
    "E-000d",
    "nothing is merged, and one cache serves those who may have the reserve and those who may not",
    LIVELOCK,
    _fixes(
        pfmemalloc=LIVELOCK,
        no_merge_bio=LIVELOCK,
        no_merge_sense=LIVELOCK,
        no_merge_both=LIVELOCK,
        constructor=LIVELOCK,
    ),
    _player("E-000d"),
)
