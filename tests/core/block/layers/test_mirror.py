"""A mirror survives its legs one by one, and is made whole again while it is in use."""

from __future__ import annotations

import random
import threading

import pytest

from headway.core.block.bio import READ, WRITE, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.device import Extent
from headway.core.block.layers.mirror import Mirror
from headway.core.block.legs import ACTIVE, DROPPED, SYNCING
from headway.core.block.line import carry_out
from headway.core.block.spec import Site
from headway.core.block.stack import Stack
from headway.core.plan import Plan
from headway.edge.memory_devices import MemoryDevice
from headway.errors import BlockError, UsageError
from headway.runtimes.threads import THREADS
from tests.core.block.rig import BLOCK, Rig, read, shut, stack_on


class Trouble:
    """Fails what a device is asked while it is switched on."""

    def __init__(self, rig: Rig, leg: int) -> None:
        self.on = True
        self.device = rig.disks[leg].device
        bottom = rig.disks[leg]
        real_read, real_write = bottom._read, bottom._write

        def fails(move):
            def moved(view: memoryview, offset: int) -> None:
                if self.on:
                    raise BlockError(5, "this leg is broken")
                move(view, offset)

            return moved

        bottom._read, bottom._write = fails(real_read), fails(real_write)


def mirror_of(rig: Rig, legs: int = 2, *, more: str = "", **options) -> tuple[Stack, Mirror]:
    stack = stack_on(rig, "mirror" + ",leg=x" * (legs - 1) + more, **options)
    assert isinstance(stack.top, Mirror)
    return stack, stack.top


def contents(rig: Rig, leg: int) -> bytes:
    device = rig.disks[leg].device
    view = memoryview(bytearray(device.size))
    device.pread_into(view, 0)
    return bytes(view)


def write(stack: Stack, offset: int, data: bytes) -> Plan[None]:
    yield from stack.request(WRITE, offset, memoryview(bytearray(data)), len(data))


def states(mirror: Mirror) -> list[object]:
    return [leg.state for leg in mirror.legs.all]


def test_writes_go_to_every_leg() -> None:
    rig = Rig()
    stack, _ = mirror_of(rig, 3)
    rig.run(write(stack, BLOCK, b"x" * BLOCK))
    assert contents(rig, 0) == contents(rig, 1) == contents(rig, 2)
    assert contents(rig, 0)[BLOCK : 2 * BLOCK] == b"x" * BLOCK
    shut(rig, stack)


def test_reads_stay_on_a_leg_that_reads_on_and_spread_otherwise() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    first, second = mirror.legs.all
    picks = []
    for offset in (0, 1, 2, 30, 31, 3, 32, 4):
        leg = mirror.legs.reader(Bio(READ, offset * BLOCK, length=BLOCK))
        leg.pending += 1
        picks.append("ab"[leg is second])
    # on at 0, 1, 2; 30 is nobody's next: the idle leg; on at 31; 3 and 4 follow 2, 32 follows 31
    assert "".join(picks) == "aaabbaba"
    for leg in (first, second):
        leg.pending = 0
    shut(rig, stack)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_read_that_fails_is_done_again_elsewhere_and_the_leg_dropped(
    inline: bool, seed: int
) -> None:
    rig = Rig(seed)
    stack, mirror = mirror_of(rig, late=not inline)
    rig.run(write(stack, 0, b"data" * BLOCK))
    Trouble(rig, 0)
    bio = Bio(READ, 0, memoryview(bytearray(4 * BLOCK)))
    if inline:
        assert stack.submit_now(bio)
    else:
        rig.run(carry_out(stack.top, bio))
        assert mirror.retries == 1
    assert bio.error is None and bytes(bio.view or b"") == b"data" * BLOCK
    assert states(mirror) == [DROPPED, ACTIVE]
    shut(rig, stack)


def test_a_write_is_done_if_one_leg_has_it() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    Trouble(rig, 1)
    rig.run(write(stack, 0, b"kept" * BLOCK))
    assert states(mirror) == [ACTIVE, DROPPED] and contents(rig, 0)[:4] == b"kept"
    assert mirror.stats()["errors"] == 1
    shut(rig, stack)


