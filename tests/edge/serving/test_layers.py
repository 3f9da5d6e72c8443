"""Stacks of layers behind the server: what legs do to clients, what clients do to legs, and what comes home."""

import contextlib
import struct
import threading

import pytest

from headway.core.block.layers.mirror import Mirror
from headway.core.block.legs import ACTIVE, DROPPED
from headway.devices import open_stack
from headway.edge.memory_devices import MemoryDevice
from headway.edge.quick import quick_of
from headway.errors import NoMemory, UsageError
from headway.exports import open_exports
from headway.server import serve
from tests.edge.serving.served import DATA, SIZE, Waiting, make
from tests.nbd_client import CACHE, EINVAL, EIO, ENOSPC, FLUSH, READ, TRIM, WRITE, ZERO, connect

FUA, NO_HOLE = 1, 2


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(DATA)
    return path


@contextlib.contextmanager
def served(image, *layers, memory="8MiB"):
    """The socket and the stack; afterwards every frame is home, and every stack is closed."""
    exports = open_exports([str(image)], read_only=False, layers=layers, memory=8 << 20)
    place = image.parent / "front"
    server = serve(exports, listen=f"unix:{place}", memory=memory)
    server.start()
    try:
        yield place, exports[""]
    finally:
        report = server.stop()
    if server._failure is not None:
        raise server._failure
    assert server._loop.frames_out == 0 and not report.abandoned
    assert report.memory_peak <= report.memory_limit == 8 << 20
    assert exports[""]._closed and all(site.closed for site in pools_of(exports[""]))


def pools_of(device):
    return [pool for site in device.stack.sites for pool in site.pools]


@contextlib.contextmanager
def behind(device, path):
    """A second server, whose device is a leg of the first."""
    server = serve(device, listen=f"unix:{path}", memory="1MiB")
    with server as uri:
        yield uri


def mirror_of(device):
    layer = device.stack.top
    while not isinstance(layer, Mirror):
        layer = layer.below[0]
    return layer


def states(device):
    return [leg.state for leg in mirror_of(device).legs.all]


FIVE = [
    "linear,offset=4KiB",
    "stripe,with={0},chunk=64KiB",
    "mirror,leg={1}",
    "bounce,buffer=64KiB",
    "linear,size=2MiB",
]


def five(tmp_path):
    """Five layers on three files more or less; the specifications."""
    for name, size in (("stripe", SIZE), ("leg", 2 * SIZE)):
        (tmp_path / name).write_bytes(bytes(size))
    return [layer.format(tmp_path / "stripe", tmp_path / "leg") for layer in FIVE]


def test_every_command_goes_through_five_layers(image, tmp_path):
    with served(image, *five(tmp_path)) as (place, device):
        client = connect(place)
        assert client.size == 2 << 20
        assert client.write(0, DATA[: 2 << 20]) == b""
        assert client.write(70_000, b"durable", FUA) == b""
        assert (
            client.read(60_000, 200_000) == DATA[60_000:70_000] + b"durable" + DATA[70_007:260_000]
        )
        assert client.ask(ZERO, 1000, 300_000) == b""
        assert client.ask(ZERO, 400_000, 100_000, flags=NO_HOLE) == b""
        assert client.read(999, 300_002) == DATA[999:1000] + bytes(300_000) + DATA[301_000:301_001]
        assert client.read(400_000, 100_001) == bytes(100_000) + DATA[500_000:500_001]
        assert client.ask(TRIM, 1 << 20, 1 << 19) == b""
        assert client.ask(CACHE, 0, 1 << 20) == b"" == client.ask(FLUSH)
        assert client.ask(READ, (2 << 20) - 1, 2) == EINVAL
        assert client.write((2 << 20) - 1, b"xx") == ENOSPC
        assert client.read(600_000, 400_000) == DATA[600_000:1_000_000]
        client.close()
        assert states(device) == [ACTIVE, ACTIVE]


