"""`headway.copying.copy`: several copies in one process share one zone, and starve."""

import hashlib
import random
import threading

import pytest

import headway as hw
from headway.copying import copy


@pytest.mark.parametrize(("starve", "in_flight"), [(False, 2), (True, None)])
def test_copies_that_share_a_zone_all_end_right(tmp_path, starve, in_flight):
    zone = hw.Zone("8MiB", min_free=0)
    reports = {}

    def one(n):
        reports[n] = copy(
            tmp_path / f"source{n}",
            tmp_path / f"target{n}",
            zone=zone,
            starve=starve,
            in_flight=in_flight,
        )

    threads = [threading.Thread(target=one, args=(n,)) for n in range(3)]
    for n in range(3):
        (tmp_path / f"source{n}").write_bytes(random.Random(n).randbytes((9 << 20) + n))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(3):
        data = (tmp_path / f"source{n}").read_bytes()
        assert (tmp_path / f"target{n}").read_bytes() == data
        assert reports[n].sha256 == hashlib.sha256(data).hexdigest()
        assert reports[n].memory_limit == 8 << 20
        if starve:
            assert reports[n].reserve_uses > 0 and reports[n].memory_peak <= 2 << 20
    zone.close()  # raises if a buffer did not come home


def test_a_zone_too_small_for_one_more_copy_is_refused_and_stays_usable(tmp_path):
    zone = hw.Zone("2MiB", min_free=0)
    held = zone.buffers("1MiB")
    one = held.alloc()
    with pytest.raises(hw.NoMemory):
        copy("zero:5MiB", tmp_path / "target", zone=zone)
    assert list(tmp_path.iterdir()) == []
    held.free(one)
    assert copy("zero:5MiB", tmp_path / "target", zone=zone, in_flight=1).bytes == 5 << 20
    held.close()
    zone.close()


def test_the_least_that_works_works(tmp_path):
    for memory, request in (("4KiB", "4KiB"), ("4MiB", "3MiB"), (5_000_000, "1MiB")):
        report = copy("zero:6MiB", "null:", memory=memory, request_size=request)
        assert report.memory_peak <= report.memory_limit


def test_an_interrupted_copy_of_a_hole_does_not_hash_it_to_its_end(tmp_path):
    source = tmp_path / "hole"
    with open(source, "wb") as file:
        file.truncate(1 << 42)  # an hour of hashing: the run's time limit would end this test

    def interrupt(stage, done, size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, "null:", progress=interrupt)


def test_a_copy_takes_its_frames_from_a_zone_that_is_full_of_cache(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * (8 << 12))
    with hw.Zone("8MiB") as zone:
        cache = hw.ShrinkableCache[int, bytes](zone, cost=len)
        for key in range(2000):
            cache[key] = bytes(5000)
        assert zone.stats().clean > 6 << 20
        for starve in (False, True):
            report = copy(source, target, memory="4MiB", zone=zone, starve=starve, verify=True)
            assert report.verified and target.read_bytes() == source.read_bytes()
            assert report.memory_peak <= 4 << 20
        assert zone.stats().held == 0
