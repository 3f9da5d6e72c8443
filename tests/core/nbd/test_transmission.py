"""Which request may be what, and how replies lie in bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.nbd import wire
from headway.core.nbd.handshake import Enter, Offer
from headway.core.nbd.transmission import Transmission, Verb, flags_for

SIZE = 1 << 20
FUA, NO_HOLE, REQ_ONE = 1, 2, 8
EPERM, EINVAL, ENOSPC = 1, 22, 28


def session(*, read_only=False, structured=True, allocation=1, size=SIZE):
    offer = Offer("", size, flags_for(read_only=read_only))
    return Transmission(Enter(offer, structured, allocation, b""))


def request(kind, offset=0, length=0, flags=0, cookie=7, magic=0x25609513):
    return struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length)


def judged(requests, *args, **kwargs):
    verb = requests.take(request(*args, **kwargs), 0)
    return (verb, requests.error) if verb is Verb.REFUSE else verb


GOOD = [
    ((0, 0, SIZE), Verb.READ),
    ((0, SIZE - 1, 1), Verb.READ),
    ((1, 0, SIZE), Verb.WRITE),
    ((1, 0, 1, FUA), Verb.WRITE),
    ((2,), Verb.LEAVE),
    ((3,), Verb.FLUSH),
    ((4, 0, SIZE, FUA), Verb.TRIM),
    ((5, 0, SIZE), Verb.CACHE),
    ((6, 0, SIZE, FUA | NO_HOLE), Verb.ZERO),
    ((7, 0, SIZE, REQ_ONE), Verb.STATUS),
]
BAD = [
    ((0, 0, SIZE + 1), EINVAL),
    ((0, SIZE, 1), EINVAL),
    ((0, (1 << 64) - 1, 1), EINVAL),
    ((0, 0, 0), EINVAL),
    ((0, 0, 1, 1 << 2), EINVAL),
    ((1, SIZE - 1, 2), ENOSPC),
    ((1, (1 << 64) - 1, (1 << 32) - 1), ENOSPC),
    ((1, 0, 1, NO_HOLE), EINVAL),
    ((3, 0, 1), EINVAL),
    ((4, SIZE - 1, 2), EINVAL),
    ((5, SIZE - 1, 2), EINVAL),
    ((6, SIZE - 1, 2), ENOSPC),
    ((7, SIZE - 1, 2), EINVAL),
    ((7, 0, 0), EINVAL),
    ((8, 0, 1), EINVAL),
    ((0xFFFF, 0, 1), EINVAL),
]


@pytest.mark.parametrize(("args", "verb"), GOOD)
def test_what_may_be(args, verb):
    requests = session()
    assert judged(requests, *args) is verb
    assert requests.cookie == 7
    if len(args) > 2:
        assert (requests.offset, requests.length) == args[1:3]


@pytest.mark.parametrize(("args", "error"), BAD)
def test_what_may_not_be(args, error):
    requests = session()
    assert judged(requests, *args) == (Verb.REFUSE, error)
    assert requests.payload == (args[2] if args[0] == 1 else 0)


@pytest.mark.parametrize("kind", [1, 4, 6])
def test_changes_of_a_read_only_export(kind):
    assert judged(session(read_only=True), kind, 0, 1) == (Verb.REFUSE, EPERM)
    assert judged(session(read_only=True), 0, 0, 1) is Verb.READ


def test_status_needs_its_context():
    assert judged(session(allocation=None), 7, 0, 1) == (Verb.REFUSE, EINVAL)


def test_what_is_no_request():
    assert judged(session(), 0, 0, 1, magic=0x25609512) is Verb.GARBAGE


def test_flags():
    assert flags_for(read_only=True) & wire.SEND_READ_ONLY
    assert not flags_for(read_only=True) & (wire.SEND_TRIM | wire.SEND_WRITE_ZEROES)
    assert flags_for(read_only=False) & wire.SEND_MULTI_CONN


def test_the_refusal_of_a_read_is_structured_where_reads_are():
    requests = session()
    requests.take(request(0, SIZE, 1), 0)
    head = struct.unpack_from(">IHHQI", requests.refusal())
    assert head[:4] == (0x668E33EF, 1, 0x8001, 7) and head[4] == len(requests.refusal()) - 20
    requests.take(request(1, SIZE, 1), 0)
    assert requests.refusal() == struct.pack(">IIQ", 0x67446698, ENOSPC, 7)
    plain = session(structured=False)
    plain.take(request(0, SIZE, 1), 0)
    assert plain.refusal() == struct.pack(">IIQ", 0x67446698, EINVAL, 7)


def test_data_heads():
    buffer = memoryview(bytearray(40))
    requests = session()
    requests.take(request(0, 512, 1024), 0)
    requests.pack_data_head(buffer, 3)
    expected = struct.pack(">IHHQIQ", 0x668E33EF, 1, 1, 7, 1032, 512)
    assert requests.head_size == 28 and buffer[3:31] == expected
    assert requests.piece_head(7, 512, 1024, first=True, last=True) == expected
    assert requests.piece_head(7, 512, 1024, first=True, last=False)[4:6] == b"\0\0"
    plain = session(structured=False)
    plain.take(request(0, 512, 1024), 0)
    plain.pack_data_head(buffer, 0)
    simple = struct.pack(">IIQ", 0x67446698, 0, 7)
    assert plain.head_size == 16 and buffer[:16] == simple
    assert plain.piece_head(7, 0, 9, first=True, last=False) == simple
    assert plain.piece_head(7, 0, 9, first=False, last=True) == b""


def test_errors_of_devices_have_the_nearest_word():
    assert [wire.error_for(n) for n in (1, 5, 22, 28)] == [1, 5, 22, 28]
    assert [wire.error_for(n) for n in (None, 13, 27, 30, 122, 71)] == [5, 1, 28, 1, 28, 5]


@given(
    st.binary(min_size=24, max_size=24) | st.none(),
    st.integers(0, 9),
    st.integers(0, (1 << 64) - 1) | st.integers(0, SIZE + 2),
    st.integers(0, (1 << 32) - 1) | st.integers(0, SIZE + 2),
    st.integers(0, 0xFFFF) | st.integers(0, 15),
    st.booleans(),
)
def test_nothing_outside_the_export_is_ever_let_through(
    raw, kind, offset, length, flags, read_only
):
    requests = session(read_only=read_only)
    data = request(kind, offset, length, flags)
    verb = requests.take(data if raw is None else data[:4] + raw, 0)
    assert verb is not Verb.GARBAGE
    if verb in (Verb.READ, Verb.WRITE, Verb.TRIM, Verb.ZERO, Verb.CACHE, Verb.STATUS):
        assert requests.length > 0 and requests.offset + requests.length <= SIZE
    if read_only:
        assert verb not in (Verb.WRITE, Verb.TRIM, Verb.ZERO)
    if verb is Verb.REFUSE:
        assert requests.error and requests.why
