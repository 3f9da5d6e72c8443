"""A stack is built from texts, refuses what makes none, and asks for everything back."""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest

import headway as hw
from headway.core.block.bio import DISCARD, FLUSH, READ, WRITE, ZERO, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer, each
from headway.core.block.layers import LAYERS
from headway.core.block.limits import Limits
from headway.core.block.line import Line, carry_out
from headway.core.block.spec import Recipe, parse
from headway.core.block.stack import Stack
from headway.core.block.stacked import StackedDevice
from headway.core.plan import Plan
from headway.devices import open_stack
from headway.edge.memory_devices import MemoryDevice, ZeroDevice
from headway.errors import BlockError, NoMemory, PoolBusy, UsageError
from headway.runtimes import tasks
from headway.runtimes.threads import THREADS
from tests.core.block.rig import BLOCK, Keys, Rig, shut, stack_on


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("cheese", "there are bounce, crypt"),
        ("", "has no name"),
        ("linear,offset", "NAME,key=value"),
        ("linear,=4", "NAME,key=value"),
        ("linear,offest=4KiB", "has no option 'offest'"),
        ("linear,offset=4KB", "offset"),
        ("linear,offset=1,offset=2", "give it once"),
        ("flaky,up=-1", "a whole number from 0"),
        ("flaky,down=0", "a whole number from 1"),
        ("flaky,mode=odd", "one of fail, drop"),
        ("delay,read=soon", "seconds from 0"),
        ("delay,read=-1", "seconds from 0"),
        ("mirror,leg=other", "cannot be opened here"),
        ("bounce,reserve=0", "a whole number from 1"),
    ],
)
def test_what_makes_no_layer_is_refused_with_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Stack(THREADS, Bottom(MemoryDevice(1 << 16)), [spec])


def test_a_spec_is_read_with_its_units() -> None:
    name, options = parse("x,a=4KiB,b=7,c=0.5,d=yes,e=1,e=2")
    assert name == "x" and options.size("a", 0) == 4096 and options.number("b", 0) == 7
    assert options.seconds("c", 0) == 0.5 and options.flag("d", False)
    assert options.texts("e") == ["1", "2"] and options.size("f", 9) == 9
    options.finish()


def test_the_outermost_is_last_and_limits_combine() -> None:
    rig = Rig()
    bottom = rig.disk(limits=Limits(BLOCK, 8 * BLOCK), splits=rig.set_of())
    stack = stack_on(rig, "linear,offset=512", "bounce,buffer=2KiB", bottom=bottom)
    assert stack.name.startswith("bounce on linear on memory")
    assert (stack.limits.alignment, stack.limits.max_length) == (BLOCK, 2048)
    assert "3 layers" not in repr(stack) and "2 layers" in repr(stack)
    shut(rig, stack)


def test_what_lies_outside_is_refused_at_the_top_by_both_doors() -> None:
    rig = Rig()
    stack = stack_on(rig, "linear,offset=512")
    for offset in (-1, stack.size - 1, stack.size):
        bio = Bio(READ, offset, memoryview(bytearray(2)))
        assert stack.submit_now(bio) and isinstance(bio.error, BlockError)
        ended: list[BaseException | None] = []
        bio = Bio(READ, offset, memoryview(bytearray(2)))
        bio.push(lambda bio, ended=ended: ended.append(bio.error))
        rig.run(stack.submit(bio))
        assert isinstance(ended[0], BlockError) and ended[0].errno == 22
    shut(rig, stack)


def test_closing_says_what_did_not_come_home() -> None:
    rig = Rig()
    stack = stack_on(rig, "bounce")
    assert stack.bios.try_alloc() is not None
    with pytest.raises(PoolBusy):
        shut(rig, stack)


