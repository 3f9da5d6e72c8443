"""The argument of 2001, run: python -m bench.argument

In December 2001 four ways were proposed to let write-out get the page that it needs to write pages out,
when all memory is dirty and the rest is pinned: an allocator that tries again, I. Molnar's mempool,
B. LaHaise's reservations, and S. von Krawczynski's page classes with a floor of clean pages. Here they
run one workload on one zone (headway's own, in virtual time): writers that go on writing, two
write-outs that need a page each, a device that takes 10 ms for a page. The second time others take whatever
page they can get, and what was pinned comes free little by little.

Then the threshold is swept at which a mempool prefers its reserve to a heavy try ("half full"). What the
figures say to the thread: docs/concepts/argument-of-2001.md.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.argument_designs import (
    DESIGNS,
    PINNED,
    TICK_S,
    Design,
    Pool,
    Reservations,
    World,
    pause,
)
from headway.core.mm.ladder import HEAVY, LIGHT, Step
from headway.core.mm.pages import PageRun
from headway.core.mm.pools import BackedMempool
from headway.core.plan import Plan
from headway.runtimes.simulator import Option, Simulator
from headway.runtimes.threads import THREADS

WRITES = 300  # pages that the writers make dirty in all
WRITERS, WRITE_OUTS, OTHERS = 3, 2, 4
DEVICE_S, HOLD_S = 0.010, 0.025
RELEASE_S = 0.2  # with others: how often a pinned page comes free
HORIZON_S = 6.0  # the work takes 1.5 s of the device
PAGE_KIB = 4


# -- the workload -------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How one run ended. Units: virtual seconds, pages."""

    name: str
    written: int
    seconds: float
    waits: dict[str, float] = field(default_factory=dict)
    idle: int = 0  # before there is any pressure

    @property
    def verdict(self) -> str:
        return "progress" if self.written == WRITES else f"stall at {self.written}"


def play(
    design: Design, *, others: int = 0, write_outs: int = WRITE_OUTS, needs: int = 1
) -> Outcome:
    """All memory made dirty or pinned, then everybody goes on. A write-out `needs` so many pages at once."""
    simulator = Simulator(_round_robin(), fine=False)
    world = World(simulator, emergency=design.emergency)
    world.most_cached = design.most_cached
    pinned = [world.share.take(0) for _ in range(PINNED)]
    assert None not in pinned
    design.set_up(world)
    world.fill()
    world.calm_idle = design.idle()
    while world.made_dirty < WRITES and design.soil():
        world.made_dirty += 1
    for number in range(write_outs):
        simulator.start(_write_out(design, world, needs), f"write-out-{number}")
    for number in range(WRITERS):
        simulator.start(_write(design, world, f"writer-{number}"), f"writer-{number}")
    for number in range(others):
        simulator.start(_other(design, world), f"other-{number}")
    if others:
        simulator.start(_unpin(world, pinned), "unpinning")
    simulator.go(1_000_000)
    for task in simulator.tasks:
        if task.failure is not None:
            raise task.failure
    seconds = simulator.now()
    simulator.close()
    return Outcome(design.name, world.written, seconds, dict(world.waits), world.calm_idle)


def _round_robin() -> Callable[[Sequence[Option]], int]:
    last = 0

    def choose(options: Sequence[Option]) -> int:
        nonlocal last
        index = next((i for i, option in enumerate(options) if option.task > last), 0)
        last = options[index].task
        return index

    return choose


def _over(world: World) -> bool:
    return world.written >= WRITES or world.runtime.now() >= HORIZON_S


def _waited(world: World, who: str, since_s: float) -> None:
    world.waits[who] = max(world.waits[who], world.runtime.now() - since_s)


def _write_out(design: Design, world: World, needs: int) -> Plan[None]:
    """Make dirty pages clean; each needs a page, or more, while it is on its way."""
    while not _over(world):
        if world.cache.dirty == 0:
            yield from pause(TICK_S)
            continue
        since_s = world.runtime.now()
        pages: list[Any] = []
        while len(pages) < needs:
            page = yield from _until_over(design.page("write-out"), world)
            if page is None:
                _waited(world, "write-out", since_s)
                return
            pages.append(page)
        _waited(world, "write-out", since_s)
        yield from pause(DEVICE_S)
        if world.cache.dirty:
            world.cache.wash(1)
            world.written += 1
        for page in pages:
            design.put(page)


def _until_over(asking: Plan[Any], world: World) -> Plan[Any]:
    """Carry a plan out, but not for longer than we watch."""
    answer = None
    while True:
        try:
            request = asking.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = yield request
        if world.runtime.now() >= HORIZON_S:
            asking.close()
            return None


def _write(design: Design, world: World, who: str) -> Plan[None]:
    """Make clean pages dirty, as fast as allowed, in turn."""
    while world.made_dirty < WRITES and not _over(world):
        since_s = world.runtime.now()
        world.line.append(who)
        done = False
        while not (done or _over(world)) and world.made_dirty < WRITES:
            done = world.line[0] == who and design.soil()
            if not done:
                yield from pause(TICK_S)
        world.line.remove(who)
        _waited(world, "writer", since_s)
        world.made_dirty += done


