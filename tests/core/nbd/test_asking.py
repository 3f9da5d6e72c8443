"""The client's side by hand: the server's own words come back right, and wrong ones are caught."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.nbd import wire
from headway.core.nbd.asking import Agreed, Broken, answer, dial
from headway.core.nbd.handshake import Enter, Handshake, Offer, Say

OFFER = Offer("x", 12345, 0x56D)
AGREED = Agreed(1 << 20, 0, True, 1, 1, 32 << 20)


def carry(asking, data, view=None):
    """Run a generator on `data`, which is all that will ever be received; (result, what was sent)."""
    data, sent, got = memoryview(data), b"", None
    try:
        while True:
            wish = asking.send(got)
            got = None
            if isinstance(wish, bytes):
                sent += wish
                continue
            count = wish if isinstance(wish, int) else max(wish.length, 0)
            if count > len(data):
                raise EOFError
            part, data = bytes(data[:count]), data[count:]
            if isinstance(wish, int):
                assert wish > 0
                got = part
            elif wish.length < 0:
                view[wish.start : wish.start - wish.length] = bytes(-wish.length)
            else:
                assert wish.start >= 0 and wish.start + wish.length <= len(view)
                view[wish.start : wish.start + wish.length] = part
    except StopIteration as stop:
        return stop.value, sent


def meet(export, offers=None):
    """A client and the server's negotiation, wired together."""
    server = Handshake(offers or {"x": OFFER})
    received, asking, got = bytearray(server.greeting()), dial(export), None
    entered = None
    while True:
        try:
            wish = asking.send(got)
        except StopIteration as stop:
            return stop.value, entered
        got = None
        if isinstance(wish, bytes):
            for action in server.feed(wish):
                if isinstance(action, Say):
                    received += action.data
                else:
                    entered = action
        else:
            got = bytes(received[:wish])
            del received[:wish]
            assert len(got) == wish


def test_client_and_server_agree():
    agreed, entered = meet("x")
    assert isinstance(entered, Enter)
    assert agreed == Agreed(12345, 0x56D, True, 1, 1, 32 << 20)
    assert entered.structured and entered.allocation == 1


def test_an_unknown_export_is_named():
    with pytest.raises(Broken, match="refuses export 'y'"):
        meet("y")


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2p1", b"NBDMAGIC" + bytes(10), b"NBDMAGICIHAVEOPT\0\0"],
)
def test_what_is_no_server_is_caught(greeting):
    with pytest.raises(Broken):
        carry(dial("x"), greeting)


def chunk(kind, body, flags=1, cookie=3):
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(body)) + body


def data_chunk(offset, data, flags=0):
    return chunk(1, struct.pack(">Q", offset) + data, flags)


def read(data, offset=100, length=10, agreed=AGREED):
    view = bytearray(b"?" * length)
    found, _ = carry(answer(agreed, 3, offset, length, data=True), data, view)
    return found, bytes(view)


def test_data_in_pieces_in_any_order_with_holes():
    pieces = data_chunk(106, b"6789") + chunk(2, struct.pack(">QI", 102, 4), 0)
    found, view = read(pieces + data_chunk(100, b"01", flags=1))
    assert (found.error, view) == (0, b"01\0\0\0\x006789")


def test_an_error_with_its_message():
    body = struct.pack(">IH", 5, 4) + b"dead" + struct.pack(">Q", 103)
    found, _ = read(data_chunk(100, b"012") + chunk(0x8002, body))
    assert (found.error, found.message) == (5, "dead")


def test_simple_replies():
    plain = Agreed(1 << 20, 0, False, None, 1, 32 << 20)
    found, view = read(wire.simple(3) + b"0123456789", agreed=plain)
    assert (found.error, view) == (0, b"0123456789")
    assert read(wire.simple(3, 22), agreed=plain)[0].error == 22
    found, _ = carry(answer(AGREED, 3, 0, 0, data=False), wire.simple(3))
    assert found.error == 0


def test_block_status():
    status = wire.status_chunk(3, 1, [(4096, 3), (8192, 0)])
    found, _ = carry(answer(AGREED, 3, 0, 12288, data=False), status)
    assert found.extents == ((4096, 3), (8192, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        wire.simple(4),
        wire.simple(3),  # structured replies were agreed, and this is a read
        bytes(16),
        data_chunk(99, b"0123456789", 1),
        data_chunk(101, b"0123456789", 1),
        data_chunk(100, b"012", 1),
        data_chunk(100, b"0123456789") + data_chunk(100, b"0", 1),
        chunk(2, struct.pack(">QI", 100, 11)),
        chunk(2, struct.pack(">QI", 99, 1)),
        chunk(1, b"", 1),
        chunk(77, b"x"),
        chunk(0x8001, b"\0"),
        chunk(0x8001, struct.pack(">IH", 5, 100)),
        chunk(1, b"", cookie=4),
        chunk(5, b"12345"),
    ],
)
def test_what_no_server_may_say_is_caught(wrong):
    with pytest.raises(Broken):
        read(wrong + bytes(64))


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(90, 112), st.binary(max_size=12))))
def test_nothing_a_server_says_reaches_outside_the_buffer(garbage, pieces):
    said = b"".join(data_chunk(offset, data, len(data) & 1) for offset, data in pieces)
    try:
        read(said + garbage)
    except (Broken, EOFError):
        pass