def test_a_stack_that_cannot_be_filled_gives_everything_back() -> None:
    from tests.core.mm.pools import Shelf

    shelves: list[Shelf] = []

    def memory(size: int, name: str) -> Shelf:
        shelves.append(Shelf(room=2 if not shelves else 1))
        return shelves[-1]

    with pytest.raises(NoMemory):
        Stack(THREADS, Bottom(MemoryDevice(1 << 16)), ["bounce", "bounce"], memory=memory)
    assert [shelf.out for shelf in shelves] == [0, 0]


class Unstartable(Layer):
    def __init__(self, below: Layer, error: BaseException) -> None:
        self.name, self.size, self.below, self.error = "unstartable", below.size, (below,), error

    def start(self) -> Plan[None]:
        raise self.error
        yield


@pytest.mark.parametrize("error", [BlockError(5, "it does not start"), KeyboardInterrupt("asked")])
def test_a_layer_that_does_not_start_ends_those_that_did(error: BaseException) -> None:
    rig = Rig()
    layers = {**LAYERS, "unstartable": Recipe(lambda below, *_: Unstartable(below, error))}
    under = [
        "delay,seconds=1",
        "integrity,create=yes,block=512",
        "thin,create=yes,block=512,extent=1KiB",
    ]
    specs = [*under, "unstartable", "bounce"]
    stack = Stack(rig.simulator, rig.disk(1 << 20), specs, layers=layers, crypto=Keys())
    with pytest.raises(type(error), match=str(error.args[-1])):
        rig.run(stack.start())
    assert not [task for task in rig.run() if not task.name.startswith("disk")]
    stack.give_back()
    assert all(pool.closed for pool in stack.pools()[1:])


def test_a_stack_that_cannot_start_says_why() -> None:
    specs = ["integrity,create=yes", "error,ops=writes", "thin,create=yes,extent=64KiB"]
    with pytest.raises(BlockError, match="made to fail") as caught:
        open_stack("memory:1MiB", specs, writable=True)
    assert caught.value.errno == errno.EIO


def test_giving_back_goes_on_after_what_did_not_come_home() -> None:
    rig = Rig()
    stack = Stack(rig.simulator, rig.disk(), ["bounce", "bounce"])
    lower, upper = (site.pools[0] for site in stack.sites)
    assert upper.try_alloc() is not None
    with pytest.raises(PoolBusy):
        stack.give_back()
    assert lower.closed


def test_a_layer_of_ones_own_in_twenty_lines() -> None:
    """What docs/howto/write-a-layer.md promises."""

    class Upper(Layer):
        def __init__(self, below: Layer) -> None:
            self.name, self.size, self.below = "upper", below.size, (below,)

        def submit_now(self, bio: Bio) -> bool:
            if not self.below[0].submit_now(bio):
                return False
            self._ended(bio)
            return True

        def submit(self, bio: Bio, line: Line) -> None:
            bio.push(self._ended)
            line.send(bio, self.below[0])

        def _ended(self, bio: Bio) -> None:
            if bio.op is READ and bio.error is None and bio.view is not None:
                bio.view[:] = bytes(bio.view).upper()

    rig = Rig()
    stack = stack_on(
        rig, "upper", layers={**LAYERS, "upper": Recipe(lambda below, *_: Upper(below))}
    )
    rig.run(stack.request(WRITE, 0, memoryview(b"quiet"), 5))
    view = memoryview(bytearray(5))
    rig.run(stack.request(READ, 0, view, 5))
    assert bytes(view) == b"QUIET"
    shut(rig, stack)


# -- the bottom ----------------------------------------------------------------------------------------


def test_the_bottom_makes_up_what_a_device_cannot_do() -> None:
    device = MemoryDevice(300_000)
    device.pwrite(memoryview(b"x" * 300_000), 0)
    bottom = Bottom(device)
    assert bottom.submit_now(Bio(ZERO, 1000, length=200_000))
    assert bottom.submit_now(Bio(DISCARD, 0, length=1000))
    view = memoryview(bytearray(300_000))
    device.pread_into(view, 0)
    assert bytes(view) == b"x" * 1000 + bytes(200_000) + b"x" * 99_000