def test_reads_and_writes_that_are_quick_pass_all_layers_in_the_loops_thread(image, tmp_path):
    """In memory here, so quick: the workers see none of them, and no bio of the stack is out."""
    exports = open_exports(
        ["memory:1MiB"], read_only=False, layers=["linear,offset=4KiB", "bounce"]
    )
    quick, device = quick_of(exports[""]), exports[""]
    view = memoryview(bytearray(5000))
    assert device.prompt and quick.write_now(memoryview(DATA[:5000]), 3) and quick.read_now(view, 3)
    assert bytes(view) == DATA[:5000]
    assert not quick.read_now(memoryview(bytearray(1 << 19)), 0)  # has to be split: a plan
    exports.close()
    ordinary = open_stack(str(image), ["linear"])
    assert not ordinary.prompt  # its file is read at once, in the page cache or not
    assert not quick_of(ordinary).read_now(view, 0)
    ordinary.close()


def test_a_failure_met_by_the_loop_is_met_again_by_the_worker(image):
    with served(image, "flaky,up=1,down=1", "error,offset=1MiB,size=512") as (place, _):
        client = connect(place)
        answers = [client.read(0, 512) for _ in range(6)]
        assert answers == [DATA[:512], EIO] * 3
        assert client.read((1 << 20) + 100, 10) == EIO
        client.close()


def test_a_leg_that_fails_while_mirroring_is_dropped_and_no_client_notices(image, tmp_path):
    leg = make(Waiting)
    with (
        behind(leg, tmp_path / "back") as uri,
        served(image, f"mirror,leg={uri}") as (place, device),
    ):
        clients = [connect(place) for _ in range(3)]
        for number, client in enumerate(clients):
            assert client.write(number * 100_000, b"a" * 90_000) == b""
        assert states(device) == [ACTIVE, ACTIVE]
        leg.bad = range(SIZE)
        cookies = [
            [
                client.send(WRITE, n * 1_000_000 + k * 40_000, payload=b"b" * 40_000)
                for k in range(8)
            ]
            for n, client in enumerate(clients)
        ]
        for client, sent in zip(clients, cookies, strict=True):
            assert sorted(client.reply()[:2] for _ in sent) == [(cookie, 0) for cookie in sent]
        assert states(device) == [ACTIVE, DROPPED]
        for number, client in enumerate(clients):
            assert client.read(number * 1_000_000, 320_000) == b"b" * 320_000
            assert client.ask(FLUSH) == b""
            client.close()
    assert image.read_bytes()[:320_000] == b"b" * 320_000


def test_a_leg_whose_peer_freezes_is_dropped_when_its_time_is_over(image, tmp_path):
    leg = make(Waiting)
    with (
        behind(leg, tmp_path / "back") as uri,
        served(image, f"mirror,leg={uri},deadline=0.3") as (place, device),
    ):
        writer, reader = connect(place), connect(place)
        assert writer.write(0, b"both") == b""
        leg.gate.clear()
        cookies = [writer.send(WRITE, n * 5000, payload=b"x" * 5000) for n in range(6)]
        assert reader.read(1 << 20, 5000) == DATA[1 << 20 :][:5000]  # while the writes wait
        assert sorted(writer.reply()[:2] for _ in cookies) == [(cookie, 0) for cookie in cookies]
        assert states(device) == [ACTIVE, DROPPED]
        assert writer.write(40_000, b"alone") == b"" == writer.ask(FLUSH)
        assert reader.read(40_000, 5) == b"alone" and reader.read(0, 5000) == b"x" * 5000
        writer.close()
        reader.close()
        leg.gate.set()


def test_a_client_killed_in_the_middle_of_a_write_leaves_equal_legs(image, tmp_path):
    (tmp_path / "leg").write_bytes(DATA)
    layers = [f"mirror,leg={tmp_path / 'leg'},window=64KiB", "bounce,buffer=16KiB"]
    with served(image, *layers) as (place, device):
        stays = connect(place)
        for length in (1 << 10, 1 << 14, 1 << 18, 1 << 20):
            for part in (0, 1, length // 3, length - 1):
                client = connect(place)
                head = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, length)
                client.sock.sendall(head + b"?" * part)
                client.close()
        assert stays.write(2 << 20, b"stays" * 1000) == b""
        assert stays.read(2 << 20, 5000) == b"stays" * 1000
        assert stays.read((1 << 20) - 1, 1) == DATA[(1 << 20) - 1 : 1 << 20]  # never sent
        assert stays.ask(FLUSH) == b""
        stays.close()
        assert states(device) == [ACTIVE, ACTIVE]
    assert image.read_bytes() == (tmp_path / "leg").read_bytes()


