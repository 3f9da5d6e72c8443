"""One simulated machine from one number: a stack of five layers, memory that runs short, users, and bad luck.

Every seed chooses the layers (`layers`) and their numbers, the zone they and their users share, who uses
them (`users`, `stores`, `image`), what fails how often, who is cancelled in the middle of a request, and when
the power goes. `World.run` lets it run and raises AssertionError for what must not be: a hang, a leak, a
block that holds what it cannot, or lost what was flushed. The same seed is the same run.
`python -m tests.simulation --seed N` (or `./dev fuzz --seed N`) repeats one.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from headway.core.block.bio import FLUSH, READ, ZERO, Bio, Op
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer, each
from headway.core.block.layers import LAYERS
from headway.core.block.layers.delay import Delay
from headway.core.block.layers.mirror import Mirror
from headway.core.block.legs import ACTIVE, DROPPED
from headway.core.block.line import carry_out
from headway.core.block.stack import Stack, room
from headway.core.block.workqueue import Workqueue
from headway.core.mm.budget import Budget
from headway.core.mm.faults import FailAlloc
from headway.core.mm.kswapd import Kswapd
from headway.core.mm.meeting import Meeting
from headway.core.mm.pools import BackedMempool
from headway.core.mm.slowpath import SlowPath
from headway.core.mm.watermarks import Watermarks
from headway.core.mm.zone import Zone
from headway.core.plan import Offload, Park, Plan, Request, Spawn
from headway.errors import BlockError, NoMemory
from headway.runtimes.simulator import Failure, Kind, Option, Simulator, Task
from tests.core.block.rig import Keys
from tests.simulation import image, stores, users
from tests.simulation.blocks import Block
from tests.simulation.disks import BLOCK, Disk, Frames
from tests.simulation.layers import begun, may_stop, opened_again, some_layers
from tests.simulation.pagecache import PageCache

DISK = 64 * BLOCK
HEADERS = 512 * BLOCK
BLOCKS = 32
FRAME = 4 * BLOCK
_HELPERS = re.compile(r"^kswapd| [2-9]$")  # the first worker of a queue is no help, but needed
STEPS = 400_000  # a run that takes so many does not end


class Setting:
    """What a seed decides before anything runs."""

    def __init__(self, chance: random.Random) -> None:
        self.specs = some_layers(chance, 5)
        self.swap_specs = some_layers(chance, chance.choice([0, 0, 1, 2]))
        self.image_specs = image.some_specs(chance)
        self.fine = chance.random() < 0.15
        self.io_fails = chance.choice([0.0, 0.0, 0.01, 0.1])
        self.slow_s = [chance.choice([0.0, 0.0, 0.002, 1.0]) for _ in range(8)]  # of each disk
        # how often an allocation beyond a reserve fails; 1: always, with every reserve at its minimum
        self.starved = chance.choice([0.0, 0.3, 1.0])
        self.refused = chance.choice([0.0, 0.5, 1.0])  # of the tasks that only help
        self.pages = chance.choice([20, 28, 48])
        self.frames = chance.choice([1, 2])
        self.users = [chance.choice(users.KINDS) for _ in range(chance.randrange(2, 6))]
        self.hogs = chance.randrange(3)
        self.spillers = chance.choice([0, 1, 3])
        self.readers = chance.choice([0, 0, 2])
        self.cancels = chance.choice([0, 0, 4, 40])  # of requests under way, at most
        self.power_cut = chance.random() < 0.6
        self.steps = chance.randrange(100, 6000)

    @property
    def io_may_fail(self) -> bool:
        return self.io_fails > 0 or any("flaky" in spec for spec in self.specs)

    def __repr__(self) -> str:
        words = [f"layers {' + '.join(self.specs)}", f"users {', '.join(self.users)}"]
        words += [f"{self.hogs} hogs", f"{self.spillers} spillers on {self.swap_specs}"]
        words += [f"{self.readers} readers of {self.image_specs}", f"{self.cancels} cancellations"]
        words += [f"{self.pages} pages", f"{self.frames} frames", f"I/O fails {self.io_fails}"]
        words += [f"starved {self.starved}", f"threads refused {self.refused}"]
        words += [f"slow disks {self.slow_s}", "fine steps" if self.fine else "coarse steps"]
        return ", ".join([*words, "a power cut" if self.power_cut else "to the end"])


class Salted(Keys):
    """Key files without files, and salts that are the same each time."""

    def random(self, length: int) -> bytes:
        return hashlib.shake_256(b"salt").digest(length)


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
        self.cancels, self.cancelled = self.setting.cancels, 0
        self.blocks = [Block() for _ in range(BLOCKS)]
        self.specs, self.swap_specs = begun(self.setting.specs), begun(self.setting.swap_specs)
        needed = room(self.specs, BLOCKS * BLOCK, layers), room(self.swap_specs, DISK)
        self.disk_size = max(DISK, *needed) + 4 * BLOCK
        self.image = image.Image(self)
        pages = self.setting.pages
        while True:  # the reserves of some layers are larger than others'
            state = chance.getstate()
            try:
                self.make(pages)
                break
            except NoMemory:
                chance.setstate(state)
                pages += 4
        self.simulator.run(self.begin())
        for disk in self.disks:
            disk.fails = self.setting.io_fails

    def choose(self, options: Sequence[Option]) -> int:
        return self.chance.randrange(len(options))

    # -- what it is made of ----------------------------------------------------------------------------

    def make(self, pages: int) -> None:
        chance, setting = self.chance, self.setting
        self.simulator = Machine(self.choose, fine=setting.fine)
        self.simulator.refuses = lambda: chance.random() < setting.refused
        self.disks: list[Disk] = []
        self.cancellable: list[Task] = []
        self.make_memory(pages)
        self.stack = self.make_stack(self.specs, layers=self.layers, steady_bytes=2 * BLOCK)
        self.main_disks = len(self.disks)
        self.image.open()
        self.cache = PageCache(self.stack, self.path)
        self.buffered = [
            stores.Buffered(self, f"user {number}")
            for number, kind in enumerate(setting.users)
            if kind == "buffered"
        ]
        self.spilled = stores.Spilled(self)

    def make_memory(self, pages: int) -> None:
        setting, runtime = self.setting, self.simulator
        low = pages // 8
        self.zone = Zone(pages, Watermarks(low, low + 2, low + 4), runtime=runtime, name="machine")
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
        self.budget = Budget(8, runtime=runtime, meeting=Meeting(runtime), name="blocks in flight")
        self.starve(self.frames)

    def backend(self, size: int, name: str) -> Frames:
        self.backends.append(Frames(self.zone, size, name))
        return self.backends[-1]

    def starve(self, pool: Any) -> None:
        share = self.setting.starved
        if share:
            pool.inject(FailAlloc(probability=share, chance=self.chance.random))

    def make_stack(
        self, specs: Sequence[str], opener: Any = None, layers: Any = LAYERS, steady_bytes: int = 0
    ) -> Stack:
        opener = opener or self.disk
        stack = Stack(
            self.simulator, opener("bottom"), specs, memory=self.backend, opener=opener, layers=layers,
            starve=self.setting.starved == 1.0, crypto=Salted(), steady_bytes=steady_bytes,
        )  # fmt: skip
        if self.setting.starved == 0.3:
            for site in stack.sites:
                for pool in [*site.pools, *(bios.pool for bios in site.sets)]:
                    self.starve(pool)
        return stack

    def disk(self, *who: Any) -> Layer:
        """A disk with workers of its own; perhaps a slow one, unless its header is read before the start."""
        headers = who and who[0] == "header disk"
        bottom = self.attach(Disk(HEADERS if headers else self.disk_size, self.chance, 0.0))
        return bottom if headers or (who and who[0] == "prompt disk") else self.slow(bottom)

    def slow(self, bottom: Layer) -> Layer:
        seconds = self.setting.slow_s[len(self.disks) % 8]
        return Delay(bottom, self.simulator, *[seconds] * 3) if seconds else bottom

    def attach(self, disk: Disk) -> Layer:
        number = len(self.disks)
        self.disks.append(disk)
        workers = Workqueue(self.simulator, f"disk {number}", limit=2)
        self.simulator.start(workers.start(), f"start of disk {number}")
        return Bottom(disk, workers=workers)

    def begin(self) -> Plan[None]:
        """Start it all, while nothing fails, and let every block hold zeros."""
        for stack in self.stacks():
            yield from stack.start()
        for store in self.buffered:
            yield from store.cache.start()
        for number in range(BLOCKS):
            zero = partial(self.worked, ZERO, number * BLOCK, BLOCK)
            assert (yield from self.again(zero)), f"block {number} cannot be cleared"
        assert (yield from self.again(self.flushed))

    def stacks(self) -> list[Stack]:
        return [self.stack, self.image.stack, self.spilled.stack]

    def mirrors(self) -> list[Mirror]:
        return [layer for layer in each(self.stack.top) if isinstance(layer, Mirror)]

    # -- its run ---------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run it, and judge; what it was, in a line. Raises: AssertionError, or what anything raised."""
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

    def start_users(self) -> None:
        setting, share = self.setting, BLOCKS // len(self.setting.users)
        stores_of = iter(self.buffered)
        for number, kind in enumerate(setting.users):
            who, blocks = f"user {number}", range(number * share, (number + 1) * share)
            if kind == "buffered":
                self.client(next(stores_of).use(blocks), who)
            else:
                plan = {
                    "direct": users.direct,
                    "restless": users.restless,
                    "cached": users.cached,
                    "copier": image.copier,
                }
                self.client(plan[kind](self, who, blocks), who)
        for number in range(setting.hogs):
            self.client(users.hog(self, f"hog {number}"), f"user hog {number}")
        for number in range(setting.spillers):
            self.client(self.spilled.use(number), f"user spiller {number}")
        for number in range(setting.readers):
            self.client(image.reader(self), f"user reader {number}")
        self.simulator.start(users.repair(self), "user repair")

    def client(self, plan: Plan[None], name: str) -> None:
        """A user who may be cancelled in the middle of a request."""
        self.cancellable.append(self.simulator.start(plan, name))

    def go(self, steps: int) -> None:
        for _ in range(steps):
            if self.cancels and self.chance.random() < 0.02:
                self.cancel_one()
            options = self.simulator.options()
            if not options:
                break
            self.simulator.take(options[self.choose(options)])
        else:
            assert steps < STEPS, f"it has not ended after {STEPS} steps"
        for task in self.simulator.tasks:
            if task.failure is not None:
                raise task.failure

    def cancel_one(self) -> None:
        waiting = [
            t for t in self.cancellable if not t.done and isinstance(t.pending, Park | Offload)
        ]
        if waiting:
            self.cancels -= 1
            self.simulator.cancels = 1
            self.simulator.take(Option(self.chance.choice(waiting).number, Kind.CANCEL))

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
        yield from self.write_all()
        yield from self.cache.close()
        self.kswapd.stop()
        for store in self.buffered:
            yield from store.close()
        yield from self.spilled.close()
        yield from self.image.read_once_more()
        yield from self.image.stack.close()
        for stack in (self.stack, self.spilled.stack):
            try:
                yield from stack.close()
            except (
                BlockError
            ):  # what a write cache holds back could not be written; all else is closed
                assert self.setting.io_may_fail and "writecache" in repr(stack.stats())
        self.frames.close()
        self.budget.close()

    def write_all(self) -> Plan[None]:
        """All that is dirty is written and durable, unless a layer has stopped for an error of the device."""
        stops = may_stop(self.specs) and self.setting.io_may_fail
        for number, block in enumerate(self.blocks):
            if not (yield from self.again(partial(self.cache.write_out, number))):
                assert stops, f"block {number} cannot be written: {block.written}"
                return
        for store in self.buffered:
            if not (yield from self.again(store.sync)):
                assert stops, f"{store.cache!r} cannot be written"
                return
        covered = [(block, block.acked) for block in self.blocks]
        if (yield from self.again(self.flushed)):
            for block, version in covered:
                block.durable = max(version, block.durable)
        else:
            assert stops

    def again(self, attempt: Any) -> Plan[bool]:
        for _ in range(60):  # a flaky layer fails for a while
            if (yield from attempt()):
                return True
        return False

    def flushed(self) -> Plan[bool]:
        return self.worked(FLUSH, 0, 0)

    def worked(self, op: Op, offset: int, length: int) -> Plan[bool]:
        bio = Bio(op, offset, length=length)
        yield from carry_out(self.stack.top, bio)
        return bio.error is None

    # -- after the power cut -----------------------------------------------------------------------------

    def come_back(self, good: list[list[bool]]) -> None:
        """The same stack on what the disks kept, without failures: every block has what it must."""
        simulator = Simulator(lambda options: 0, fine=False)
        disks = iter(self.disks[: self.main_disks])

        def bottom(*_: Any) -> Layer:
            return Bottom(next(disks).again())

        stack = Stack(simulator, bottom(), opened_again(self.specs), opener=bottom, crypto=Salted())
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
