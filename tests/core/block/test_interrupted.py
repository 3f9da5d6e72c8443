"""A signal's exception in the middle of moving bytes: what was under way ends, and everything comes home."""

from __future__ import annotations

from itertools import count

import pytest

from headway.core.block.bio import FLUSH, READ, WRITE, Op
from headway.core.block.bottom import Bottom
from headway.core.block.stack import Stack
from headway.core.block.stacked import StackedDevice
from headway.edge.memory_devices import MemoryDevice
from headway.edge.quick import quick_of
from headway.errors import BlockError
from headway.runtimes.threads import THREADS
from tests.core.block.rig import BLOCK, Keys

CREATED = {
    "integrity": "integrity,block=512,section=4",
    "thin": "thin,extent=1KiB,block=512",
    "writecache": "writecache,cache=x,block=512,section=5,buffer=1KiB",
}
SPLITTING = ["bounce,buffer=1KiB", "stripe,with=x,chunk=1KiB", "mirror,leg=x", "bounce,buffer=2KiB"]


class Struck(MemoryDevice):
    """Ctrl-C comes in one call of many, of one disk or another."""

    left = 0  # calls until then; 0: never

    def strike(self) -> None:
        if Struck.left:
            Struck.left -= 1
            if not Struck.left:
                raise KeyboardInterrupt

    def pread_into(self, view: memoryview, offset: int) -> None:
        self.strike()
        super().pread_into(view, offset)

    def pwrite(self, view: memoryview, offset: int) -> None:
        self.strike()
        super().pwrite(view, offset)

    def flush(self) -> None:
        self.strike()


def made(specs: list[str], disks: list[Struck], *, create: bool = False) -> Stack:
    ready = iter(disks)

    def opener(*_: object) -> Bottom:
        return Bottom(next(ready))

    return Stack(THREADS, opener(), specs, opener=opener, crypto=Keys(), create=create)


def request(stack: Stack, op: Op, length: int = 0) -> None:
    view = memoryview(bytearray(length)) if length else None
    THREADS.run(stack.request(op, 0, view, length))


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("name", CREATED)
def test_a_start_that_is_interrupted_gives_everything_back(name: str, create: bool) -> None:
    for strike in count(1):
        disks = [Struck(64 * BLOCK) for _ in range(2)]
        if not create:
            stack = made([CREATED[name]], disks, create=True)
            THREADS.run(stack.start())
            request(stack, WRITE, 2 * BLOCK)
            request(stack, FLUSH)
            THREADS.run(stack.close())
        stack = made([CREATED[name]], disks, create=create)
        Struck.left = strike
        try:
            THREADS.run(stack.start())
        except KeyboardInterrupt:
            stack.give_back()  # raises PoolBusy if something is out
        else:
            assert Struck.left and strike > 2
            Struck.left = 0
            THREADS.run(stack.close())
            break


@pytest.mark.parametrize("op", [READ, WRITE, FLUSH])
def test_a_request_in_pieces_that_is_interrupted_leaves_none_behind(op: Op) -> None:
    for strike in count(1):
        stack = made(SPLITTING, [Struck(64 * BLOCK) for _ in range(4)])
        THREADS.run(stack.start())
        Struck.left = strike
        try:
            request(stack, op, 0 if op is FLUSH else 20 * BLOCK)
        except KeyboardInterrupt:
            THREADS.run(stack.close())  # raises PoolBusy if a piece is out
        else:
            assert Struck.left and strike > 2
            Struck.left = 0
            THREADS.run(stack.close())
            break


INLINE = [
    [],
    ["bounce"],
    ["mirror,leg=x", "bounce,reads=no"],
    ["crypt,format=plain,key-file=k,sector=512"],
    ["crypt,format=plain,key-file=k,sector=512", "linear,offset=512", "bounce,reads=no"],
]


@pytest.mark.parametrize("specs", INLINE, ids="+".join)
@pytest.mark.parametrize("op", [READ, WRITE, FLUSH])
def test_a_call_that_is_interrupted_keeps_no_bio_and_no_buffer(specs: list[str], op: Op) -> None:
    for strike in count(1):
        stack = made(specs, [Struck(64 * BLOCK) for _ in range(2)])
        THREADS.run(stack.start())
        device = StackedDevice(stack)
        view = memoryview(bytearray(4 * BLOCK))
        Struck.left = strike
        try:
            if op is FLUSH:
                device.flush()
            else:
                (device.pread_into if op is READ else device.pwrite)(view, BLOCK)
        except KeyboardInterrupt:
            device.close()  # raises PoolBusy if something is out
        else:
            assert Struck.left and strike > 1
            Struck.left = 0
            device.close()
            break


@pytest.mark.parametrize("error", [MemoryError("none"), BlockError(5, "libcrypto refused it")])
def test_a_sector_that_cannot_be_encrypted_is_not_written_and_costs_no_buffer(error) -> None:
    disk = Struck(64 * BLOCK)
    stack = made(["crypt,format=plain,key-file=k,sector=512,reserve=1"], [disk])
    THREADS.run(stack.start())
    device, works = StackedDevice(stack), stack.top._cipher.encrypt  # type: ignore[attr-defined]

    class Fails:
        def __getattr__(self, name: str) -> object:
            return getattr(works.__self__, name)

        def encrypt(self, *_: object) -> None:
            raise error

    stack.top._cipher = Fails()  # type: ignore[attr-defined]
    view = memoryview(bytearray(b"plain text, sixty-four bytes long." * 16)[:BLOCK])
    for _ in range(3):
        with pytest.raises(type(error)):
            device.pwrite(view, 0)
        assert not quick_of(device).write_now(view, 0)  # it does not raise: it is a server's
    found = memoryview(bytearray(BLOCK))
    disk.pread_into(found, 0)
    assert not any(found)
    device.close()
