"""The client device against servers: ours, one that freezes, one that lies, one that goes away."""

import contextlib
import errno
import random
import socket
import threading

import pytest

import headway as hw
from headway.copying import copy
from headway.core.block.device import Extent, Kind
from headway.edge import nbd_client
from headway.edge.memory_devices import MemoryDevice
from headway.edge.nbd_uri import parse_uri
from headway.errors import BlockError, UsageError
from headway.exports import open_exports
from headway.server import serve

SIZE = (3 << 20) + 77
DATA = random.Random(9).randbytes(SIZE)


@pytest.fixture
def place(tmp_path):
    return f"unix:{tmp_path}/s"


def memory_device(data=DATA):
    device = MemoryDevice(len(data))
    device.pwrite(memoryview(data), 0)
    return device


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_reads_and_writes_what_is_served(place, where):
    served = memory_device()
    with serve({"a/b ü": served}, listen=place if where == "unix" else "tcp::0") as uri:
        device = hw.open_device(uri, writable=True, deadline_s=20)
        assert (device.size, device.capacity, device.kind.value) == (SIZE, SIZE, "network")
        view = memoryview(bytearray(SIZE))
        device.pread_into(view, 0)
        assert view == DATA
        device.pwrite(view[5:500_000], 1000)
        device.flush()
        device.pread_into(view[: SIZE - 1000], 1000)
        assert view[:499_995] == DATA[5:500_000]
        assert device.extent(0).end == SIZE
        device.close()


def test_several_threads_use_several_connections(place):
    with serve(memory_device(), listen=place) as uri:
        device = hw.open_device(uri)
        wrong = []

        def read(start):
            view = memoryview(bytearray(5000))
            for offset in range(start, SIZE - 5000, 50_000):
                device.pread_into(view, offset)
                if view != DATA[offset : offset + 5000]:
                    wrong.append(offset)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert 1 <= device._count <= 4 and len(device._idle) == device._count
        device.close()
        with pytest.raises(BlockError, match="closed"):
            device.pread_into(memoryview(bytearray(1)), 0)


def test_the_servers_refusals_have_their_numbers(place):
    with serve(memory_device(), listen=place, read_only=True) as uri:
        with pytest.raises(BlockError, match="read-only on its server") as caught:
            hw.open_device(uri, writable=True)
        assert caught.value.errno == errno.EROFS
        device = hw.open_device(uri)
        device.capacity = SIZE  # a caller that does not look
        with pytest.raises(BlockError, match="operation not permitted") as caught:
            device.pwrite(memoryview(b"x"), 3)
        assert (caught.value.errno, caught.value.offset) == (errno.EPERM, 3)
        device.pread_into(memoryview(bytearray(1)), 0)  # it lives on
        device.close()
        with pytest.raises(BlockError, match="refuses export 'other'"):
            hw.open_device(uri.replace("///?", "///other?"))


