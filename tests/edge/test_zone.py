"""A zone with memory in it: buffers for real consumers, no fault in steady state, clean errors."""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from headway.core.mm.gfp import Gfp
from headway.core.plan import Runtime
from headway.edge.arena import PAGE_BYTES
from headway.edge.zone import Buffers, WatchedBuffers, Zone
from headway.errors import NoMemory, PoolBusy, UsageError
from headway.runtimes.threads import THREADS
from headway.threaded import Mempool

BOTH = pytest.mark.parametrize("debug", [False, True])


def make(size: int | str = "4MiB", *, debug: bool = False, runtime: Runtime = THREADS) -> Zone:
    return Zone(size, runtime=runtime, name="z", min_free=0, debug=debug)


def take(buffers: Buffers | WatchedBuffers) -> memoryview:
    view = buffers.alloc(Gfp.KERNEL)
    assert view is not None
    return view


@BOTH
def test_buffers_are_lent_up_to_the_limit_and_no_further(debug: bool) -> None:
    zone = make(debug=debug)
    buffers = zone.buffers("1MiB", name="frames")
    held = [take(buffers) for _ in range(4)]
    assert buffers.light(Gfp.NOWAIT) is None
    assert buffers.alloc(Gfp.KERNEL) is None
    for number, view in enumerate(held):
        assert (len(view), view.readonly, view.format) == (1 << 20, False, "B")
        view[:] = bytes([number]) * len(view)
    assert [view[-1] for view in held] == [0, 1, 2, 3]
    assert zone.stats().held == 4 << 20
    for view in held:
        buffers.free(view)
    assert zone.stats().held == 0
    zone.close()


@BOTH
def test_consumers_take_them_without_a_copy(debug: bool, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    zone = make(debug=debug)
    buffers = zone.buffers("64KiB")
    view = take(buffers)
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 256)
    with path.open("rb", buffering=0) as file:
        assert file.readinto(view) == 65536
        assert os.preadv(file.fileno(), [view[:100], view[100:]], 1) == 65535
    assert view[0] == 1
    array = numpy.frombuffer(view, dtype="u1")
    array[0] = 77
    assert view[0] == 77
    assert array.ctypes.data % PAGE_BYTES == 0
    del array
    near, far = socket.socketpair()
    with near, far:
        near.send(view[:1000])
        assert far.recv_into(view[1000:]) == 1000
    assert view[1000] == 77
    buffers.free(view)
    zone.close()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="requires(O_DIRECT)")
def test_a_buffer_is_aligned_for_o_direct(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 65536)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("requires(a file system with O_DIRECT)")
    zone = make()
    buffers = zone.buffers("64KiB")
    view = take(buffers)
    try:
        assert os.preadv(fd, [view], 0) == 65536
    finally:
        os.close(fd)
    assert view[65535] == ord("x")
    buffers.free(view)
    zone.close()


@pytest.mark.skipif(sys.platform != "linux", reason="requires(Linux)")
def test_no_page_fault_in_steady_state() -> None:
    zone = Zone("32MiB", runtime=THREADS)
    pool: Mempool[memoryview] = Mempool(zone.buffers("2MiB"), min_count=2, name="frames")
    ones = b"\1" * (2 << 20 >> 12)

    def turn() -> None:
        held = [pool.alloc() for _ in range(8)]
        for view in held:
            view[::4096] = ones
        for view in held:
            pool.free(view)

    turn()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        turn()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 100, "409,600 pages were written; less than one fault a turn is not theirs"
    pool.close()
    zone.close()