def _other(design: Design, world: World) -> Plan[None]:
    """Take any page, hold it for a while, again and again."""
    while not _over(world):
        run_ = design.others_take()
        if run_ is None:
            yield from pause(TICK_S)
            continue
        yield from pause(HOLD_S)
        world.free(run_)


def _unpin(world: World, pinned: Sequence[PageRun | None]) -> Plan[None]:
    """Programs end: what they had pinned comes free, and is anybody's."""
    for run_ in pinned:
        yield from pause(RELEASE_S)
        if _over(world):
            return
        if run_ is not None:
            world.share.free(run_)


# -- the half-full threshold ---------------------------------------------------------------------------


@dataclass(frozen=True)
class AtLeast:
    """A step of the ladder: the reserve, if it holds at least so many."""

    count: int

    def threshold(self, minimum: int) -> int:
        return self.count


class Swept(Pool):
    """A mempool that prefers its reserve from `count` elements on; `loops`: its heavy try may not return."""

    def __init__(self, minimum: int, count: int, *, loops: bool) -> None:
        self.minimum, self.count, self.loops = minimum, count, loops

    def set_up(self, world: World) -> None:
        self.world = world
        self.pool = BackedMempool(
            self, min_count=self.minimum, runtime=world.runtime, name="write-out"
        )
        steps: tuple[Any, ...] = (LIGHT, AtLeast(self.count), HEAVY, Step.RESERVE)
        self.pool.first = self.pool.again = steps

    def page(self, who: str) -> Plan[Any]:
        if not self.loops:
            return (yield from super().page(who))
        found: Any = self.world.take()
        if found is None and self.pool.reserve_count >= self.count:
            found = self.pool.alloc_preallocated()
        while found is None:  # the heavy try of 2001: too small a request to fail
            yield from pause(TICK_S)
            found = self.world.take()
        return found


def sweep(*, loops: bool, whole: bool) -> Iterator[tuple[int, int, Outcome]]:
    """Every threshold, from 1 up to a full reserve, for reserves of 1 to 6 elements.

    Two write-outs need one element each; or (`whole`) one write-out needs all that the reserve has.
    """
    for minimum in range(1, 7):
        for count in range(1, minimum + 1):
            swept = Swept(minimum, count, loops=loops)
            ended = play(swept, write_outs=1, needs=minimum) if whole else play(swept)
            yield minimum, count, ended


# -- the table ----------------------------------------------------------------------------------------


def costs() -> dict[str, float]:
    """What a pair costs where nothing is short, on this machine, as ratios to the first design's."""
    pairs = []
    for design in DESIGNS:
        one = design()
        one.set_up(World(THREADS))
        pairs.append((design.name, one.pair()))
        if isinstance(one, Reservations):
            pairs.append(("a draw on a promise", one.draw()))
    best = {name: float("inf") for name, _ in pairs}
    for _ in range(25):  # in turn, so that a noisy moment does not fall on one alone
        for name, pair in pairs:
            best[name] = min(best[name], timeit.timeit(pair, number=2000))
    return {name: best[name] / best[DESIGNS[0].name] for name in best}


def row(quiet: Outcome, busy: Outcome) -> str:
    """One line of the table, as the docs have it."""

    def waits(outcome: Outcome) -> str:
        if outcome.written < WRITES:
            return "for ever"
        return " / ".join(f"{outcome.waits[who] * 1000:.0f} ms" for who in ("write-out", "writer"))

    return (
        f"| {quiet.name} | {quiet.verdict} | {busy.verdict} | {waits(quiet)} | {waits(busy)} | "
        f"{quiet.idle * PAGE_KIB} KiB |"
    )


SWEEPS = [(loops, whole) for whole in (False, True) for loops in (False, True)]


def named(loops: bool, whole: bool) -> str:
    needs = (
        "one write-out needs the whole reserve" if whole else "two write-outs need one element each"
    )
    return f"{needs}, the heavy try {'may not return' if loops else 'returns'}"


def said_of_sweep(found: Sequence[tuple[int, int, Outcome]]) -> str:
    stalls = [(minimum, count) for minimum, count, outcome in found if outcome.written < WRITES]
    if not stalls:
        return f"progress at all {len(found)} thresholds"
    return f"stalls at {len(stalls)} of {len(found)} thresholds: " + ", ".join(
        f"{count} of {minimum}" for minimum, count in stalls
    )


def main() -> None:
    print("| design | quiet | others allocate | longest waits, quiet | with others | idle |")
    print("|---|---|---|---|---|---|")
    for design in DESIGNS:
        print(row(play(design()), play(design(), others=OTHERS)))
    print("fast path, a pair: " + ", ".join(f"{n} {ratio:.2f}" for n, ratio in costs().items()))
    for loops, whole in SWEEPS:
        print(f"{named(loops, whole)}: {said_of_sweep(list(sweep(loops=loops, whole=whole)))}")


if __name__ == "__main__":
    main()
