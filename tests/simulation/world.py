"""One simulated machine from one number: a stack of five layers, memory that runs short, users, and bad luck.

Every seed chooses the layers and their numbers, the zone they and their users share, who uses them, what
fails how often, and when the power goes. `World.run` lets it run and raises AssertionError for what must not
be: a hang, a leak, a block that holds what it cannot, or lost what was flushed. The same seed is the same
run. `python -m tests.simulation --seed N` (or `./dev fuzz --seed N`) repeats one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from headway.core.block.bio import FLUSH, READ, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer, each
from headway.core.block.layers import LAYERS
from headway.core.block.layers.delay import Delay
from headway.core.block.layers.mirror import Mirror
from headway.core.block.layers.thin import Thin
from headway.core.block.layers.writecache import WriteCache
from headway.core.block.legs import ACTIVE, DROPPED
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack
from headway.core.block.workqueue import Workqueue
from headway.core.mm.budget import Budget
from headway.core.mm.faults import FailAlloc
from headway.core.mm.kswapd import Kswapd
from headway.core.mm.meeting import Meeting
from headway.core.mm.pools import BackedMempool
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.core.plan import Plan, Request, Spawn
from headway.runtimes.simulator import Failure, Option, Simulator, Task
from tests.simulation import users
from tests.simulation.blocks import Block
from tests.simulation.disks import BLOCK, Disk, Frames
from tests.simulation.pagecache import PageCache

DISK = 128 * BLOCK
BLOCKS = 32
FRAME = 4 * BLOCK
_HELPERS = re.compile(r"^kswapd| [2-9]$")  # the first worker of a queue is no help, but needed
READ_AT_REST = ("thin", "writecache")  # of the lowest disk, of the legs
STEPS = 400_000  # a run that takes so many does not end


class Setting:
    """What a seed decides before anything runs."""

    def __init__(self, chance: random.Random) -> None:
        self.specs = [some_layer(chance) for _ in range(5)]
        if (
            chance.random() < 0.2
        ):  # its header is read before anything is started, so it is the lowest
            self.specs[0] = f"thin,create=yes,block={BLOCK},extent={BLOCK * chance.choice([1, 4])}"
        self.fine = chance.random() < 0.15
        self.io_fails = chance.choice([0.0, 0.0, 0.01, 0.1])
        self.slow_s = [chance.choice([0.0, 0.0, 0.002, 1.0]) for _ in range(8)]  # of each disk
        # how often an allocation beyond a reserve fails; 1: always, with every reserve at its minimum
        self.starved = chance.choice([0.0, 0.3, 1.0])
        self.refused = chance.choice([0.0, 0.5, 1.0])  # of the tasks that only help
        self.pages = chance.choice([20, 28, 48])
        self.frames = chance.choice([1, 2])
        self.users = chance.randrange(2, 6)
        self.hogs = chance.randrange(3)
        self.power_cut = chance.random() < 0.6
        self.steps = chance.randrange(100, 4000)

    def __repr__(self) -> str:
        words = [f"layers {' + '.join(self.specs)}", f"{self.users} users, {self.hogs} hogs"]
        words += [f"{self.pages} pages", f"{self.frames} frames", f"I/O fails {self.io_fails}"]
        words += [f"starved {self.starved}", f"threads refused {self.refused}"]
        words += [f"slow disks {self.slow_s}"]
        return ", ".join([*words, "a power cut" if self.power_cut else "to the end"])


def some_layer(chance: random.Random) -> str:
    pick = chance.choice
    return pick(
        [
            f"linear,offset={BLOCK * pick([0, 1, 3])}",
            f"stripe,with=leg,chunk={BLOCK * pick([1, 2, 3, 8])}",
            f"mirror,leg=leg,window={BLOCK * pick([2, 8])},sync={pick(['no', 'no', 'yes'])}",
            f"mirror,leg=leg,leg=leg,window={BLOCK * 8}",
            f"bounce,buffer={BLOCK * pick([1, 2, 8])},reserve={pick([1, 2])}",
            f"delay,seconds={pick([0, 0.001, 0.5])}",
            f"writecache,cache=leg,block={BLOCK},section={pick([4, 9])},buffer={BLOCK * pick([1, 4])}",
            f"flaky,up={pick([7, 40])},down={pick([1, 2])},ops={pick(['reads', 'writes', 'all'])}",
        ]
    )


def tame(spec: str) -> str:
    """The same layout, without the mischief."""
    name, *options = spec.split(",")
    if name in ("flaky", "delay"):
        return "linear"
    return ",".join(
        [name, *(option for option in options if not option.startswith(("sync=", "create=")))]
    )


class Machine(Simulator):  # type: ignore[misc]
    """Where a task that would help others cannot always be started: a thread needs memory too."""

    refused = 0

    def _carry_out(self, task: Task, request: Request) -> Any:
        if isinstance(request, Spawn) and _HELPERS.search(request.name) and self.refuses():
            task.pending = task.deadline = None
            request.plan.close()
            self.refused += 1
            return Failure(error=RuntimeError("no thread can be had"))
        return super()._carry_out(task, request)


class World:
    """A machine, and what is known about its blocks."""

    def __init__(self, seed: int, setting: Setting | None = None, layers: Any = LAYERS) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.setting = setting or Setting(chance)
        self.layers = layers
        self.simulator = Machine(self.choose, fine=self.setting.fine)
        self.simulator.refuses = lambda: chance.random() < self.setting.refused
        self.disks: list[Disk] = []
        self.blocks = [Block() for _ in range(BLOCKS)]
        self.make_memory()
        self.stack = self.make_stack()
        self.cache = PageCache(self.stack, self.path)
        self.calls = 0

    def choose(self, options: Sequence[Option]) -> int:
        return self.chance.randrange(len(options))

    # -- what it is made of ----------------------------------------------------------------------------

    def make_memory(self) -> None:
        setting, runtime = self.setting, self.simulator
        low = setting.pages // 8
        self.zone = Zone(
            setting.pages, Watermarks(low, low + 2, low + 4), runtime=runtime, name="machine"
        )
        self.path = SlowPath(self.zone, runtime)
        self.kswapd = Kswapd(self.zone, self.path.reclaim, runtime)
        self.path.reclaim.background = self.kswapd
        self.backends: list[Frames] = []
        self.frames: BackedMempool[memoryview] = BackedMempool(
            self.backend(FRAME, "frames"),
            min_count=setting.frames,
            runtime=runtime,
            name="frames",
        )
        self.backends[0].on_room(self.frames.kick)
        self.budget = Budget(8, runtime=runtime, meeting=Meeting(runtime), name="blocks in flight")
        self.starve(self.frames)

    def backend(self, size: int, name: str) -> Frames:
        self.backends.append(Frames(self.zone, size, name))
        return self.backends[-1]

    def starve(self, pool: Any) -> None:
        share = self.setting.starved
        if share:
            pool.inject(FailAlloc(probability=share, chance=self.chance.random))

    def make_stack(self) -> Stack:
        stack = Stack(
            self.simulator,
            self.disk(),
            self.setting.specs,
            memory=self.backend,
            opener=self.disk,
            layers=self.layers,
            starve=self.setting.starved == 1.0,
        )
        if self.setting.starved == 0.3:
            for site in stack.sites:
                for pool in [*site.pools, *(bios.pool for bios in site.sets)]:
                    self.starve(pool)
        return stack

    def disk(self, *who: Any) -> Layer:
        """A disk with workers of its own; perhaps a slow one."""
        number = len(self.disks)
        disk = Disk(DISK, self.chance, 0.0)  # it fails once all is started
        self.disks.append(disk)
        workers = Workqueue(self.simulator, f"disk {number}", limit=2)
        self.simulator.start(workers.start(), f"start of disk {number}")
        bottom = Bottom(disk, workers=workers)
        seconds = self.setting.slow_s[number % 8]
        if (who[1].name if who else self.setting.specs[0]).startswith(READ_AT_REST[bool(who)]):
            return bottom  # its header is read before anything is started
        return Delay(bottom, self.simulator, *[seconds] * 3) if seconds else bottom

    def promises_nothing(self) -> bool:
        """A write cache or a thin device whose commit failed does not take writes any more."""
        layers = list(each(self.stack.top))
        logs = [layer.log.error for layer in layers if isinstance(layer, WriteCache)]
        logs += [layer.places.sections.error for layer in layers if isinstance(layer, Thin)]
        return any(error is not None for error in logs)

    def mirrors(self) -> list[Mirror]:
        return [layer for layer in each(self.stack.top) if isinstance(layer, Mirror)]

    # -- its run ---------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run it, and judge; what it was, in a line. Raises: AssertionError, or what anything raised."""
        if not self.begin():
            return "it did not start"
        self.start_users()
        if self.setting.power_cut:
            self.go(self.setting.steps)
        else:
            self.go(STEPS)
            self.nobody_waits()
            self.end()
        good = [[leg.state is ACTIVE for leg in mirror.legs.all] for mirror in self.mirrors()]
        for disk in self.disks:
            disk.cut()
        self.come_back(good)
        failed = sum(disk.failed for disk in self.disks)
        return f"{failed} I/O errors, {self.cache.written} write-outs, {self.cache.evicted} evicted"

    def begin(self) -> bool:
        """Start the stack; False if a flaky layer did not let it."""
        started = self.simulator.start(self.stack.start(), "start")
        for _ in range(STEPS):
            if started.done:
                break
            options = self.simulator.options()
            self.simulator.take(options[self.choose(options)])
        for disk in self.disks:
            disk.fails = self.setting.io_fails
        if started.failure is None:
            assert started.done, f"it does not start; {self.setting}"
            return True
        assert "flaky" in repr(self.setting), started.failure
        return False

    def start_users(self) -> None:
        share = BLOCKS // self.setting.users
        for number in range(self.setting.users):
            blocks = range(number * share, (number + 1) * share)
            kind = users.direct if number % 2 else users.cached
            self.simulator.start(kind(self, f"user {number}", blocks), f"user {number}")
        for number in range(self.setting.hogs):
            self.simulator.start(users.hog(self, f"hog {number}"), f"user hog {number}")
        self.simulator.start(users.repair(self), "user repair")

    def go(self, steps: int) -> None:
        for _ in range(steps):
            options = self.simulator.options()
            if not options:
                break
            self.simulator.take(options[self.choose(options)])
        else:
            assert steps < STEPS, f"it has not ended after {STEPS} steps"
        for task in self.simulator.tasks:
            if task.failure is not None:
                raise task.failure

    def nobody_waits(self) -> None:
        stuck = [task for task in self.simulator.stuck() if task.name.startswith(("user", "start"))]
        assert not stuck, f"{stuck} wait for ever; {self.setting}"

    def end(self) -> None:
        """Everything is written, closed, and home."""
        for disk in self.disks:
            disk.fails = 0.0
        self.simulator.start(self.ending(), "user ending")
        self.go(STEPS)
        self.nobody_waits()
        kinds = ("delay", "mirror", "kswapd", "write")
        left = [task.name for task in self.simulator.stuck() if task.name.startswith(kinds)]
        assert not left, f"{left} have not ended"
        held = {frames.share.name: frames.share.held_count for frames in self.backends}
        assert not any(held.values()), f"pages did not come home: {held}"
        self.zone.check_invariants()
        assert self.zone.stats().held_pages == 0 and not self.zone._waiting

    def ending(self) -> Plan[None]:
        for number, block in enumerate(self.blocks):
            if self.promises_nothing():
                break
            for _ in range(60):  # a flaky layer fails for a while
                if (yield from self.cache.write_out(number)):
                    break
            else:
                raise AssertionError(f"block {number} cannot be written: {block.written}")
        for _ in range(60):
            flush = Bio(FLUSH)
            yield from carry_out(self.stack.top, flush)
            if flush.error is None:
                break
        if not self.promises_nothing():
            assert flush.error is None
            for block in self.blocks:
                block.durable = block.acked
        yield from self.cache.close()
        self.kswapd.stop()
        yield from self.stack.close()
        self.frames.close()
        self.budget.close()

    # -- after the power cut -----------------------------------------------------------------------------

    def come_back(self, good: list[list[bool]]) -> None:
        """The same stack on what the disks kept, without failures: every block has what it must."""
        simulator = Simulator(lambda options: 0, fine=False)
        disks = iter(self.disks)

        def bottom(*_: Any) -> Layer:
            return Bottom(next(disks).again())

        specs = [tame(spec) for spec in self.setting.specs]
        stack = Stack(simulator, bottom(), specs, opener=bottom)
        mirrors = [layer for layer in each(stack.top) if isinstance(layer, Mirror)]
        for mirror, states in zip(mirrors, good, strict=True):
            for leg, is_good in zip(mirror.legs.all, states, strict=True):
                if not is_good:  # whoever starts a mirror again leaves the dropped leg out
                    mirror.legs.become(leg, ACTIVE, DROPPED)
        simulator.run(stack.start())
        for number, block in enumerate(self.blocks):
            view = memoryview(bytearray(BLOCK))
            simulator.run(stack.request(READ, number * BLOCK, view, BLOCK))
            block.check(bytes(view), number, after_cut=True)
        simulator.run(stack.close())
