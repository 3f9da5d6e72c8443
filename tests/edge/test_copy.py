"""The engine on devices that fail, with few frames: it ends, and all frames come home."""

import errno
import hashlib
import logging
import mmap
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway import Mempool
from headway.core.block.copier import size_frames
from headway.core.block.device import Extent
from headway.edge.copy import compare, digest_of, transfer
from headway.edge.memory_devices import MemoryDevice, ZeroDevice
from headway.errors import BlockError

REQUEST = 8192
SIZE = 10 * REQUEST + 17


class Trying(MemoryDevice):
    """A device whose n-th operation fails: that one, or all from then on."""

    def __init__(self, size, fail_at=None, for_ever=False, alignment=1):
        super().__init__(size)
        self.alignment = alignment  # above 1, two threads move
        self._left = fail_at
        self._for_ever = for_ever
        self._guard = threading.Lock()

    def _try(self, what, offset):
        with self._guard:
            if self._left is None:
                return
            self._left -= 1
            fails = self._left <= 0 if self._for_ever else self._left == 0
        if fails:
            raise BlockError(errno.EIO, f"{what} failed", offset=offset)

    def pread_into(self, view, offset):
        self._try("read", offset)
        super().pread_into(view, offset)

    def pwrite(self, view, offset):
        self._try("write", offset)
        super().pwrite(view, offset)


def frames(count):
    return Mempool.of([memoryview(mmap.mmap(-1, REQUEST)) for _ in range(count)], name="frames")


def filled(device, seed=1):
    data = random.Random(seed).randbytes(device.size)
    MemoryDevice.pwrite(device, memoryview(data), 0)
    return data


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("hashing", [False, True])
@pytest.mark.parametrize("alignment", [1, 4096])
@pytest.mark.parametrize("size", [0, 1, REQUEST, SIZE])
def test_all_bytes_arrive_whatever_the_number_of_frames(count, hashing, alignment, size):
    source, target = Trying(size, alignment=alignment), MemoryDevice(size)
    data = filled(source)
    pool = frames(count)
    options = {"sizing": size_frames(count * REQUEST, REQUEST, None)}
    moved = transfer(source, target, pool, hashing=hashing, **options)
    assert bytes(target._view[:size]) == data
    assert moved.digest == (hashlib.sha256(data).hexdigest() if hashing else None)
    assert moved.peak <= count * REQUEST and (moved.peak > 0) == (size > 0)
    assert digest_of(target, size, pool, **options).digest == hashlib.sha256(data).hexdigest()
    compare(source, target, pool, **options)
    pool.close()


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("alignment", [1, 4096])
def test_every_nth_request_failing_ends_cleanly(side, for_ever, count, alignment):
    for n in range(1, 13):
        at = {side: n}
        source = Trying(SIZE, at.get("source"), for_ever, alignment)
        target = Trying(SIZE, at.get("target"), for_ever)
        filled(source)
        pool = frames(count)
        failing = n <= 11
        try:
            transfer(
                source,
                target,
                pool,
                sizing=size_frames(count * REQUEST, REQUEST, None),
                hashing=True,
            )
        except BlockError as error:
            assert failing and error.errno == errno.EIO and error.offset % REQUEST == 0
        else:
            assert not failing
        pool.close()  # raises if a frame did not come home


def test_a_difference_is_found_and_says_where():
    source, target = MemoryDevice(SIZE), MemoryDevice(SIZE)
    data = filled(source)
    target.pwrite(memoryview(data), 0)
    target.pwrite(memoryview(b"!!"), 3 * REQUEST)
    pool = frames(1)
    with pytest.raises(BlockError, match=f"differs .* at offset {3 * REQUEST}"):
        compare(source, target, pool, sizing=size_frames(REQUEST, REQUEST, None))
    pool.close()


class Sparse(MemoryDevice):
    """Says which of its pieces are holes, and refuses to have them read."""

    def __init__(self, holes, step):
        super().__init__(len(holes) * step)
        self._holes, self._step = holes, step

    def extent(self, offset):
        end = offset // self._step
        hole = self._holes[end]
        while end < len(self._holes) and self._holes[end] == hole:
            end += 1
        return Extent(end * self._step, hole)

    def pread_into(self, view, offset):
        assert not self.extent(offset).hole
        super().pread_into(view, offset)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