def test_fua_flushes_after_the_write() -> None:
    events: list[str] = []
    device = MemoryDevice(BLOCK)
    write = device.pwrite
    device.pwrite = lambda view, offset: (events.append("write"), write(view, offset))  # type: ignore
    device.flush = lambda: events.append("flush")  # type: ignore[method-assign]
    bottom = Bottom(device)
    bottom.submit_now(Bio(WRITE, 0, memoryview(b"a"), fua=True))
    bottom.submit_now(Bio(FLUSH))
    assert events == ["write", "flush", "flush"]


def test_a_device_error_is_the_bios_and_no_exception() -> None:
    bio = Bio(WRITE, 0, memoryview(b"a"))
    assert Bottom(ZeroDevice(BLOCK)).submit_now(bio)
    assert isinstance(bio.error, BlockError) and "cannot be written" in str(bio.error)


def test_a_device_that_may_take_long_is_never_used_inline() -> None:
    rig = Rig()
    bottom = rig.disk(inline=False)
    bio = Bio(READ, 0, memoryview(bytearray(BLOCK)))
    before = bio.fields()
    assert not bottom.submit_now(bio) and bio.fields() == before
    rig.run(carry_out(bottom, bio))
    assert bio.error is None


class Cached:
    """Only the first block is in the cache."""

    def __init__(self, device: MemoryDevice) -> None:
        self.device = device
        self.error: BlockError | None = None

    def read_now(self, view: memoryview, offset: int) -> bool:
        if self.error is not None:
            raise self.error
        if offset >= BLOCK:
            view[:] = b"?" * len(view)
            return False
        self.device.pread_into(view, offset)
        return True

    def write_now(self, view: memoryview, offset: int) -> bool:
        return False


def test_a_device_that_knows_what_is_quick_does_only_that_inline() -> None:
    device = MemoryDevice(4 * BLOCK)
    device.pwrite(memoryview(b"ab" * BLOCK), 0)
    quick = Cached(device)
    stack = Stack(THREADS, Bottom(device, quick=quick), ["linear"])
    stacked = StackedDevice(stack)
    view = memoryview(bytearray(4))
    assert stacked.read_now(view, 0) and bytes(view) == b"abab"
    assert not stacked.read_now(view, BLOCK)
    stacked.pread_into(view, BLOCK)
    assert bytes(view) == b"abab"
    assert not stacked.write_now(view, 0)
    stacked.pwrite(memoryview(b"xyz!"), 0)
    stacked.pread_into(view, 0)
    assert bytes(view) == b"xyz!"
    assert not stack.submit_now(Bio(WRITE, 0, view, fua=True))
    quick.error = BlockError(5, "the cache is broken")
    with pytest.raises(BlockError, match="cache is broken"):
        stacked.read_now(view, 0)
    assert stack.bios.pool.outstanding == 0
    stacked.close()


def test_devices_stack_on_stacked_devices_and_pass_zero_and_discard_on() -> None:
    device = MemoryDevice(64 * BLOCK)
    asked: list[tuple[str, int, int]] = []
    device.discard = lambda offset, length: asked.append(("discard", offset, length))  # type: ignore
    device.pwrite(memoryview(b"x" * device.size), 0)
    lower = StackedDevice(Stack(THREADS, Bottom(device), ["linear,offset=512"]))
    upper = StackedDevice(Stack(THREADS, Bottom(lower), ["linear,offset=512"]))
    assert upper.zero(0, 512) and upper.stack.limits.alignment == 1
    upper.discard(512, 100)
    view = memoryview(bytearray(BLOCK))
    device.pread_into(view, 2 * BLOCK)
    assert bytes(view) == bytes(BLOCK) and asked == [("discard", 1536, 100)]
    with pytest.raises(UsageError, match="keep inside of it"):
        upper.pread_into(view, upper.size)
    upper.flush()
    upper.close()
    upper.close()
    lower.close()


