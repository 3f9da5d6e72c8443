"""The mapping by its face: real files, pickled values, threads."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

import headway as hw
from headway.core.mm.shrinker import ScanControl


def test_pickled_values_of_four_times_the_zone(tmp_path: Path) -> None:
    (tmp_path / "swap").write_bytes(bytes(4 << 20))
    device = hw.open_device(str(tmp_path / "swap"), writable=True)
    with hw.Zone("256KiB", min_free=0) as zone:
        swap = hw.Swap(device, slot_size="16KiB")
        store: hw.SpillStore[Any] = hw.SpillStore(
            swap, memory=zone, dumps=pickle.dumps, loads=pickle.loads
        )
        wanted = {f"key {n}": {"n": n, "data": [n] * (100 * n)} for n in range(100)}
        for key, value in wanted.items():
            store[key] = value
        assert store.stats().spilled > 4 * 16 and dict(store) == wanted
        del store["key 7"]
        assert "key 7" not in store and len(store) == 99 and store.get("key 7") is None
        assert store.spill(3) == 3 and "99 values" in repr(store)
        store.close()
        assert swap.stats().used == 0
        swap.close()
    device.close()


def test_threads_store_and_load_beside_each_other() -> None:
    device = hw.open_device("memory:4MiB", writable=True)
    failures: list[BaseException] = []
    with (
        hw.Zone("64KiB", min_free=0) as zone,
        hw.SpillStore(hw.Swap(device, slot_size=4096), memory=zone) as store,
    ):

        def work(me: int) -> None:
            try:
                for turn in range(40):
                    store[me, turn % 8] = bytes([me, turn]) * (50 * turn + 1)
                    for back in range(max(0, turn - 7), turn + 1):
                        assert store[me, back % 8] == bytes([me, back]) * (50 * back + 1)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody hangs"
        assert not failures, failures
        store.core.check_invariants()


def test_values_that_are_no_bytes_are_refused_without_dumps() -> None:
    device = hw.open_device("memory:64KiB", writable=True)
    with hw.Zone("64KiB", min_free=0) as zone:
        swap = hw.Swap(device, slot_size=4096)
        with pytest.raises(hw.UsageError, match="dumps="):
            hw.SpillStore(swap, memory=zone, dumps=pickle.dumps)
        with (
            hw.SpillStore(swap, memory=zone) as store,
            pytest.raises(hw.UsageError, match="dumps="),
        ):
            store["a"] = {"no": "bytes"}
        with hw.SpillStore(swap, memory=zone) as store:
            store["empty"] = b""
            store["view"] = memoryview(bytearray(b"abc"))
            assert store["empty"] == b"" and store["view"] == b"abc"


def test_nothing_is_swapped_out_for_others_while_there_is_clean_cache() -> None:
    """Page classes (issue of 2001): clean pages go first; swapping begins below a floor of clean cache."""
    with hw.Zone("1MiB", min_free=0) as zone:
        swap = hw.Swap(hw.open_device("memory:4MiB"), slot_size=4096)
        cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
        buffers = zone.buffers("4KiB")
        with hw.SpillStore(swap, memory=zone) as store:
            for number in range(150):
                store[number] = bytes(4096)
            for number in range(300):
                cache[number] = bytes(4096)
            for number in cache:
                cache.get(number)  # all in use: it gives little at first
            asked = ScanControl(hw.Gfp.KERNEL, 0, "somebody")
            assert store._registered.shrinker.count_objects(asked) == 0
            while not zone.stats().swap_due:
                assert zone.reclaim("40KiB") > 0 and store.stats().written == 0
            assert store._registered.shrinker.count_objects(asked) == 150
            held = [buffers.alloc() for _ in range(150)]
            assert None not in held and store.stats().written > 0, "then its pages are had"
            for view in held:
                assert view is not None
                buffers.free(view)
            assert all(store[number] == bytes(4096) for number in range(150))