@settings(max_examples=30)
def test_holes_are_hashed_and_never_moved(holes):
    step = 5000
    source, target = Sparse(holes, step), MemoryDevice(len(holes) * step)
    data = b""
    for n, hole in enumerate(holes):
        part = bytes(step) if hole else random.Random(n).randbytes(step)
        source.pwrite(memoryview(part), n * step)
        data += part
    pool = frames(2)
    moved = transfer(
        source,
        target,
        pool,
        sizing=size_frames(2 * REQUEST, REQUEST, None),
        hashing=True,
    )
    assert moved.digest == hashlib.sha256(data).hexdigest()
    assert bytes(target._view[: len(data)]) == data
    pool.close()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("good", [0, 1, 4])
def test_a_device_that_cannot_tell_its_holes_fails_the_copy_and_keeps_no_frame(count, good):
    class Speechless(Trying):
        def extent(self, offset):
            if offset >= good * REQUEST:
                raise BlockError(errno.EIO, "lseek failed", offset=offset)
            return Extent(offset + REQUEST, False)

    pool = frames(count)
    sizing = size_frames(count * REQUEST, REQUEST, None)
    with pytest.raises(BlockError, match="lseek failed"):
        transfer(Speechless(SIZE), MemoryDevice(SIZE), pool, sizing=sizing, hashing=True)
    pool.close()  # raises if a frame did not come home


def test_an_exception_in_the_calling_thread_brings_all_frames_home():
    pool = frames(2)
    calls = []

    def progress(done, size):
        calls.append(done)
        raise KeyboardInterrupt

    release = threading.Event()

    class Slow(MemoryDevice):
        def pwrite(self, view, offset):
            assert release.wait(60)

    def asked(done, size):
        release.set()
        progress(done, size)

    with pytest.raises(KeyboardInterrupt):
        transfer(
            ZeroDevice(SIZE),
            Slow(SIZE),
            pool,
            sizing=size_frames(2 * REQUEST, REQUEST, None),
            hashing=True,
            progress=asked,
        )
    assert calls
    pool.close()


class Gated(MemoryDevice):
    """Its reads wait at a gate."""

    def __init__(self, size):
        super().__init__(size)
        self.entered, self.gate = threading.Event(), threading.Event()
        self.aborted = False

    def pread_into(self, view, offset):
        self.entered.set()
        self.gate.wait()
        super().pread_into(view, offset)


def interrupt_when(device):
    def progress(done, size):
        if device.entered.is_set():
            raise KeyboardInterrupt

    return progress


def test_an_interruption_says_what_it_still_waits_for(caplog):
    """A file's request cannot be given up: the log names the file, and the frames come home."""
    device = Gated(SIZE)

    class Opening(logging.Handler):
        def emit(self, record):
            device.gate.set()

    log, handler = logging.getLogger("headway"), Opening()
    log.addHandler(handler)
    pool = frames(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            transfer_all(device, MemoryDevice(SIZE), pool, progress=interrupt_when(device))
    finally:
        log.removeHandler(handler)
    assert "still wait for memory:" in caplog.text and caplog.text.count("\n") == 1
    assert pool.stats().outstanding == 0


def test_an_interruption_lets_requests_to_a_server_fail():
    class Server(Gated):
        def abort(self):
            self.aborted = True
            self.gate.set()

    device, pool = Server(SIZE), frames(2)
    with pytest.raises(KeyboardInterrupt):
        transfer_all(device, MemoryDevice(SIZE), pool, progress=interrupt_when(device))
    assert device.aborted and pool.stats().outstanding == 0


def transfer_all(source, target, pool, **options):
    sizing = size_frames(2 * REQUEST, REQUEST, None)
    return transfer(source, target, pool, sizing=sizing, hashing=True, **options)


class Meeting(MemoryDevice):
    """Whose first two reads wait for each other; the hasher's, also for the mover's end, which needs a
    frame more than there are pieces."""

    def __init__(self, size):
        super().__init__(size)
        self._first_two = threading.Semaphore(2)
        self._meeting = threading.Barrier(2, timeout=30)

    def pread_into(self, view, offset):
        if self._first_two.acquire(blocking=False):
            self._meeting.wait()
            if threading.current_thread().name == "headway-hasher":
                for thread in threading.enumerate():
                    if thread.name.startswith("headway-mover"):
                        thread.join(30)
        super().pread_into(view, offset)


def test_a_hasher_with_nothing_to_hash_moves_a_piece_and_hashes_it_though_all_others_are_moved():
    source, target, pool = Meeting(4 * REQUEST), MemoryDevice(4 * REQUEST), frames(5)
    data = filled(source)
    sizing = size_frames(4 * REQUEST, REQUEST, None)
    moved = transfer(source, target, pool, sizing=sizing, hashing=True)
    assert moved.digest == hashlib.sha256(data).hexdigest()
    assert bytes(target._view[: len(data)]) == data
    pool.close()