@BOTH
def test_wrong_frees_are_refused_and_nothing_is_lost(debug: bool) -> None:
    zone = make(debug=debug)
    buffers, others = zone.buffers("1MiB", name="mine"), zone.buffers("1MiB", name="others")
    view = take(buffers)
    part = view[:100]
    for wrong in (part, memoryview(bytearray(10)), bytearray(10)):
        with pytest.raises(UsageError, match="the very object"):
            buffers.free(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'others'"):
        others.free(view)
    part.release()
    buffers.free(view)
    with pytest.raises(UsageError):
        buffers.free(view)
    assert zone.stats().held == 0
    assert len([take(buffers) for _ in range(4)]) == 4


def test_a_view_that_its_user_released_is_cut_anew() -> None:
    zone = make("1MiB")
    buffers = zone.buffers("1MiB")
    for again in (buffers.light, buffers.alloc):
        with take(buffers) as view:
            view[0] = 1
        buffers.free(view)
        fresh = again(Gfp.NOWAIT)
        assert fresh is not None and fresh is not view
        assert len(fresh) == 1 << 20
        buffers.free(fresh)
    zone.close()


@BOTH
def test_zero_clears_and_sizes_in_between_are_exact(debug: bool) -> None:
    zone = make(debug=debug)
    buffers = zone.buffers("1000B")
    view = take(buffers)
    assert len(view) == 1000
    view[:] = b"x" * 1000
    buffers.free(view)
    clear = buffers.alloc(Gfp.KERNEL | Gfp.ZERO)
    assert clear is not None and bytes(clear) == bytes(1000)
    buffers.free(clear)
    zone.close()


def test_floors_in_bytes_are_kept_from_others() -> None:
    zone = make("8MiB")
    holder, greedy = zone.buffers("1MiB", floor="2.5MiB"), zone.buffers("64KiB")
    taken = 0
    while greedy.alloc(Gfp.KERNEL) is not None:
        taken += 1
    assert taken * 65536 == 5 << 20
    assert zone.stats().kept_for_floors == 3 << 20
    assert [holder.light(Gfp.NOWAIT) is not None for _ in range(4)] == [True, True, True, False]


def test_ordinary_requests_leave_the_minimum_and_urgent_ones_do_not() -> None:
    zone = Zone("8MiB", runtime=THREADS, min_free="2MiB")
    buffers = zone.buffers("1MiB")
    held = [buffers.alloc(Gfp.KERNEL) for _ in range(7)]
    assert held.count(None) == 1
    assert buffers.alloc(Gfp.ATOMIC) is not None
    assert buffers.alloc(Gfp.KERNEL | Gfp.MEMALLOC) is not None
    assert buffers.alloc(Gfp.KERNEL | Gfp.MEMALLOC) is None
    assert zone.stats().min == 2 << 20


@pytest.mark.parametrize(
    ("size", "floor", "told"),
    [
        ("5MiB", 0, "can never be had"),
        ("1MiB", "5MiB", "can be handed out"),
        (0, 0, "at least 1 byte"),
        ("1MB", 0, "is no unit"),
        ("1MiB", -1, "negative"),
    ],
)
def test_the_impossible_is_refused_at_once(size: int | str, floor: int | str, told: str) -> None:
    zone = make()
    with pytest.raises(UsageError, match=told):
        zone.buffers(size, floor=floor, name="frames")
    zone.close()


@pytest.mark.parametrize("size", [0, PAGE_BYTES - 1, "10 pages", -1])
def test_no_zone_of_nothing(size: int | str) -> None:
    with pytest.raises(UsageError, match="'z'"):
        make(size)


def test_a_size_is_rounded_down_because_a_limit_is_a_limit() -> None:
    zone = make(3 * PAGE_BYTES + 4095)
    assert zone.stats().size == 3 * PAGE_BYTES
    zone.close()


def test_memory_that_is_not_to_be_had_is_no_memory() -> None:
    with pytest.raises((NoMemory, UsageError)):
        make(1 << 62)


def test_closing_needs_all_buffers_home_and_no_array_alive() -> None:
    numpy = pytest.importorskip("numpy")
    zone = make()
    buffers = zone.buffers("1MiB")
    view = take(buffers)
    with pytest.raises(PoolBusy, match="1 buffers out"):
        zone.close()
    array = numpy.frombuffer(view, dtype="u1")
    buffers.free(view)
    with pytest.raises(PoolBusy, match="in use"):
        zone.close()
    assert array[0] == 0, "the memory must be there as long as an array looks at it"
    del array, view
    gc.collect()
    zone.close()
    zone.close()


def test_users_come_and_go() -> None:
    zone = make()
    for turn in range(20):
        buffers = zone.buffers("2MiB" if turn % 2 else "64KiB", floor="4MiB")
        view = take(buffers)
        buffers.free(view)
        buffers.close()
    assert zone.stats().user_count == 0
    with make() as other:
        other.buffers("1MiB")
    zone.close()


def test_a_pool_without_a_reserve_hears_of_room() -> None:
    zone = make("1MiB")
    ours, theirs = zone.buffers("1MiB"), zone.buffers("1MiB")
    kicks: list[str] = []
    ours.on_room(lambda: kicks.append("kick"))
    view = take(theirs)
    assert ours.alloc(Gfp.KERNEL) is None
    theirs.free(view)
    assert kicks == ["kick"]
    zone.close()


def test_pools_over_one_zone_share_it_and_close_cleanly() -> None:
    zone = make("8MiB")
    pools: list[Mempool[memoryview]] = [
        Mempool(zone.buffers("1MiB", floor="2MiB"), min_count=2, name=f"p{n}") for n in range(3)
    ]
    for _ in range(50):
        held = [(pool, pool.alloc()) for pool in pools for _ in range(2)]
        for pool, view in held:
            pool.free(view)
    for pool in pools:
        pool.close()
    assert zone.stats().held == 0
    zone.close()


def test_writes_after_free_are_reported_at_the_next_loan_and_at_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    zone = make(debug=True)
    buffers = zone.buffers("1MiB")
    raw = zone._arena.view(0, 4 << 20)  # what a stray pointer in some extension would be
    raw[4097] = 1
    views = [take(buffers) for _ in range(4)]
    assert zone.stats().findings == 1
    for view in views:
        buffers.free(view)
    raw[3 << 20] = 1
    raw.release()
    zone.close()
    assert zone.stats().findings == 2
    said = [record.getMessage() for record in caplog.records]
    assert ["offset 4097" in line for line in said] == [True, False]
    assert "offset 3145728" in said[1]


def test_debug_free_with_a_slice_alive_is_refused_and_can_be_repeated() -> None:
    zone = make("1MiB", debug=True)
    buffers = zone.buffers("1MiB")
    view = take(buffers)
    part = view[5:10]
    with pytest.raises(UsageError, match="slices or arrays"):
        buffers.free(view)
    assert zone.stats().held == 1 << 20
    part.release()
    buffers.free(view)
    assert zone.stats().held == 0
    zone.close()


def test_look() -> None:
    zone = Zone("4MiB", runtime=THREADS, name="z", huge=False)
    buffers = zone.buffers("1MiB", floor="2MiB", name="frames")
    take(buffers)
    assert repr(buffers) == "<Buffers 'frames' of zone 'z': 1 of 1MiB out, floor 2>"
    assert repr(zone) == (
        "<Zone 'z': 1MiB of 4MiB held, 0B clean, 0B dirty, 1MiB kept for floors, 1 users, "
        "0B on huge pages>"
    )
