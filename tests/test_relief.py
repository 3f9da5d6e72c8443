"""A zone under pressure from outside: real memory goes to the system and comes back, floors stay."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import headway as hw
from headway.edge.arena import PAGE_BYTES
from headway.relief import Relief
from tests.edge.test_pressure import mib, v1, write
from tests.edge.test_pressure_signal import told


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def zone_of(size: str = "64MiB", **options: object) -> hw.Zone:
    return hw.Zone(size, min_free=0, huge=False, **options)  # type: ignore[arg-type]


def anonymous(root: Path, used: float) -> None:
    write(root, {"sys/fs/cgroup/memory/pod/memory.stat": f"total_rss {mib(used)}\n"})


def test_memory_really_goes_and_comes_back() -> None:
    with zone_of() as zone:
        full = resident_bytes()
        assert zone.give_back("48MiB") == 48 << 20
        stats = zone.stats()
        assert (stats.given_back, stats.held, stats.free) == (48 << 20, 0, 16 << 20)
        assert full - resident_bytes() > 40 << 20
        buffers = zone.buffers("1MiB")
        held = [buffers.alloc() for _ in range(16)]
        assert all(view is not None for view in held)
        assert zone.take_back() == 48 << 20 and resident_bytes() > full - (8 << 20)
        assert zone.stats().given_back == 0
        for view in held:
            assert view is not None
            buffers.free(view)


def test_what_was_lent_before_is_lent_again_as_the_same_view() -> None:
    with zone_of("8MiB") as zone:
        buffers = zone.buffers("4MiB")
        first = [buffers.alloc(), buffers.alloc()]
        for view in first:
            assert view is not None
            view[:] = b"x" * len(view)
            buffers.free(view)
        assert zone.give_back("8MiB") == 8 << 20 and zone.take_back() == 8 << 20
        again = [buffers.alloc(), buffers.alloc()]
        assert {id(view) for view in again} == {id(view) for view in first}
        for view in again:
            assert view is not None and not any(view)
            buffers.free(view)


def test_caches_make_room_and_floors_stay() -> None:
    with zone_of() as zone:
        frames: hw.Mempool[memoryview] = hw.Mempool(
            zone.buffers("1MiB", floor="8MiB"), min_count=2, name="frames"
        )
        cache: hw.ShrinkableCache[int, bytes] = hw.ShrinkableCache(zone, cost=len)
        for key in range(60):
            cache[key] = bytes(1 << 20)
        given = zone.give_back("1GiB")
        assert given == 56 << 20 and len(cache) == 0
        held = [frames.alloc() for _ in range(8)]
        assert zone.stats().given_back == 56 << 20, "the floor was there all the time"
        held += [frames.alloc() for _ in range(4)]
        assert zone.stats().given_back < 56 << 20, "beyond it, one's own requests come first"
        frames.free_bulk(held)
        frames.close()


@pytest.mark.parametrize("option", ["debug", "lock"])
def test_a_zone_that_must_not_change_gives_nothing(option: str) -> None:
    try:
        zone = zone_of("1MiB", **{option: True})
    except hw.NoMemory:
        pytest.skip("this system locks no memory for us")
    with zone:
        assert zone.give_back("1MiB") == 0 and zone.take_back() == 0


def test_relief_follows_the_limit_of_a_group(tmp_path: Path) -> None:
    root = v1(tmp_path, limit=mib(256))
    anonymous(root, 100)
    with (
        zone_of() as zone,
        Relief(zone, root=root, environ={}, thread=False, margin="32MiB", calm_s=0) as relief,
    ):
        assert relief.look() == 0
        anonymous(root, 240)
        assert relief.look() == 16 << 20, "what is missing from the margin"
        anonymous(root, 224)
        assert relief.look() == 0
        anonymous(root, 190)
        assert relief.look() == -(2 << 20), "an eighth; and 2 x 32MiB stay outside"
        assert relief.look(pressed=True) > 0
        stats = relief.stats()
        assert (stats.looks, stats.pressed, stats.how) == (5, 2, "polling")
        assert "Relief of zone 'zone' by polling" in repr(relief)


def test_relief_is_told_by_systemd(tmp_path: Path) -> None:
    """The whole way: bytes in a FIFO, a thread that wakes up, memory that goes."""
    import os

    os.mkfifo(tmp_path / "f")
    gone = threading.Event()

    class Spares:
        """A shrinker only so that the test hears of it."""

        def count_objects(self, control: object) -> int:
            gone.set()
            return 0

        def scan_objects(self, control: object) -> int:
            return hw.STOP

    with zone_of("8MiB") as zone:
        frames = zone.buffers("1MiB")
        held = [frames.alloc() for _ in range(8)]
        zone.register_shrinker(Spares())
        with Relief(
            zone, root=tmp_path, environ=told(tmp_path / "f", b""), look_s=60, margin=0
        ) as relief:
            assert relief.stats().how == "systemd" and not gone.is_set()
            (tmp_path / "f").write_bytes(b"!")
            assert gone.wait(60)
        assert relief.stats().pressed == 1
        for view in held:
            assert view is not None
            frames.free(view)


def test_nonsense_is_refused() -> None:
    with zone_of("1MiB") as zone:
        with pytest.raises(hw.UsageError, match="look_s=0"):
            Relief(zone, look_s=0)
        relief = Relief(zone)
        relief.close()
        relief.close()
