"""A server and its clients over real sockets: answers, pieces, windows.

Tests with `device` run twice: see conftest.
"""

import os
import random
import struct
import threading

import pytest

from headway.edge.memory_devices import MemoryDevice
from tests.edge.serving.served import DATA, SIZE, SMALLEST, Served, Waiting, make, serve_one
from tests.nbd_client import (
    CACHE,
    DISC,
    EINVAL,
    EIO,
    ENOSPC,
    EPERM,
    FLUSH,
    READ,
    STATUS,
    TRIM,
    WRITE,
    ZERO,
)


@pytest.mark.parametrize("structured", [True, False])
def test_reads_and_writes_of_every_length_are_right(device, memory, structured):
    served, client = serve_one(device, memory, structured)
    model = bytearray(DATA)
    dice = random.Random(7)
    assert client.size == SIZE
    for length in (1, 511, 512, 4096, 16384, 65536, 65537, 300000, 1 << 20, SIZE):
        offset = dice.randrange(SIZE - length + 1)
        assert client.read(offset, length) == model[offset : offset + length]
        payload = dice.randbytes(length)
        assert client.write(offset, payload) == b""
        model[offset : offset + length] = payload
    assert client.read(0, SIZE) == model
    served.end()


@pytest.mark.parametrize("structured", [True, False])
def test_many_requests_at_once_are_all_answered(device, memory, structured):
    served, client = serve_one(device, memory, structured)
    dice = random.Random(3)
    asked = {}

    def send():
        for number in range(300):
            offset, length = dice.randrange(SIZE // 2), dice.choice([1, 4096, 70000, 200000])
            if number % 3:
                asked[client.send(READ, offset, length)] = DATA[offset : offset + length]
            else:
                payload = DATA[offset : offset + length]  # the same bytes: any order is right
                asked[client.send(WRITE, offset, payload=payload)] = b""
        asked[client.send(FLUSH)] = b""

    lengths = {}
    if not structured:  # a simple reply does not say how long it is: one read at a time
        for number in range(50):
            offset = dice.randrange(SIZE // 2)
            assert client.read(offset, 5000 + number) == DATA[offset : offset + 5000 + number]
        served.end()
        return
    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(301):
        cookie, error, answer = client.reply()
        assert not error
        lengths[cookie] = answer
    thread.join()
    assert lengths == asked
    served.end()


def test_errors_are_answered_as_nbdkit_does_and_the_connection_lives_on(device):
    served, client = serve_one(device)
    past = SIZE - 10
    assert client.ask(READ, past, 11) == EINVAL
    assert client.write(past, bytes(11)) == ENOSPC
    assert client.write(1 << 63, bytes(100_000)) == ENOSPC
    assert client.ask(ZERO, past, 11) == ENOSPC
    assert client.ask(TRIM, past, 11) == EINVAL
    assert client.ask(CACHE, past, 11) == EINVAL
    assert client.ask(STATUS, past, 11) == EINVAL
    assert client.ask(READ, 0, 0) == EINVAL
    assert client.ask(TRIM, 0, 0) == EINVAL
    assert client.ask(99, 0, 1) == EINVAL
    assert client.ask(READ, 0, 1, flags=1 << 7) == EINVAL
    assert client.ask(FLUSH, 1, 0) == EINVAL
    assert client.read(0, SIZE) == DATA
    served.end()


def test_a_read_only_export_refuses_changes(device):
    served, client = serve_one(device, read_only=True)
    assert client.flags & 2
    assert client.write(0, bytes(300_000)) == EPERM
    assert client.ask(ZERO, 0, 4096) == EPERM
    assert client.ask(TRIM, 0, 4096) == EPERM
    assert client.ask(FLUSH) == b""
    assert client.read(0, SIZE) == DATA
    served.end()


def test_zero_trim_cache_status_flush(device):
    served, client = serve_one(device)
    assert client.ask(ZERO, 1000, 700_000) == b""
    assert client.read(999, 700_002) == DATA[999:1000] + bytes(700_000) + DATA[701_000:701_001]
    assert client.ask(TRIM, 0, 4096) == b""
    assert client.ask(CACHE, 0, SIZE) == b""
    assert client.ask(STATUS, 0, SIZE) == [(SIZE, 0)]
    assert client.ask(STATUS, 4096, 8192, flags=8) == [(8192, 0)]
    assert client.ask(FLUSH) == b""
    served.end()


def test_fua_reaches_the_device_before_the_answer():
    served, client = serve_one(make(Waiting))
    for number, ask in enumerate(
        [
            lambda: client.write(0, b"x" * 100, flags=1),
            lambda: client.write(0, b"x" * 600_000, flags=1),
            lambda: client.ask(ZERO, 0, 100, flags=1),
            lambda: client.ask(TRIM, 0, 100, flags=1),
            lambda: client.ask(FLUSH),
        ]
    ):
        assert ask() == b""
        assert served.device.flushes == number + 1
    assert client.write(0, b"x") == b""
    assert served.device.flushes == 5
    served.end()


@pytest.mark.parametrize("memory", [SMALLEST, "8MiB"])
def test_a_failing_device_is_an_answer(memory):
    served, client = serve_one(make(Waiting), memory)
    served.device.bad = range(1 << 20, (1 << 20) + 1)
    assert client.read(1 << 20, 10) == EIO
    assert client.read(0, SIZE) == EIO  # in the middle: the error chunk ends the reply
    assert client.write(0, DATA) == EIO  # in the middle: the rest of the payload is taken
    assert client.write((1 << 20) - 5, bytes(9)) == EIO
    assert client.ask(ZERO, 0, SIZE) == EIO
    served.device.bad = range(0)
    assert client.write(0, DATA) == b""
    assert client.read(0, SIZE) == DATA
    served.end()


def test_a_simple_reply_that_fails_in_the_middle_ends_the_connection():
    served, client = serve_one(make(Waiting), structured=False)
    served.device.bad = range(1 << 20, (1 << 20) + 1)
    assert client.read(1 << 20, 10) == EIO
    client.send(READ, 0, SIZE)
    with pytest.raises(EOFError):
        client.reply(SIZE)
    served.end()


def test_what_is_taken_is_answered_after_disc_and_nothing_else(device):
    served, client = serve_one(device)
    for number in range(5):
        client.send(READ, number, 5000)
    client.send(DISC)
    client.send(READ, 0, 1)
    assert sorted(client.reply()[0] for _ in range(5)) == [1, 2, 3, 4, 5]
    with pytest.raises((EOFError, ConnectionError)):
        client.exactly(1)
    served.end()


@pytest.mark.parametrize("flags", [1, 3])
def test_export_name_pads_unless_told_not_to(device, flags):
    served = Served(device)
    served.connect(handshake=False)
    (client,) = served.start()
    client.greet(flags)
    client.sock.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))
    assert struct.unpack(">Q", client.exactly(8)) == (SIZE,)
    client.exactly(2)
    if flags == 1:
        assert client.exactly(124) == bytes(124)
    client.structured = False
    assert client.read(3, 10) == DATA[3:13]
    served.end()


