"""Arrays in a zone: they are NumPy's in every respect, come back with the last view, and cause no faults."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest

import headway as hw
from tests.house import tree

numpy = pytest.importorskip("numpy")


def zone_of(size: str = "8MiB", **options: Any) -> hw.Zone:
    return hw.Zone(size, min_free=0, **options)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (1000, float),
        ((100, 200), "f4"),
        ((3, 4, 5), "i2"),
        ((), "u1"),
        (7, "c16"),
        ((2, 3), [("a", "i4"), ("b", "f8")]),
    ],
)
def test_it_is_an_array_like_any_other(shape: Any, dtype: Any) -> None:
    with zone_of() as zone:
        array = zone.ndarray(shape, dtype)
        like = numpy.empty(shape, dtype)
        assert (array.shape, array.dtype, array.strides) == (like.shape, like.dtype, like.strides)
        assert array.flags.writeable and array.flags.c_contiguous
        assert array.ctypes.data % 4096 == 0 and zone.stats().held >= array.nbytes
        array[...] = numpy.zeros(shape, dtype)
        del array
        assert zone.stats().held == 0


def test_it_comes_back_with_the_last_thing_made_from_it() -> None:
    with zone_of() as zone:
        array = zone.ndarray((1024, 1024), "u1")
        corner, flat = array[:3, :3], array.reshape(-1)[5:]
        exported = memoryview(array)
        turned = corner.T.view("i1")
        del array, corner, flat
        gc.collect()
        assert zone.stats().held == 1 << 20
        del exported
        assert zone.stats().held == 1 << 20
        with pytest.raises(hw.PoolBusy, match="1 buffers out"):
            zone.close()
        del turned
        assert zone.stats().held == 0


def test_a_cycle_gives_it_back_too() -> None:
    with zone_of() as zone:
        kept: list[Any] = [zone.ndarray(1 << 20, "u1")]
        kept.append(kept)
        del kept
        gc.collect()
        assert zone.stats().held == 0


def test_zero_is_asked_for() -> None:
    with zone_of("1MiB") as zone:
        dirty = zone.ndarray(1 << 20, "u1")
        dirty[:] = 255
        del dirty
        assert not zone.ndarray(1 << 20, "u1", gfp=hw.Gfp.KERNEL | hw.Gfp.ZERO).any()


def test_caches_make_room_and_a_full_zone_says_so() -> None:
    with zone_of("4MiB") as zone:
        cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
        for key in range(400):
            cache[key] = bytes(10_000)
        held = [zone.ndarray(1 << 20, "u1") for _ in range(4)]
        assert len(cache) == 0
        with pytest.raises(
            hw.NoMemory, match=r"array of shape \(1048576,\), uint8: 1MiB is not to be had"
        ):
            zone.ndarray((1 << 20,), "u1")
        del held[0]
        assert zone.ndarray(1 << 20, "u1").nbytes == 1 << 20
        held.clear()


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        (3, object, "objects cannot lie"),
        ((-1, 2), "u1", "negative"),
        (1 << 30, "u1", "can never be had"),
    ],
)
def test_what_cannot_be_is_refused(shape: Any, dtype: Any, said: str) -> None:
    with zone_of() as zone, pytest.raises(hw.UsageError, match=said):
        zone.ndarray(shape, dtype)


def test_nothing_takes_nothing() -> None:
    with zone_of() as zone:
        assert zone.ndarray((0, 5)).shape == (0, 5) and zone.stats().user_count == 0


def test_debug_mode_refuses() -> None:
    with zone_of("1MiB", debug=True) as zone:
        with pytest.raises(hw.UsageError, match="debug mode"):
            zone.ndarray(5)


def test_a_steady_state_has_no_page_faults_and_pressure_takes_what_is_free() -> None:
    resource = pytest.importorskip("resource")
    with zone_of("32MiB") as zone:

        def work() -> int:
            before: int = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(50):
                one = zone.ndarray(1 << 20, "f8")
                one[:] = 1.5
            return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt) - before

        work()
        assert work() < 100, "50 x 2048 pages were written to"
        held = zone.ndarray(1 << 20, "f8")
        assert zone.give_back("32MiB") == 24 << 20
        held[:] = 2.0
        assert zone.take_back() == 24 << 20 and work() < 100
        del held


def test_without_numpy_it_names_the_extra() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(tree.SRC)!r}); sys.modules['numpy'] = None; import headway as hw\n"
        "try: hw.Zone('1MiB').ndarray(5)\n"
        "except hw.errors.MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "headway[numpy]" in done.stdout
