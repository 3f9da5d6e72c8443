"""The client's side: how an export is asked for, and how the reply to one request is read.

It does no I/O: `dial` and `answer` are generators that say what they need and are sent it. They yield

    bytes     send these; sent back: nothing
    int       receive exactly so many; sent back: the bytes
    Into      receive straight into that part of the request's buffer; sent back: nothing
    Secure    start TLS, and go on with what is decrypted; sent back: nothing

and return what was agreed, or what was answered. A server that breaks the protocol raises `Broken`:
after that nothing it says can be trusted, and the connection has to be closed. No reply can make a
client receive outside the request's buffer.

Source: the NBD protocol, "Fixed newstyle negotiation", "Structured reply chunk message".
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from headway.core.nbd import wire

_REPLY_LIMIT: Final = 64 << 10  # bytes of an option's reply, or of a chunk that holds no data


class Broken(Exception):
    """The server said what the protocol does not allow, or refused; the message says what."""


@final
@dataclass(frozen=True, slots=True)
class Into:
    """A part of the request's buffer; a negative length: zeros are there, nothing is received."""

    start: int
    length: int


@final
@dataclass(frozen=True, slots=True)
class Secure:
    """The server is ready for TLS."""


@final
@dataclass(frozen=True, slots=True)
class Agreed:
    """What server and client agreed on. Units: bytes."""

    size: int
    flags: int
    structured: bool
    allocation: int | None  # the context's number, if base:allocation was agreed
    minimum: int  # alignment of requests
    maximum: int  # the longest payload


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one request: an error (0: none) of the protocol, where, and its message."""

    error: int = 0
    message: str = ""
    extents: tuple[tuple[int, int], ...] = ()  # (length, flags) each


Wish: TypeAlias = bytes | int | Into | Secure


def dial(export: str, *, secure: bool = False) -> Generator[Wish, Any, Agreed]:
    """Negotiate for `export`; `secure`: nothing but the start of TLS is said before it. Raises: Broken."""
    magic, option_magic, flags = wire.GREETING.unpack((yield wire.GREETING.size))
    if magic != wire.MAGIC or option_magic != wire.OPTION_MAGIC:
        raise Broken("it is no NBD server, or one of before 2011")
    if not flags & wire.FLAG_FIXED_NEWSTYLE:
        raise Broken("it does not speak fixed newstyle negotiation")
    padded = not flags & wire.FLAG_NO_ZEROES
    yield wire.CLIENT_FLAGS.pack(wire.FLAG_FIXED_NEWSTYLE | (flags & wire.FLAG_NO_ZEROES))
    if secure:
        if (yield from _option(wire.OPT_STARTTLS, b""))[-1][0] != wire.REP_ACK:
            raise Broken(
                "it does not speak TLS: with nbd instead of nbds nothing would be protected"
            )
        yield Secure()
    kind, _ = (yield from _option(wire.OPT_STRUCTURED_REPLY, b""))[-1]
    if kind == wire.REP_ERR_TLS_REQD:
        raise Broken("it requires TLS: write nbds instead of nbd")
    structured = kind == wire.REP_ACK
    allocation = None
    if structured:
        query = wire.counted(export) + wire.U32.pack(1) + wire.counted(wire.ALLOCATION)
        for kind, data in (yield from _option(wire.OPT_SET_META_CONTEXT, query)):
            if kind == wire.REP_META_CONTEXT and data[4:] == wire.ALLOCATION.encode():
                allocation = int.from_bytes(data[:4], "big")
    wanted = wire.counted(export) + wire.U16.pack(1) + wire.U16.pack(wire.INFO_BLOCK_SIZE)
    replies = yield from _option(wire.OPT_GO, wanted)
    if replies[-1][0] == wire.REP_ERR_UNSUP:
        return (yield from _by_name(export, structured, padded))
    return _informed(export, replies, structured, allocation)


def _by_name(export: str, structured: bool, padded: bool) -> Generator[Wish, Any, Agreed]:
    """Ask an old server, which answers or hangs up."""
    name = export.encode("utf-8", "surrogateescape")
    yield wire.option(wire.OPT_EXPORT_NAME, name)
    data = yield wire.EXPORT.size + (wire.EXPORT_PADDING if padded else 0)
    size, flags = wire.EXPORT.unpack_from(data)
    return Agreed(size, flags, structured, None, 1, wire.PAYLOAD_LIMIT)


def _informed(
    export: str, replies: list[tuple[int, bytes]], structured: bool, allocation: int | None
) -> Agreed:
    kind, data = replies[-1]
    if kind != wire.REP_ACK:
        said = data.decode("utf-8", "replace") or f"error {kind & ~wire.REP_ERROR}"
        raise Broken(f"it refuses export {export!r}: {said}")
    found: tuple[int, int] | None = None
    minimum, maximum = 1, wire.PAYLOAD_LIMIT
    for kind, data in replies:
        if kind != wire.REP_INFO or len(data) < wire.U16.size:
            continue
        about = int.from_bytes(data[:2], "big")
        if about == wire.INFO_EXPORT and len(data) == wire.INFO_EXPORT_DATA.size:
            _, *numbers = wire.INFO_EXPORT_DATA.unpack(data)
            found = (numbers[0], numbers[1])
        elif about == wire.INFO_BLOCK_SIZE and len(data) == wire.INFO_BLOCK_SIZE_DATA.size:
            _, minimum, _, maximum = wire.INFO_BLOCK_SIZE_DATA.unpack(data)
    if found is None:
        raise Broken("it did not say how large the export is")
    if not 0 < minimum <= 65536 or minimum & (minimum - 1) or maximum < minimum:
        raise Broken(f"it wants blocks of at least {minimum} and at most {maximum} bytes")
    return Agreed(found[0], found[1], structured, allocation, minimum, maximum)


def _option(option: int, data: bytes) -> Generator[Wish, Any, list[tuple[int, bytes]]]:
    """Send one option; its replies (type, data), till the last."""
    yield wire.option(option, data)
    replies: list[tuple[int, bytes]] = []
    while not replies or replies[-1][0] in (wire.REP_INFO, wire.REP_META_CONTEXT, wire.REP_SERVER):
        magic, about, kind, length = wire.OPTION_REPLY.unpack((yield wire.OPTION_REPLY.size))
        if magic != wire.OPTION_REPLY_MAGIC or about != option:
            raise Broken(f"its reply to option {option} is no such reply")
        if length > _REPLY_LIMIT or len(replies) > 64:
            raise Broken(f"its reply to option {option} does not end")
        replies.append((kind, (yield length) if length else b""))
    return replies


def answer(
    agreed: Agreed, cookie: int, offset: int, length: int, *, data: bool
) -> Generator[Wish, Any, Answer]:
    """Read the reply to request `cookie`; `data`: a read of `length` bytes from `offset`.

    Raises: Broken. The only request in flight is assumed: a reply to another one is an error.
    """
    done = 0  # bytes of data that came; a server must not send a byte twice
    error, message = 0, ""
    extents: list[tuple[int, int]] = []
    while True:
        head = yield wire.SIMPLE.size
        magic = int.from_bytes(head[:4], "big")
        if magic == wire.SIMPLE_MAGIC:
            _, error, found = wire.SIMPLE.unpack(head)
            _check(found == cookie and (not data or not agreed.structured or error), "cookie")
            if data and not error:
                yield Into(0, length)
            return Answer(error)
        _check(magic == wire.CHUNK_MAGIC and agreed.structured, "magic")
        head += yield wire.CHUNK.size - wire.SIMPLE.size
        _, flags, kind, found, size = wire.CHUNK.unpack(head)
        _check(found == cookie, "cookie")
        if kind == wire.CHUNK_OFFSET_DATA:
            start = int.from_bytes((yield wire.U64.size), "big") - offset
            _check(data and size > 8 and 0 <= start <= length - (size - 8), "range of data")
            yield Into(start, size - 8)
            done += size - 8
        elif kind == wire.CHUNK_OFFSET_HOLE:
            _check(data and size == 12, "hole")
            at, count = int.from_bytes((yield 8), "big") - offset, int.from_bytes((yield 4), "big")
            _check(count > 0 and 0 <= at <= length - count, "range of a hole")
            yield Into(at, -count)
            done += count
        else:
            _check(size <= _REPLY_LIMIT, "length of a chunk")
            body = (yield size) if size else b""
            if kind & wire.CHUNK_IS_ERROR:
                error, message = _failed(body)
            elif kind == wire.CHUNK_BLOCK_STATUS:
                _check(size >= 12 and size % 8 == 4, "block status")
                extents = list(wire.EXTENT.iter_unpack(body[4:]))
            else:
                _check(kind == wire.CHUNK_NONE and not size, f"chunk type {kind}")
        _check(done <= length, "length of the data")
        if flags & wire.CHUNK_DONE:
            _check(not data or bool(error) or done == length, "length of the data")
            return Answer(error, message, tuple(extents))


def _failed(body: bytes) -> tuple[int, str]:
    _check(len(body) >= wire.ERROR_HEAD.size, "error")
    error, length = wire.ERROR_HEAD.unpack_from(body)
    start = wire.ERROR_HEAD.size
    _check(error != 0 and start + length <= len(body), "error")
    return error, body[start : start + length].decode("utf-8", "replace")


def _check(good: object, what: str) -> None:
    if not good:
        raise Broken(f"its reply has a wrong {what}")