def test_no_server_there(tmp_path):
    with pytest.raises(BlockError, match="cannot open nbd"):
        hw.open_device(f"nbd+unix:///?socket={tmp_path}/nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BlockError, match=r"[Cc]onnection refused"):
        hw.open_device(f"nbd://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "uri",
    [
        *[
            "nbd:///x",
            "nbd+unix:///x",
            "nbd+unix://host/x?socket=s",
            "nbd://h:99999/",
            "nbd://[::1/",
        ],
        *[f"nbd://{'h' * 70}/x", "nbds://a..b/x"],
    ],
)
def test_what_is_no_uri(uri):
    with pytest.raises(UsageError) as caught:
        parse_uri(uri)
    assert "\n" not in str(caught.value)


def test_what_uris_say():
    assert parse_uri("nbd://h/").port == 10809
    assert parse_uri("nbd://[::1]:5/a%20b").host == "::1"
    assert parse_uri("nbd://[::1]:5/a%20b").export == "a b"
    assert parse_uri("nbd+unix:///e?socket=/x%20y").path == "/x y"


class Freezing:
    """Passes on what is said between a client and a server, till it is told not to."""

    def __init__(self, path, to):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.to = to
        self.frozen = False
        self.socks = [self.listener]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                here = self.listener.accept()[0]
                there = socket.socket(socket.AF_UNIX)
                there.connect(self.to)
                self.socks += [here, there]
                for way in ((here, there), (there, here)):
                    threading.Thread(target=self.move, args=way, daemon=True).start()

    def move(self, source, target):
        try:
            while data := source.recv(65536):
                if not self.frozen:
                    target.sendall(data)
        except OSError:
            pass

    def hang_up(self):
        """On those who are connected."""
        for sock in self.socks[1:]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # a thread is in `accept`
        self.hang_up()
        for sock in self.socks:
            sock.close()


def test_a_server_that_freezes_is_left_at_the_deadline(place, tmp_path):
    with serve(memory_device(), listen=place):
        between = Freezing(f"{tmp_path}/b", f"{tmp_path}/s")
        device = hw.open_device(f"nbd+unix:///?socket={tmp_path}/b", deadline_s=0.3)
        view = memoryview(bytearray(10))
        device.pread_into(view, 0)
        between.frozen = True
        with pytest.raises(BlockError, match=r"did not answer within 0.3 s") as caught:
            device.pread_into(view, 5)
        assert caught.value.errno == errno.ETIMEDOUT
        between.frozen = False
        with pytest.raises(BlockError, match=r"did not answer"):  # it is not asked again
            device.pread_into(view, 5)
        device.close()
        between.close()


def test_a_server_that_goes_away_is_an_error_for_ever(place):
    server = serve(memory_device(), listen=place)
    server.start()
    device = hw.open_device(server.uris[0], writable=True)
    device.pwrite(memoryview(b"x"), 0)
    server.stop(0.1)
    with serve(memory_device(), listen=place):  # it has forgotten what was not flushed
        with pytest.raises(BlockError):
            device.flush()
        with pytest.raises(BlockError):
            device.flush()
    device.close()


@pytest.mark.parametrize("direction", ["from", "to", "both"])
def test_copies_go_from_and_to_servers(tmp_path, direction):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    target.write_bytes(bytes(SIZE))
    exports = open_exports([f"s={source}", f"t={target}"], read_only=False)
    server = serve(exports, listen=f"unix:{tmp_path}/x")
    server.start()
    there, back = server.uris
    src = str(source) if direction == "to" else there
    dst = str(target) if direction == "from" else back
    report = copy(src, dst, memory="4MiB", verify=True)
    assert report.bytes == SIZE and report.verified
    server.stop()
    assert target.read_bytes() == DATA


def test_a_server_that_is_too_small_or_read_only_is_refused_as_a_destination(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(DATA)
    with serve(MemoryDevice(1 << 20), listen=f"unix:{tmp_path}/x") as uri:
        with pytest.raises(UsageError, match="nothing was written"):
            copy(source, uri)
    with serve(MemoryDevice(4 << 20), listen=f"unix:{tmp_path}/x", read_only=True) as uri:
        with pytest.raises(BlockError, match="read-only"):
            copy(source, uri)


@pytest.mark.parametrize("direction", ["from", "to"])
def test_a_copy_whose_server_goes_away_says_so(tmp_path, direction):
    """And the error keeps nothing of the buffers, which would hide it."""

    class Going(MemoryDevice):
        def pread_into(self, view, offset):
            if offset >= 1 << 20:
                between.hang_up()
            super().pread_into(view, offset)

        pwrite = pread_into

    with serve(Going(4 << 20), listen=f"unix:{tmp_path}/s"):
        between = Freezing(f"{tmp_path}/b", f"{tmp_path}/s")
        away = f"nbd+unix:///?socket={tmp_path}/b"
        words = [away, tmp_path / "new"] if direction == "from" else ["zero:2MiB", away]
        # It may be in the middle of opening another connection.
        says = r"(failed|cannot open .*): (the server hung up|Connection|Broken)"
        with pytest.raises(BlockError, match=says):
            copy(*words, memory="256KiB", request_size="64KiB")
        between.close()
    assert not (tmp_path / "new").exists()


def test_holes_on_the_server_are_holes_here(tmp_path):
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.seek(8 << 20)
        file.write(b"x" * 4096)
    with serve(open_exports([str(path)], read_only=True), listen=f"unix:{tmp_path}/x") as uri:
        device = hw.open_device(uri)
        first = device.extent(0)
        device.close()
        if not first.hole:
            pytest.skip("this file system has no holes")
        assert first.end == 8 << 20
        copy(uri, tmp_path / "copy", memory="4MiB")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 1 << 20


def test_a_server_passes_on_what_another_serves(tmp_path):
    with serve(memory_device(), listen=f"unix:{tmp_path}/a", memory="1MiB") as first:
        passed_on = hw.open_device(first, writable=True)
        with serve(passed_on, listen=f"unix:{tmp_path}/b", memory="1MiB") as second:
            report = copy(second, tmp_path / "copy", memory="4MiB")
            assert report.bytes == SIZE
            device = hw.open_device(second, writable=True)
            device.pwrite(memoryview(bytes(300_000)), 7)
            device.close()
        assert (tmp_path / "copy").read_bytes() == DATA
        device = hw.open_device(first)
        view = memoryview(bytearray(300_000))
        device.pread_into(view, 7)
        assert view == bytes(300_000)
        device.close()


class Sparse(MemoryDevice):
    """A hole until its first byte is written. A call of `held` tells that it has come to its end, and waits there."""

    kind = Kind.FILE  # so that each call is a worker's

    def __init__(self, held=""):
        super().__init__(SIZE)
        self.held = held
        self.come, self.go_on = threading.Event(), threading.Event()

    def _hold(self, what):
        if what == self.held and not self.go_on.is_set():
            self.come.set()
            assert self.go_on.wait(20)

    def extent(self, offset):
        first = bytearray(1)
        self.pread_into(memoryview(first), 0)
        self._hold("extent")
        return Extent(self.size, not first[0])

    def pwrite(self, view, offset):
        self._hold("pwrite")
        super().pwrite(view, offset)


@pytest.mark.parametrize("held", ["extent", "pwrite"])
def test_a_hole_that_is_written_while_it_is_asked_about_is_none_afterwards(place, held):
    served = Sparse(held)
    with serve(served, listen=place) as uri:
        device = hw.open_device(uri, writable=True, deadline_s=20)
        view = memoryview(b"data")
        ask, write = (lambda: device.extent(0)), (lambda: device.pwrite(view, 0))
        first, second = (ask, write) if held == "extent" else (write, ask)
        slow = threading.Thread(target=first)
        slow.start()
        assert served.come.wait(20)
        second()
        served.go_on.set()
        slow.join()
        assert not device.extent(0).hole
        device.close()


def test_holes_are_asked_about_again_for_others_may_write_as_well(place, monkeypatch):
    monkeypatch.setattr(nbd_client, "_KEPT_S", 1e9)
    with serve(Sparse(), listen=place) as uri:
        device, other = hw.open_device(uri), hw.open_device(uri, writable=True)
        assert device.extent(0).hole
        other.pwrite(memoryview(b"data"), 0)
        assert device.extent(0).hole  # so soon it says what it knows
        device._known_until_s -= 1e9
        assert not device.extent(0).hole
        device.close()
        other.close()


def test_an_address_of_a_family_that_the_system_lacks_is_passed_over(monkeypatch):
    with serve(memory_device(), listen="tcp::0") as uri:
        found = socket.getaddrinfo("127.0.0.1", parse_uri(uri).port, type=socket.SOCK_STREAM)
        lacking = (45, socket.SOCK_STREAM, 0, "", ("::1", 1, 0, 0))
        with pytest.raises(OSError):
            socket.socket(*lacking[:2])
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [lacking, *found])
        device = hw.open_device(uri)
        assert device.size == SIZE
        device.close()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [lacking])
        with pytest.raises(BlockError, match="cannot open nbd"):
            hw.open_device(uri)
