"""A device that never answers, answers too late, or twice: each request ends once, within its deadline."""

from __future__ import annotations

import random
import threading
from queue import SimpleQueue

import pytest

from headway.core.block.command import Command
from headway.core.block.host import Host
from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import FixedMempool
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError, DeviceTimeout
from headway.runtimes.threads import THREADS
from tests.core.block.hosts import Bench, Frames, Locked, Wire
from tests.core.block.rig import Rig
from tests.core.mm.pools import Shelf


def test_a_device_that_never_answers_fails_the_request_when_its_deadline_passes() -> None:
    rig = Rig()
    frames = Frames(rig, 1)
    bench = Bench(rig, timeout_s=5.0)
    [frame] = [frames.pool.alloc()]
    bench.execute("read", [frame], home=frames.pool)
    rig.run()
    [(_, ended)] = bench.ended
    assert isinstance(ended.error, DeviceTimeout) and isinstance(ended.error, TimeoutError)
    assert ended.error.timeout_s == 5.0 and rig.simulator.clock_s == 5.0 and ended.sg == ()
    stats = bench.host.stats()
    assert (stats.quarantined, stats.quarantined_bytes, stats.timeouts) == (1, 512, 1)
    assert frames.pool.outstanding == 1, "no quota: it is not replaced"
    bench.host.close()
    assert frames.pool.outstanding == 0, "closed: the device can write nowhere"
    assert bench.host.stats().quarantined == 0


def test_the_quota_bounds_what_a_hung_device_costs_others() -> None:
    rig = Rig()
    frames = Frames(rig, 3)
    bench = Bench(rig, replacements=frames.backend, quota=2)
    held = [frames.pool.alloc() for _ in range(3)]
    for frame in held:
        bench.execute("read", [frame], home=frames.pool)
    rig.run()
    assert frames.pool.outstanding == 1 and bench.host.stats().replaced == 2
    bench.answer_all()
    assert bench.host.stats().late == 3 and bench.host.stats().quarantined == 0
    assert sum(spare is frame for spare in frames.spares for frame in held) == 2


def test_an_answer_after_the_deadline_brings_the_memory_home_once() -> None:
    rig = Rig()
    frames = Frames(rig, 1)
    bench = Bench(rig)
    frame = frames.pool.alloc()
    tag = bench.execute("read", [frame], home=frames.pool, timeout_s=1.0)
    rig.run()
    assert len(bench.ended) == 1 and not bench.host.answer(tag)
    assert frames.pool.outstanding == 0 and frames.pool.alloc() is frame
    assert not bench.host.answer(tag)
    assert (bench.host.stats().late, bench.host.stats().stray) == (1, 1)
    assert len(bench.ended) == 1


def test_a_second_answer_hits_nobody() -> None:
    bench = Bench(Rig(), parts=2)
    tag = bench.execute("a")
    assert bench.host.answer(tag)
    other = bench.execute("b")
    assert not bench.host.answer(tag) and bench.names() == ["a"]
    assert bench.host.answer(other) and bench.host.stats().stray == 1


def test_memory_that_the_transport_has_let_go_of_is_given_back_with_the_error() -> None:
    rig = Rig()
    bench = Bench(rig, lets_go=True)
    memory = memoryview(bytearray(8))
    bench.execute("read", [memory], timeout_s=2.0)
    rig.run()
    assert bench.ended[0][1].sg == (memory,) and bench.host.stats().quarantined == 0


def test_a_request_that_still_waits_for_a_slot_has_a_deadline_too() -> None:
    rig = Rig()
    bench = Bench(rig)
    for shelf in bench.shelves:
        shelf.shut()
    bench.execute("held", timeout_s=None)
    bench.execute("waits", [memoryview(bytearray(8))], timeout_s=3.0)
    rig.run()
    assert bench.names() == ["waits"] and len(bench.ended[0][1].sg) == 1
    bench.answer_all()
    assert bench.names() == ["waits", "held"]