def test_a_stack_waits_for_a_disk_if_a_device_below_does_whatever_its_layers_grain():
    whole = open_stack("memory:1MiB", ["integrity"], writable=True, create=True)
    assert whole.alignment > 1 and not whole.direct
    disk = MemoryDevice(1 << 20)
    disk.alignment = 4096
    past = StackedDevice(Stack(THREADS, Bottom(disk), ["linear"]))
    assert past.direct
    whole.close()
    past.close()


def test_a_cancelled_task_leaves_its_memory_to_the_worker_that_moves_bytes() -> None:
    """asyncio cannot stop a thread: until that is done, the bio has not ended, and nobody else has its memory."""
    device = MemoryDevice(BLOCK)
    begun, go_on, home = threading.Event(), threading.Event(), threading.Event()
    write = device.pwrite

    def slow(view: memoryview, offset: int) -> None:
        begun.set()
        assert go_on.wait(10)
        write(view, offset)

    device.pwrite = slow  # type: ignore[method-assign]

    class Home:
        def free(self, bio: Bio) -> None:
            assert bio.error is None
            home.set()

    async def main() -> None:
        bio = Bio(WRITE, 0, memoryview(b"x" * BLOCK), home=Home())
        task = asyncio.create_task(tasks.run(carry_out(Bottom(device, inline=False), bio)))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not home.is_set()
        go_on.set()
        assert await asyncio.to_thread(home.wait, 10)

    asyncio.run(main())


def test_who_closes_it_too_waits_until_it_is_closed() -> None:
    """A server closes its devices in a thread of its own; what is below them may go when `close` returns."""
    ending, may_end, order = threading.Event(), threading.Event(), []

    def end() -> None:
        ending.set()
        may_end.wait()
        order.append("ended")

    stack = Stack(THREADS, Bottom(MemoryDevice(4096)), ["linear"])
    THREADS.run(stack.start())
    stacked = StackedDevice(stack, ending=end)

    def close() -> None:
        stacked.close()
        order.append("returned")

    closers = [threading.Thread(target=close) for _ in range(3)]
    closers[0].start()
    ending.wait()
    for closer in closers[1:]:
        closer.start()
    while len(stacked._late) < 2:  # both have come, and wait
        assert not order
    may_end.set()
    for closer in closers:
        closer.join()
    stacked.close()
    assert order == ["ended", *["returned"] * 3]


def test_an_end_that_fails_is_told_and_leaves_nobody_waiting() -> None:
    def end() -> None:
        raise BlockError(5, "it does not end")

    stack = Stack(THREADS, Bottom(MemoryDevice(4096)), ["linear"])
    THREADS.run(stack.start())
    stacked = StackedDevice(stack, ending=end)
    with pytest.raises(BlockError, match="does not end"):
        stacked.close()
    stacked.close()


def test_a_device_is_closed_whatever_is_still_out(tmp_path) -> None:
    """The first failure is told; the memory of the other layers and every descriptor are given back."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 16))
    users = []

    class Room:
        def buffers(self, size: int, *, name: str) -> object:
            users.append(zone.buffers(size, name=name))
            return users[-1]

    with hw.Zone("8MiB") as zone:
        specs = [f"mirror,leg={tmp_path / 'b'}", "bounce", "bounce"]
        device = open_stack(str(tmp_path / "a"), specs, memory=Room(), writable=True)
        bottoms = [layer for layer in each(device.stack.top) if isinstance(layer, Bottom)]
        fds = [layer.device.fd for layer in bottoms]  # type: ignore[attr-defined]
        kept = users[0].alloc()
        with pytest.raises(PoolBusy):
            device.close()
        for fd in fds:
            with pytest.raises(OSError):
                os.fstat(fd)
        users[0].free(kept)
