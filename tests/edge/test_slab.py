"""Slabs over a real arena: views that real consumers take, and memory that goes back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import headway as hw
from headway.errors import PoolBusy, UsageError

BOTH = pytest.mark.parametrize("debug", [False, True])


@BOTH
def test_objects_are_views_of_the_arena_and_do_not_overlap(debug: bool, tmp_path: Path) -> None:
    with hw.Zone("1MiB", min_free=0, debug=debug) as zone:
        slab = hw.Slab(zone, 3000, name="records")
        path = tmp_path / "data"
        path.write_bytes(bytes(range(250)) * 120)
        held = []
        with path.open("rb", buffering=0) as file:
            for number in range(10):
                view = slab.alloc()
                assert view is not None and len(view) == 3000
                assert os.preadv(file.fileno(), [view], 3000 * number) == 3000
                held.append(view)
        assert b"".join(held) == path.read_bytes()
        assert zone.stats().held >= 30_000
        for view in held:
            slab.free(view)
        slab.shrink()
        assert zone.stats().held == 0
        assert slab.stats().findings == zone.stats().findings == 0


@BOTH
def test_a_mempool_over_a_slab(debug: bool) -> None:
    with hw.Zone("256KiB", min_free=0, debug=debug) as zone:
        slab = hw.Slab(zone, "4KiB", name="blocks")
        with hw.Mempool(slab, min_count=4, name="p") as pool:
            held = []
            while (view := pool.try_alloc()) is not None:
                held.append(view)
            assert len(held) == (64 if not debug else 48), "red zones take room"
            for number, view in enumerate(held):
                view[:] = bytes([number]) * 4096
            assert [view[4095] for view in held] == list(range(len(held)))
            for view in held:
                pool.free(view)
        slab.check_invariants()


def test_a_zone_closes_its_slabs_and_says_if_objects_are_out() -> None:
    zone = hw.Zone("256KiB", min_free=0)
    slab, alias = hw.Slab(zone, 100, name="a"), hw.Slab(zone, 100, name="b")
    assert str(alias.decision).startswith("slab 'b': merged into 'a'")
    view = alias.alloc()
    assert view is not None
    with pytest.raises(PoolBusy, match="slab 'b' closed with 1 objects out"):
        zone.close()
    alias.free(view)
    zone.close()
    assert slab.closed and alias.closed


def test_numpy_keeps_the_memory_alive() -> None:
    numpy = pytest.importorskip("numpy")
    zone = hw.Zone("64KiB", min_free=0)
    slab = hw.Slab(zone, 1024)
    view = slab.alloc()
    assert view is not None
    array = numpy.frombuffer(view, dtype="u1")
    slab.free(view)
    with pytest.raises(PoolBusy, match="in use"):
        zone.close()
    assert len(array) == 1024
    del array, view
    zone.close()


def test_pages_written_to_after_they_left_the_slab_are_found() -> None:
    zone = hw.Zone("64KiB", min_free=0, debug=True)
    slab = hw.Slab(zone, 1024, merge=False)
    view = slab.alloc()
    assert view is not None
    slab.free(view)
    slab.shrink()
    raw = zone._arena.view(0, 64 << 10)
    raw[5] = 1
    raw.release()
    assert slab.alloc(hw.Gfp.KERNEL) is not None
    assert zone.stats().findings == 1


def test_reclaim_makes_room_for_a_page_of_a_slab() -> None:
    with hw.Zone("256KiB", min_free=0) as zone:
        cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
        for key in range(64):
            cache[key] = bytes(4096)
        slab = hw.Slab(zone, "4KiB")
        held = [slab.alloc() for _ in range(40)]
        assert None not in held
        for view in held:
            assert view is not None
            slab.free(view)


def test_empty_pages_of_a_slab_are_given_back_when_others_need_them() -> None:
    with hw.Zone("256KiB", min_free=0) as zone:
        slab = hw.Slab(zone, "4KiB", name="blocks")
        views = [slab.alloc() for _ in range(40)]
        for view in views:
            assert view is not None
            slab.free(view)
        kept = zone.stats().held
        assert kept and slab.stats().at_hand, "it keeps some for the next time"
        buffers = zone.buffers("256KiB")
        whole = buffers.alloc()
        assert whole is not None and len(whole) == 256 << 10, "all of the zone"
        assert slab.stats().page_count == slab.stats().at_hand == 0
        assert slab.alloc() is None
        buffers.free(whole)
        slab.check_invariants()


def test_the_impossible_is_refused_at_once() -> None:
    with hw.Zone("64KiB", min_free=0) as zone:
        with pytest.raises(UsageError, match="can never be had"):
            hw.Slab(zone, "128KiB")
        with pytest.raises(UsageError, match="1 byte or more"):
            hw.Slab(zone, 0)


def test_threads_share_merged_slabs_and_nothing_is_lost_or_handed_out_twice() -> None:
    with hw.Zone("256KiB", min_free="16KiB") as zone:
        slabs = [hw.Slab(zone, size, name=f"s{size}") for size in (1020, 1024)]
        assert slabs[1].decision.into == "s1020"
        wrong: list[str] = []

        def work(number: int) -> None:
            slab = slabs[number % 2]
            mark = bytes([number + 1]) * 8
            held: list[memoryview] = []
            for turn in range(1500):
                view = slab.alloc(hw.Gfp.ATOMIC if turn % 7 == 0 else hw.Gfp.KERNEL)
                if view is not None:
                    view[:8] = mark
                    held.append(view)
                while len(held) > (40 if turn % 50 else 0):
                    last = held.pop(turn % len(held))
                    if bytes(last[:8]) != mark:
                        wrong.append(f"{number} at {turn}: {bytes(last[:8]).hex()}")
                    slab.free(last)
                if turn % 300 == 0:
                    slab.shrink()
            for view in held:
                slab.free(view)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[:3]
        slabs[0].check_invariants()
        slabs[0].shrink()
        assert zone.stats().held == 0
