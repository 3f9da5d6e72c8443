"""Clients that send garbage, stop reading, die, or stay when the server ends; a device that hangs."""

import socket
import struct
import threading

import pytest

from tests.edge.serving.served import (
    DATA,
    SIZE,
    SMALLEST,
    Counted,
    Served,
    Waiting,
    make,
    serve_one,
)
from tests.nbd_client import FLUSH, READ, WRITE


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", bytes(64), b"\xff" * 5000]
)
@pytest.mark.parametrize("when", ["at once", "as an option", "as a request"])
def test_garbage_ends_its_connection_and_no_other(device, garbage, when):
    served = Served(device)
    bad = served.connect(handshake=when == "as a request")
    served.connect()
    clients = served.start()
    if when == "as an option":
        clients[0].greet()
    bad.sendall(garbage)
    with pytest.raises((EOFError, ConnectionError)):
        clients[0].exactly(1 << 20)
    assert clients[1].read(0, 5000) == DATA[:5000]
    served.end()


def test_clients_that_stop_reading_hold_little_and_others_go_on(device):
    served = Served(device, "4MiB")
    for _ in range(16):
        served.connect()
    clients = served.start()
    for client in clients[1:]:
        for number in range(40):
            client.send(READ, number, 100_000)
    for offset in range(0, SIZE, 1 << 18):
        assert clients[0].read(offset, 1 << 18) == DATA[offset : offset + (1 << 18)]
        assert clients[0].write(offset, DATA[offset : offset + (1 << 18)]) == b""
    for number, client in enumerate(clients[1:]):  # they read again, or go without having read
        if number % 2:
            for _ in range(40):
                assert client.reply()[1] == 0
    served.end()


def test_beside_15_that_stopped_reading_a_client_has_as_many_requests_at_the_device_as_alone():
    """At least half of what it has alone is the promise; frames are what it needs for it."""
    served = Served(make(Counted), "4MiB")
    device = served.device
    for _ in range(16):
        served.connect()
    worker, *stalled = served.start()
    asked = [
        [client.send(READ, n * 100 + k, 10_000) for k in range(60)]
        for n, client in enumerate(stalled)
    ]
    for _ in range(200):  # meanwhile they take all there is, and read nothing
        assert worker.read(0, 10) == DATA[:10]
    warm = [
        worker.send(READ, 0, 10) for _ in range(40)
    ]  # a second look finds that they read nothing
    assert sorted(worker.reply()[0] for _ in warm) == warm
    device.gate.clear()
    while device.entered.acquire(blocking=False):
        pass
    cookies = [worker.send(READ, n, 10_000) for n in range(40)]
    for _ in range(16):  # all of the workers that one client may have
        assert device.entered.acquire(timeout=20)
    device.gate.set()
    assert sorted(worker.reply()[0] for _ in cookies) == cookies
    for number, (client, cookies) in enumerate(zip(stalled, asked, strict=True)):
        got = {cookie: data for cookie, _, data in (client.reply() for _ in cookies)}
        for k, cookie in enumerate(cookies):  # those whose frames were taken back were read again
            assert got[cookie] == DATA[number * 100 + k :][:10_000]
    served.end()


class Ordered(Waiting):
    """Calls at `small` return when they may; calls behind `large` when the small ones have."""

    small, large = 100, 1 << 20

    def __init__(self, size):
        super().__init__(size)
        self.may, self.done = threading.Event(), threading.Event()

    def _check(self, view, offset):
        if offset == self.small:
            self.may.wait()
            self.done.set()
        elif offset > self.large:
            self.done.wait()
        super()._check(view, offset)


def test_no_answer_comes_in_the_middle_of_a_simple_reply_in_pieces():
    """As the kernel's client would not know it from data."""
    served, client = serve_one(make(Ordered), "8MiB", structured=False)
    device = served.device
    small = [client.send(READ, device.small, 500), client.send(READ, device.small, 500)]
    flushing = client.send(FLUSH)
    assert client.reply() == (flushing, 0, b"")
    large = client.send(READ, device.large, 1_000_000)
    head = client.exactly(16)
    first = client.exactly(1000)
    device.may.set()
    assert head == struct.pack(">IIQ", 0x67446698, 0, large)
    assert first + client.exactly(999_000) == DATA[device.large :][:1_000_000]
    for cookie in small:
        assert client.reply(500) in [(c, 0, DATA[100:600]) for c in small], cookie
    served.end()


def test_a_client_killed_in_the_middle_of_a_write_gives_everything_back(device):
    served = Served(device, "2MiB")
    for _ in range(9):
        served.connect()
    clients = served.start()
    for number, client in enumerate(clients[1:]):
        length = 1 << (10 + number)
        head = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 0, length)
        client.sock.sendall(head + bytes(length * 2 // 3))
        client.close()
    assert clients[0].write(0, DATA) == b""
    assert clients[0].read(0, SIZE) == DATA
    served.end()


def test_a_client_gone_while_workers_are_busy_gives_everything_back():
    served = Served(make(Waiting), "2MiB")
    served.connect()
    served.connect()
    clients = served.start()
    served.device.gate.clear()
    head = struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 4096)
    clients[1].sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # till the server takes no more
        while True:
            clients[1].sock.send(head)
    clients[1].close()
    served.device.gate.set()
    assert clients[0].read(0, SIZE) == DATA
    served.end()


@pytest.mark.parametrize("memory", [SMALLEST, "2MiB"])
def test_a_client_that_cannot_be_answered_any_more_gives_everything_back(device, memory):
    served, client = serve_one(device, memory)
    gate = getattr(device, "gate", None)
    if gate is not None:
        gate.clear()
    client.send(READ, 0, 4096)
    client.send(WRITE, 0, payload=DATA[:4096])
    client.sock.shutdown(socket.SHUT_RD)  # so that an answer fails, and nothing else is noticed
    if gate is not None:
        gate.set()
    served.server._ended.wait()  # it was the last client
    served.end()


def test_stopping_answers_what_was_taken_and_drops_who_does_not_read(device):
    served = Served(device)
    for _ in range(3):
        served.connect()
    clients = served.start()
    clients[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(20):
        clients[0].send(READ, 0, SIZE)
    cookie = clients[1].send(READ, 5, 1000)
    assert clients[1].reply() == (cookie, 0, DATA[5:1005])
    report = served.server.stop(0.2)
    assert report.connections == 3
    with pytest.raises((EOFError, ConnectionError)):
        clients[1].exactly(1)
    assert served.server._loop.frames_out == 0
    served.end()


def test_a_device_that_never_answers_does_not_keep_the_server(tmp_path):
    served, client = serve_one(make(Waiting))
    served.device.gate.clear()
    client.send(READ, 0, 10)
    client.send(FLUSH)
    assert client.reply()[1] == 0  # so the read is with a worker
    report = served.server.stop(0.1)
    assert report.abandoned == 1
    served.device.gate.set()
    client.close()