def test_the_last_leg_is_never_dropped_and_its_errors_are_the_mirrors() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    Trouble(rig, 0), Trouble(rig, 1)
    with pytest.raises(BlockError, match="this leg is broken"):
        rig.run(write(stack, 0, b"lost" * BLOCK))
    assert sorted(str(state) for state in states(mirror)) == ["State.ACTIVE", "State.DROPPED"]
    shut(rig, stack)


def test_a_request_that_is_wrong_says_nothing_about_the_leg() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    bio = Bio(READ, mirror.size, memoryview(bytearray(BLOCK)))
    rig.run(carry_out(stack.top, bio))
    assert bio.error is not None and states(mirror) == [ACTIVE, ACTIVE]
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(40))
def test_a_dropped_leg_is_filled_again_while_writes_go_on(seed: int) -> None:
    """Writers all over the device, windows of two blocks, reserves at their minimum."""
    rig = Rig(seed, fine=seed % 2 == 0)
    stack, mirror = mirror_of(rig, more=",window=1KiB", starve=True)
    trouble = Trouble(rig, 1)
    rig.run(write(stack, 0, bytes(range(256)) * 128))
    assert states(mirror) == [ACTIVE, DROPPED]
    trouble.on = False
    chance = random.Random(seed)

    def writer(number: int) -> Plan[None]:
        for turn in range(12):
            offset = chance.randrange(60) * BLOCK
            yield from write(stack, offset, bytes([number, turn]) * chance.choice([256, 512, 1024]))

    task = rig.simulator.start(mirror.resync.run(mirror.legs.all[1]), "resync")
    rig.run(*(writer(number) for number in range(3)))
    assert task.result is True and states(mirror) == [ACTIVE, ACTIVE]
    assert contents(rig, 0) == contents(rig, 1)
    shut(rig, stack)


@pytest.mark.parametrize("seed", range(20))
def test_a_leg_that_fails_again_while_it_is_filled_is_dropped_again(seed: int) -> None:
    rig = Rig(seed)
    stack, mirror = mirror_of(rig, more=",window=1KiB")
    trouble = Trouble(rig, 1)
    rig.run(write(stack, 0, b"12" * BLOCK))
    trouble.on = False
    resync = rig.simulator.start(mirror.resync.run(mirror.legs.all[1]), "resync")

    def breaks() -> Plan[None]:
        while mirror.resync.synced_bytes < 4096:
            yield from read(stack.top, 0, BLOCK)
        trouble.on = True
        yield from write(stack, 0, b"34" * BLOCK)

    rig.run(breaks())
    assert resync.result is False and states(mirror) == [ACTIVE, DROPPED]
    assert contents(rig, 0)[: 2 * BLOCK] == b"34" * BLOCK
    shut(rig, stack)


def test_filling_reads_from_another_leg_when_one_fails() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig, 3)
    rig.run(write(stack, 0, b"ab" * BLOCK))
    mirror.legs.become(mirror.legs.all[2], ACTIVE, DROPPED)
    Trouble(rig, 0)
    task = rig.simulator.start(mirror.resync.run(mirror.legs.all[2]), "resync")
    rig.run()
    assert task.result is True and states(mirror) == [DROPPED, ACTIVE, ACTIVE]
    assert contents(rig, 2) == contents(rig, 1)
    shut(rig, stack)


def test_filling_from_nothing_that_reads_ends_and_holds_nothing() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    mirror.legs.become(mirror.legs.all[1], ACTIVE, DROPPED)
    Trouble(rig, 0)
    task = rig.simulator.start(mirror.resync.run(mirror.legs.all[1]), "resync")
    rig.run()
    assert task.result is False and states(mirror) == [ACTIVE, DROPPED]
    shut(rig, stack)


def test_sync_yes_fills_the_other_legs_from_the_first() -> None:
    rig = Rig()
    disk = rig.disk()
    disk.device.pwrite(memoryview(b"first" * 100), 0)
    stack, mirror = mirror_of(rig, more=",sync=yes,window=4KiB", bottom=disk)
    rig.run()
    assert states(mirror) == [ACTIVE, ACTIVE] and contents(rig, 1) == contents(rig, 0)
    assert mirror.stats()["synced_bytes"] == mirror.size
    shut(rig, stack)


