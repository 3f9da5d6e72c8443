"""`headway.copying.copy`: several copies in one process share one zone, and starve."""

import hashlib
import random
import struct
import threading

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block.copier import Sequence
from headway.core.block.device import Extent
from tests.core.block.layers.qcow2image import image


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


@pytest.mark.parametrize("starve", [False, True])
@pytest.mark.parametrize(
    "layers",
    [
        ["bounce,buffer=64KiB"],
        ["linear,offset=12KiB", "bounce,buffer=16KiB,reserve=1"],
        ["mirror,leg={leg}", "flaky,up=1000000", "delay,seconds=0.0001"],
        ["stripe,with={leg},chunk=32KiB"],
    ],
    ids="+".join,
)
def test_a_copy_through_layers_keeps_every_byte_and_its_limit(tmp_path, layers, starve):
    data = random.Random(7).randbytes((2 << 20) + 12345)
    (tmp_path / "source").write_bytes(data)
    (tmp_path / "leg").write_bytes(bytes(len(data) + (1 << 20)))
    specs = [spec.format(leg=tmp_path / "leg") for spec in layers]
    report = copy(
        tmp_path / "source",
        tmp_path / "target",
        memory="1MiB",
        request_size="128KiB",
        layers=specs,
        verify=True,
        starve=starve,
    )
    assert report.sha256 == hashlib.sha256(data).hexdigest() and report.verified
    assert report.memory_peak <= 1 << 20
    with hw.open_stack(str(tmp_path / "target"), specs, writable=True) as device:
        view = memoryview(bytearray(len(data)))
        device.pread_into(view, 0)
        assert bytes(view) == data
    if specs[0].startswith("mirror"):
        assert (tmp_path / "leg").read_bytes()[: len(data)] == data


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (["cheese"], "layer 'cheese' is not known"),
        (["linear,size=4KiB"], "choose a larger destination"),
        (["error"], "this range was made to fail"),
    ],
)
def test_layers_that_cannot_be_leave_nothing_behind(tmp_path, layers, says):
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    with pytest.raises(hw.HeadwayError, match=says):
        copy(
            tmp_path / "source",
            tmp_path / "target",
            memory="1MiB",
            request_size="64KiB",
            layers=layers,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_layers_that_need_more_than_the_limit_say_so(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    with pytest.raises(hw.UsageError, match="256KiB for 'bounce 1' can never be had"):
        copy(
            tmp_path / "source",
            tmp_path / "t",
            memory="64KiB",
            request_size="4KiB",
            layers=["bounce"],
        )


@pytest.mark.parametrize("leg", ["source", "target", "link", "leg"])
def test_no_layer_writes_to_the_source_or_to_the_old_destination(tmp_path, leg):
    (tmp_path / "source").write_bytes(b"precious" * 1000)
    (tmp_path / "target").write_bytes(b"old" * 3000)
    (tmp_path / "link").symlink_to("source")
    (tmp_path / "leg").write_bytes(bytes(9000))
    specs = [f"mirror,leg={tmp_path / 'leg'},leg={tmp_path / leg}"]
    with pytest.raises(hw.UsageError, match="would be used twice"):
        copy(
            tmp_path / "source",
            tmp_path / "target",
            memory="1MiB",
            request_size="64KiB",
            layers=specs,
        )
    assert (tmp_path / "source").read_bytes() == b"precious" * 1000
    assert (tmp_path / "target").read_bytes() == b"old" * 3000


def test_null_takes_what_went_through_layers(tmp_path):
    report = copy(
        "zero:1MiB",
        "null:",
        memory="1MiB",
        request_size="64KiB",
        layers=["bounce,buffer=64KiB", "linear"],
    )
    assert report.bytes == 1 << 20


def test_a_source_is_read_through_its_layers_in_the_same_limit(tmp_path):
    """Out of what was encrypted; with the layer's reserves in the count."""
    (tmp_path / "plain").write_bytes(random.Random(5).randbytes(3 << 20))
    (tmp_path / "key").write_bytes(bytes(range(64)))
    (tmp_path / "key").chmod(0o600)
    crypt = [f"crypt,format=plain,key-file={tmp_path / 'key'}"]
    copy(tmp_path / "plain", tmp_path / "secret", layers=crypt)
    for starve in (False, True):
        report = copy(
            tmp_path / "secret",
            tmp_path / "again",
            source_layers=crypt,
            memory="2MiB",
            request_size="256KiB",
            starve=starve,
            verify=True,
        )
        assert (tmp_path / "again").read_bytes() == (tmp_path / "plain").read_bytes()
        assert report.memory_peak <= 2 << 20 and report.verified
    both = copy(tmp_path / "secret", tmp_path / "twice", source_layers=crypt, layers=crypt)
    assert both.bytes == 3 << 20
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "secret").read_bytes()


def test_source_layers_that_leave_no_room_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "source").write_bytes(bytes(1 << 20))
    with pytest.raises(hw.UsageError, match="a memory limit of"):
        copy(tmp_path / "source", tmp_path / "target", source_layers=["bounce"], memory="1MiB")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nothing_of_the_source_is_written_to(tmp_path):
    """Neither by a layer of the destination, nor by the destination itself."""
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"below" * 1000)
    top.write_bytes(image([("nowhere", b"")] * 8, backing="base", form="raw"))
    through = [f"qcow2,backing={base}"]
    for target, layers in ((tmp_path / "out", [f"mirror,leg={base}"]), (base, []), (top, [])):
        with pytest.raises(hw.UsageError, match=r"twice|what the source is made of"):
            copy(top, target, source_layers=through, layers=layers)
    assert base.read_bytes() == b"below" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "top"]


def test_holes_in_a_row_are_one_piece_and_an_end_is_heard_between_them():
    asked = []

    def extent(offset):
        asked.append(offset)
        return Extent(offset + 512, offset % 102400 != 51200)  # one in 200 has data

    sequence = Sequence(1 << 20, 4096, extent, keep_holes=True)
    pieces = []
    while (piece := sequence.take()) is not None:
        assert len(asked) <= 66, "a piece asks for so many at most"
        asked.clear()
        pieces.append(piece)
    assert [p.offset + p.length for p in pieces[:-1]] == [p.offset for p in pieces[1:]]
    assert pieces[0].offset == 0 and pieces[-1].offset + pieces[-1].length == 1 << 20
    assert [p.offset for p in pieces if not p.hole] == list(range(51200, 1 << 20, 102400))
    assert len(pieces) < 60


def test_a_table_that_no_limit_would_count_is_refused(tmp_path):
    data = image([("here", b"x")])
    struct.pack_into(">Q", data, 24, 1 << 37)
    struct.pack_into(">I", data, 36, 1 << 22)
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(hw.UsageError, match="no limit would count"):
        copy(tmp_path / "image", "null:", source_layers=["qcow2"])