def test_deadlines_of_different_lengths_pass_in_their_own_order() -> None:
    rig = Rig()
    bench = Bench(rig, timeout_s=9.0)

    def later() -> Plan[None]:
        yield from park(Ticket("never"), 1.0)
        bench.execute("short", timeout_s=2.0)

    bench.execute("device's own")
    bench.execute("middle", timeout_s=4.0)
    bench.execute("off", timeout_s=None)
    rig.run(later())
    assert bench.names() == ["short", "middle", "device's own"]
    assert rig.simulator.clock_s == 9.0


@pytest.mark.parametrize("seed", range(60))
def test_every_request_ends_once_and_everything_comes_home(seed: int) -> None:
    """A device that answers, fails, answers late, twice or never, and an allocator that may fail."""
    rig = Rig(seed)
    chance = random.Random(seed)
    frames = Frames(rig, 3)
    bench = Bench(rig, replacements=frames.backend, quota=chance.randrange(3), timeout_s=2.0)
    for shelf in bench.shelves:
        shelf.room = chance.choice([1, 2, None])

    def device() -> Plan[None]:
        for _ in range(60):
            yield from park(Ticket("device"), chance.random())
            if bench.wire.out:
                command = bench.wire.out.pop(chance.randrange(len(bench.wire.out)))
                kind = chance.randrange(5)
                for _ in range(2 if kind == 0 else 0 if kind == 1 else 1):
                    bench.host.answer(command.tag, BlockError(5, "bad") if kind == 2 else None)

    def user(number: int) -> Plan[None]:
        for turn in range(4):
            taken = yield from frames.pool.alloc_plan(*ask, 1, 30.0)
            cmd = f"{number}.{turn}"
            completion = yield from bench.host.perform(cmd, taken, home=frames.pool)
            bench.ended.append((cmd, completion))
            for view in completion.sg:
                frames.pool.free(view)

    ask = (Gfp.NOIO, 0, "user")
    users = [user(number) for number in range(2)]
    for number, plan in enumerate(users):
        rig.simulator.start(plan, f"user {number}")
    rig.simulator.start(device(), "device")
    rig.simulator.go()
    bench.host.close()
    rig.simulator.go()
    assert frames.pool.outstanding == 0 and frames.pool.reserve_count == 3
    assert [shelf.out for shelf in bench.shelves] == [0, 0, 0]
    assert len(bench.ended) == len(set(bench.names()))
    for task in rig.simulator.tasks:
        assert task.done, task
        if task.failure is not None:
            assert isinstance(task.failure, TimeoutError), (
                task.failure
            )  # the pool ran dry: no quota


def test_on_threads_answers_and_deadlines_race_and_each_request_ends_once() -> None:
    """Users, devices and the timekeeper on threads of their own; deadlines so short that many pass."""
    queue: SimpleQueue[int | None] = SimpleQueue()

    class Race(Wire):
        def start(self, command: Command) -> None:
            queue.put(command.tag)

    pool: FixedMempool[memoryview] = FixedMempool(
        [memoryview(bytearray(8)) for _ in range(4)], runtime=THREADS, name="frames"
    )
    shelves = [Shelf(2), Shelf(3)]
    host = Host(THREADS, Race(), parts=[Locked(shelf) for shelf in shelves], timeout_s=0.002)
    ended: list[int] = []

    def device(seed: int) -> None:
        chance = random.Random(seed)
        while (tag := queue.get()) is not None:
            if chance.random() < 0.3:
                queue.put(tag)  # later: behind the others
                continue
            for _ in range(chance.choice([1, 1, 2])):
                host.answer(tag)

    def user(number: int) -> None:
        for turn in range(150):
            frame = pool.alloc()
            completion = THREADS.run(host.perform((number, turn), [frame], home=pool))
            ended.append(1)
            for view in completion.sg:
                pool.free(view)

    keeper = threading.Thread(target=lambda: THREADS.run(host.keep_time()))
    devices = [threading.Thread(target=device, args=(n,)) for n in range(2)]
    users = [threading.Thread(target=user, args=(n,)) for n in range(3)]
    for thread in (keeper, *devices, *users):
        thread.start()
    for thread in users:
        thread.join()
    for _ in devices:
        queue.put(None)
    for thread in devices:
        thread.join()
    host.close()
    keeper.join()
    assert len(ended) == 450 and pool.outstanding == 0
    assert [shelf.out for shelf in shelves] == [0, 0]