@pytest.mark.parametrize("steps", range(0, 200, 17))
def test_closing_ends_filling_after_its_window(steps: int) -> None:
    rig = Rig()
    stack = Stack(
        rig.simulator,
        rig.disk(),
        ["mirror,leg=x,sync=yes,window=512"],
        opener=lambda *_: rig.disk(),
    )
    rig.simulator.start(stack.start(), "start")
    for _ in range(steps + 30):
        if options := rig.simulator.options():
            rig.simulator.take(options[rig.choose(options)])
    shut(rig, stack)
    assert isinstance(stack.top, Mirror) and SYNCING not in states(stack.top)


def test_one_leg_is_no_mirror() -> None:
    with pytest.raises(UsageError, match="add leg=DEVICE"):
        stack_on(Rig(), "mirror")


def test_on_threads_a_leg_is_dropped_and_filled_while_others_write() -> None:
    """Real threads, legs with workers of their own, one that fails for a while."""
    devices = [MemoryDevice(64 << 10) for _ in range(2)]

    def bottom(name: str, site: Site) -> Bottom:
        return Bottom(devices[1], workers=site.workers("leg"))

    stack = Stack(
        THREADS, Bottom(devices[0]), ["mirror,leg=x,window=4KiB"], opener=bottom, in_flight=2
    )
    THREADS.run(stack.start())
    mirror = stack.top
    assert isinstance(mirror, Mirror)
    second = mirror.legs.all[1]
    broken = threading.Event()
    write_really = devices[1].pwrite

    def may_fail(view: memoryview, offset: int) -> None:
        if broken.is_set():
            raise BlockError(5, "out for a while")
        write_really(view, offset)

    bottom_of = second.layer
    assert isinstance(bottom_of, Bottom)
    bottom_of._write = may_fail

    def writer(number: int) -> None:
        chance = random.Random(number)
        for turn in range(150):
            data = memoryview(bytes([number, turn]) * 256)
            offset = (1 + 40 * number + chance.randrange(39)) * BLOCK  # nobody else's
            THREADS.run(stack.request(WRITE, offset, data, len(data)))

    def doctor() -> None:
        for _ in range(4):
            broken.set()
            while second.state is not DROPPED:
                THREADS.run(stack.request(WRITE, 0, memoryview(bytes(BLOCK)), BLOCK))
            broken.clear()
            assert THREADS.run(mirror.resync.run(second))

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(3)]
    threads.append(threading.Thread(target=doctor))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(mirror) == [ACTIVE, ACTIVE] and second.errors >= 4
    THREADS.run(stack.close())
    both = [memoryview(bytearray(device.size)) for device in devices]
    for device, view in zip(devices, both, strict=True):
        device.pread_into(view, 0)
    assert both[0] == both[1]


def test_holes_are_told_by_a_leg_that_can_and_are_none_if_no_leg_can() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    told: list[Extent] = []

    def fails(offset: int) -> Extent:
        raise BlockError(5, "this leg is broken")

    def ask() -> Plan[None]:
        told.append((yield from mirror.extent(BLOCK)))

    first, second = (disk.device for disk in rig.disks)
    first.extent = fails  # type: ignore[method-assign]
    second.extent = lambda offset: Extent(3 * BLOCK, True)  # type: ignore[method-assign]
    rig.run(ask())
    second.extent = fails  # type: ignore[method-assign]
    rig.run(ask())
    for leg in mirror.legs.all:
        leg.state = DROPPED  # as one may find them, one by one, while another becomes active
    rig.run(ask())
    data = Extent(mirror.size, False)
    assert told == [Extent(3 * BLOCK, True), data, data]
    shut(rig, stack)


def test_a_leg_that_was_dropped_while_it_was_asked_tells_of_no_hole() -> None:
    rig = Rig()
    stack, mirror = mirror_of(rig)
    told: list[Extent] = []

    def late(offset: int) -> Extent:
        assert mirror.legs.failed(mirror.legs.all[0], BlockError(5, "a write failed"))
        return Extent(mirror.size, True)

    def ask() -> Plan[None]:
        told.append((yield from mirror.extent(0)))

    rig.disks[0].device.extent = late  # type: ignore[method-assign]
    rig.run(ask())
    assert told == [Extent(mirror.size, False)]
    shut(rig, stack)