def test_holes_of_a_file_are_told(tmp_path):
    from headway.server import open_exports

    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.seek(4 << 20)
        file.write(b"x" * 65536)
        file.truncate(8 << 20)
    (device,) = open_exports([str(path)], read_only=False).values()
    if not device.extent(0).hole:
        pytest.skip("this file system has no holes")
    served, client = serve_one(device)
    assert client.ask(STATUS, 0, 8 << 20) == [(4 << 20, 3), (65536, 0), ((4 << 20) - 65536, 3)]
    assert client.ask(STATUS, 0, 8 << 20, flags=8) == [(4 << 20, 3)]
    assert client.ask(TRIM, 4 << 20, 65536) == b""
    assert client.ask(STATUS, 0, 8 << 20) == [(8 << 20, 3)]
    assert client.read(4 << 20, 65536) == bytes(65536)
    assert client.write(0, b"y" * 100_000) == b""
    assert client.ask(ZERO, 0, 65536, flags=2) == b""
    assert client.read(0, 65537) == bytes(65536) + b"y"
    assert client.ask(STATUS, 0, 4096) == [(4096, 0)]  # zeros with room kept for them
    served.end()
    assert os.path.getsize(path) == 8 << 20


def test_a_server_that_was_never_started_gives_everything_back(device):
    served = Served(device)
    served.connect()
    served.end()


def test_input_left_over_in_a_frame_of_its_own_ends_in_the_middle_of_a_request():
    served, client = serve_one(make(MemoryDevice), "8MiB")
    assert client.write(0, DATA[:8000]) == b""  # from now on much is received at once
    reads = [(0, SIZE), *((offset, 1) for offset in range(300))]
    heads = [
        struct.pack(">IHHQQI", 0x25609513, 0, READ, cookie, *read)
        for cookie, read in enumerate(reads)
    ]
    sent = b"".join(heads)
    client.sock.sendall(sent[:-10])
    for cookie, (offset, length) in enumerate(reads[:-1]):
        assert client.reply() == (cookie, 0, DATA[offset : offset + length])
    client.sock.sendall(sent[-10:])
    assert client.reply() == (len(reads) - 1, 0, DATA[299:300])
    client.cookie = 1000
    client.send(READ, 0, SIZE)
    client.sock.sendall(sent)
    assert client.reply()[0] == 1001
    for cookie in range(len(reads)):
        assert client.reply()[0] == cookie
    served.end()
