"""Negotiation by hand: what goes in, and exactly what comes out."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.nbd import wire
from headway.core.nbd.handshake import Enter, Handshake, Leave, Offer, Say, Secure, Tls

OFFERS = {
    "": Offer("", 1 << 20, 0x56D, description="file"),
    "b": Offer("b", 4096, 3),
}
FLAGS = struct.pack(">I", 3)
ACK, SERVER, INFO, CONTEXT = 1, 2, 3, 4
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 2, 3, 5, 6, 9))


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def counted(text):
    return struct.pack(">I", len(text)) + text


def go(name=b"", *infos):
    wanted = struct.pack(f">H{len(infos)}H", len(infos), *infos)
    return option(7, counted(name) + wanted)


def contexts(number, name, *queries):
    data = counted(name) + struct.pack(">I", len(queries)) + b"".join(map(counted, queries))
    return option(number, data)


def begun(tls=Tls.OFF, offers=OFFERS):
    handshake = Handshake(offers, tls)
    assert handshake.feed(FLAGS) == []
    return handshake


def replies(actions):
    """(option, type, data) of each option reply said."""
    found = []
    for action in actions:
        if isinstance(action, Say):
            magic, number, kind, length = struct.unpack_from(">QIII", action.data)
            assert magic == 0x3E889045565A9 and length == len(action.data) - 20
            found.append((number, kind, action.data[20:]))
    return found


def kinds(actions):
    return [kind for _, kind, _ in replies(actions)]


def test_the_greeting():
    assert Handshake(OFFERS).greeting() == b"NBDMAGICIHAVEOPT\x00\x03"


@pytest.mark.parametrize("flags", [0, 2, 4, 7, 1 << 31])
def test_client_flags_that_are_not_spoken_here_end_it(flags):
    actions = Handshake(OFFERS).feed(struct.pack(">I", flags))
    assert [type(action) for action in actions] == [Leave]


def test_go_tells_size_and_flags_and_enters_with_the_rest():
    *said, entered = begun().feed(go(b"", 1, 2, 3) + b"rest")
    assert replies(said) == [
        (7, INFO, struct.pack(">HQH", 0, 1 << 20, 0x56D)),
        (7, INFO, struct.pack(">H", 1)),
        (7, INFO, struct.pack(">H", 2) + b"file"),
        (7, INFO, struct.pack(">HIII", 3, 1, 4096, 32 << 20)),
        (7, ACK, b""),
    ]
    assert entered == Enter(OFFERS[""], structured=False, allocation=None, rest=b"rest")


def test_info_is_go_without_entering():
    handshake = begun()
    assert kinds(handshake.feed(go(b"b").replace(b"\0\0\0\7", b"\0\0\0\6", 1))) == [INFO, ACK]
    assert kinds(handshake.feed(option(3))) == [SERVER, SERVER, ACK]


def test_an_unknown_export_or_option_is_refused_and_the_step_kept():
    handshake = begun()
    assert kinds(handshake.feed(go(b"c"))) == [UNKNOWN]
    assert kinds(handshake.feed(option(77, b"whatever"))) == [UNSUP]
    assert kinds(handshake.feed(option(4) + option(11))) == [UNSUP, UNSUP]
    assert isinstance(handshake.feed(go(b"b"))[-1], Enter)


def test_the_empty_name_is_the_first_export_if_nobody_has_it():
    offers = {"one": Offer("one", 1, 0), "two": Offer("two", 2, 0)}
    entered = begun(offers=offers).feed(go())[-1]
    assert entered.offer is offers["one"]


@pytest.mark.parametrize("bad", [option(3, b"x"), option(8, b"x"), option(5, b"x")])
def test_data_where_none_belongs_is_invalid(bad):
    assert kinds(begun(tls=Tls.ON).feed(bad)) == [INVALID]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        counted(b"")[:3],
        counted(b""),
        counted(b"") + b"\0\2\0\0",
        counted(b"") + b"\0\0\0",
        struct.pack(">I", 5000) + bytes(5000) + b"\0\0",
        struct.pack(">I", 0xFFFFFFFF) + b"\0\0",
    ],
)
def test_lengths_that_do_not_fit_are_invalid(data):
    handshake = begun()
    assert kinds(handshake.feed(option(7, data))) == [INVALID]
    assert kinds(handshake.feed(option(3))) == [SERVER, SERVER, ACK]


def test_an_oversized_option_is_skipped_and_refused():
    handshake = begun()
    head = b"IHAVEOPT" + struct.pack(">II", 7, 1 << 30)
    assert handshake.feed(head) == []
    for _ in range(1 << 14):
        assert handshake.feed(bytes((1 << 16) - 1)) == []
    rest = (1 << 30) - (1 << 14) * ((1 << 16) - 1)
    assert kinds(handshake.feed(bytes(rest) + option(3))) == [TOO_BIG, SERVER, SERVER, ACK]


def test_export_name_enters_or_leaves():
    said, entered = begun().feed(option(1, b"b"))
    assert said == Say(struct.pack(">QH", 4096, 3))
    assert isinstance(entered, Enter)
    padded = Handshake(OFFERS)
    said, entered = padded.feed(struct.pack(">I", 1) + option(1, b"b"))
    assert said == Say(struct.pack(">QH", 4096, 3) + bytes(124))
    assert [type(a) for a in begun().feed(option(1, b"nobody"))] == [Leave]
    long = b"IHAVEOPT" + struct.pack(">II", 1, 1 << 20)
    assert [type(a) for a in begun().feed(long)] == [Leave]


def test_abort_is_acknowledged():
    said, left = begun().feed(option(2))
    assert replies([said]) == [(2, ACK, b"")] and isinstance(left, Leave)


def test_contexts_are_listed_and_chosen_for_one_export():
    handshake = begun()
    allocation = b"base:allocation"
    assert kinds(handshake.feed(contexts(10, b"", allocation))) == [
        INVALID
    ]  # no structured replies
    assert kinds(handshake.feed(option(8))) == [ACK]
    assert kinds(handshake.feed(contexts(9, b""))) == [CONTEXT, ACK]
    assert kinds(handshake.feed(contexts(9, b"", b"base:"))) == [CONTEXT, ACK]
    assert kinds(handshake.feed(contexts(9, b"", b"qemu:"))) == [ACK]
    assert kinds(handshake.feed(contexts(10, b"nobody", allocation))) == [UNKNOWN]
    assert kinds(handshake.feed(contexts(10, b"", b"base:"))) == [ACK]
    chosen = handshake.feed(contexts(10, b"", b"qemu:dirty", allocation))
    assert replies(chosen) == [(10, CONTEXT, b"\0\0\0\1base:allocation"), (10, ACK, b"")]
    entered = handshake.feed(go())[-1]
    assert entered.structured and entered.allocation == 1


def test_a_context_chosen_for_another_export_or_taken_back_is_not_in_force():
    for last in (contexts(10, b"b", b"base:allocation"), contexts(10, b"")):
        handshake = begun()
        handshake.feed(option(8) + contexts(10, b"", b"base:allocation") + last)
        assert handshake.feed(go())[-1].allocation is None


def test_tls_off_is_a_policy():
    assert kinds(begun().feed(option(5))) == [POLICY]


def test_where_tls_is_required_nothing_else_is_answered_before():
    handshake = begun(Tls.REQUIRE)
    assert kinds(handshake.feed(option(3) + go() + option(8))) == [TLS_REQD] * 3
    assert [type(a) for a in begun(Tls.REQUIRE).feed(option(1, b""))] == [Leave]
    said, secure = handshake.feed(option(5))
    assert replies([said]) == [(5, ACK, b"")] and secure == Secure()
    assert isinstance(handshake.feed(go())[-1], Enter)


def test_what_was_agreed_before_tls_is_forgotten():
    handshake = begun(Tls.ON)
    handshake.feed(option(8) + contexts(10, b"", b"base:allocation"))
    handshake.feed(option(5))
    assert kinds(handshake.feed(option(5))) == [INVALID]  # on already
    entered = handshake.feed(go())[-1]
    assert not entered.structured and entered.allocation is None


def test_plain_bytes_sent_along_with_starttls_are_not_taken_for_secured_ones():
    actions = begun(Tls.ON).feed(option(5) + go())
    assert [type(action) for action in actions] == [Leave]


OPTIONS = st.one_of(
    st.sampled_from([option(3), option(8), go(b"x"), go(b"b"), option(9), option(2)]),
    st.builds(option, st.integers(0, 12), st.binary(max_size=60)),
    st.builds(contexts, st.sampled_from([9, 10]), st.just(b""), st.binary(max_size=20)),
    st.binary(max_size=40),
)


def run(pieces):
    """All actions, with what was said joined."""
    handshake = Handshake(OFFERS, Tls.ON)
    said, others = b"", []
    for piece in pieces:
        for action in handshake.feed(piece):
            if isinstance(action, Say):
                said += action.data
            else:
                others.append(action)
        if others and not isinstance(others[-1], Secure):
            break
    return said, others


@given(st.lists(OPTIONS, max_size=6), st.data())
def test_however_the_bytes_are_cut_the_answer_is_the_same(options, data):
    sent = FLAGS + b"".join(options)
    if option(5) in sent:
        return  # what comes along with STARTTLS ends it on purpose
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    whole_said, whole_others = run([sent])
    cut_said, cut_others = run(pieces)
    assert cut_said == whole_said
    assert [type(other) for other in cut_others] == [type(other) for other in whole_others]


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_garbage_never_raises_and_never_grows(pieces):
    handshake = Handshake(OFFERS)
    for piece in pieces:
        actions = handshake.feed(piece)
        assert len(handshake._buffer) <= (16 << 10) + wire.OPTION.size
        if actions and isinstance(actions[-1], Enter | Leave):
            break