def test_a_stop_does_not_wait_for_a_leg_that_is_being_filled(image, tmp_path):
    leg = make(Waiting)
    with behind(leg, tmp_path / "back") as uri:
        leg.gate.clear()
        exports = open_exports(
            [str(image)], read_only=False, layers=[f"mirror,leg={uri},sync=yes,deadline=20"]
        )
        server = serve(exports, listen=f"unix:{tmp_path}/front")
        server.start()
        client = connect(tmp_path / "front")
        assert client.read(0, 4096) == DATA[:4096]
        client.close()
        assert server.stop().abandoned == 0  # and is back here, long before the 20 seconds are over
        assert mirror_of(exports[""]).resync.synced_bytes == 0
        leg.gate.set()


# -- what is opened together ---------------------------------------------------------------------------


def test_no_device_is_served_twice_where_there_are_layers(image, tmp_path):
    (tmp_path / "leg").write_bytes(DATA)
    with pytest.raises(UsageError, match="would be used twice"):
        open_exports([f"a={image}", f"b={image}"], read_only=False, layers=["linear"])
    with pytest.raises(UsageError, match="would be used twice"):
        layers = [f"mirror,leg={tmp_path / 'leg'}"]
        open_exports([f"a={image}", "b=memory:3MiB"], read_only=False, layers=layers)
    open_exports([f"a={image}", f"b={image}"], read_only=False).close()


def test_layers_have_a_quarter_of_the_memory_and_no_more(image):
    exports = open_exports([str(image)], read_only=False, layers=["linear"], memory=4 << 20)
    assert exports.memory_bytes == 0  # nobody needs any
    exports.close()
    layers = ["bounce,buffer=256KiB,reserve=4"]
    exports = open_exports([str(image)], read_only=False, layers=layers, memory=4 << 20)
    assert exports.memory_bytes == 1 << 20
    server = serve(exports, listen="tcp::0", memory=4 << 20)
    assert "3MiB" in repr(server)
    server.stop()
    with pytest.raises(NoMemory, match="a quarter of --memory"):
        open_exports([str(image)], read_only=False, layers=[*layers, "bounce"], memory=4 << 20)
    with pytest.raises(UsageError, match="can never be had"):
        open_exports([str(image)], read_only=False, layers=["bounce"], memory=1 << 19)


def test_a_stack_that_a_program_has_made_is_served_too(tmp_path):
    device = MemoryDevice(SIZE)
    device.pwrite(memoryview(DATA), 0)
    stack = open_stack(device, ["linear,offset=1KiB", "bounce"], writable=True)
    with serve(stack, listen=f"unix:{tmp_path}/x") as uri:
        client = connect(uri)
        assert client.read(0, 300_000) == DATA[1024:301_024]
        assert client.write(0, b"new", FUA) == b""
        client.close()
    assert stack._closed
    view = memoryview(bytearray(3))
    device.pread_into(view, 1024)
    assert bytes(view) == b"new"


@pytest.mark.parametrize("layers", [[], ["integrity,create=yes"]], ids=["bare", "integrity"])
@pytest.mark.parametrize("starve", [False, True])
def test_a_served_stack_goes_on_when_no_thread_can_be_started(image, monkeypatch, layers, starve):
    """What may wait is done by workers that are there already; a flush that fails would fail for good."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    with open_stack(str(image), layers, writable=True, prompt=True, starve=starve) as device:
        monkeypatch.setattr(threading.Thread, "start", start)
        for number in range(3):
            device.pwrite(memoryview(bytes([number + 1]) * 4096), 4096 * number)
            device.flush()
            assert device.zero(8192, 4096)
        device.flush()
        view = memoryview(bytearray(12288))
        device.pread_into(view, 0)
        monkeypatch.undo()
    assert view == b"\1" * 4096 + b"\2" * 4096 + bytes(4096)
