"""What the server answers while client and server agree: newstyle negotiation, fixed.

It does no I/O: bytes go in (`feed`), actions come out, in the order in which they are to be done.
It keeps what is not a whole message yet, at most one option of `_OPTION_LIMIT` bytes; the data of a
longer one is skipped as it comes, and refused, so that a client cannot make the server hold more.

The table of states: client flags, then options one after another, each answered by a method of
`_ANSWERS`, till one enters transmission (`Enter`) or ends the connection (`Leave`). An option that
is not known is refused and the step kept. Until TLS is on, a server that requires it answers
nothing else; what was agreed before TLS is forgotten with it.

Source: the NBD protocol, sections "Fixed newstyle negotiation", "Option types", "TLS support".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias, final

from headway.core.nbd import wire

_OPTION_LIMIT: Final = 16 << 10
_CONTEXT_ID: Final = 1  # of base:allocation, the only one there is


@final
@dataclass(frozen=True, slots=True)
class Offer:
    """One export as a client sees it. Units: bytes."""

    name: str
    size: int
    flags: int
    description: str = ""
    minimum: int = 1
    preferred: int = 4096


class Tls(Enum):
    """Whether the connection may be, or has to be, secured."""

    OFF = "off"
    ON = "on"
    REQUIRE = "require"


@final
@dataclass(frozen=True, slots=True)
class Say:
    """Send these bytes."""

    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Secure:
    """The client has been told to start TLS: do so, and feed what is decrypted."""


@final
@dataclass(frozen=True, slots=True)
class Enter:
    """Negotiation is over; `rest` are the first bytes of transmission."""

    offer: Offer
    structured: bool
    allocation: int | None  # the context's number, if base:allocation was agreed
    rest: bytes


@final
@dataclass(frozen=True, slots=True)
class Leave:
    """Close the connection."""

    why: str


Action: TypeAlias = Say | Secure | Enter | Leave


@final
class Handshake:
    """The server's side of one negotiation. Start by sending `greeting()`."""

    __slots__ = (
        "_actions",
        "_buffer",
        "_context_for",
        "_flags",
        "_offers",
        "_over",
        "_secured",
        "_skip",
        "_skipped",
        "_structured",
        "_tls",
    )

    def __init__(self, offers: Mapping[str, Offer], tls: Tls = Tls.OFF) -> None:
        self._offers = offers
        self._tls = tls
        self._secured = False
        self._flags: int | None = None  # the client's, once it has sent them
        self._structured = False
        self._context_for: str | None = None  # the export for which base:allocation was agreed
        self._buffer = b""
        self._skip = 0  # bytes of an oversized option still to come
        self._skipped = 0  # which option that is
        self._over = False
        self._actions: list[Action] = []

    def greeting(self) -> bytes:
        """What the server says first."""
        flags = wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES
        return wire.GREETING.pack(wire.MAGIC, wire.OPTION_MAGIC, flags)

    def feed(self, data: bytes) -> list[Action]:
        """Take what was received, in pieces of any size; nothing after `Enter` or `Leave`."""
        assert not self._over
        self._buffer += data
        self._actions = []
        while not self._over and self._step():
            pass
        return self._actions

    def _step(self) -> bool:
        """Take one message from the buffer; False if it is not there as a whole."""
        buffer = self._buffer
        if self._flags is None:
            if len(buffer) < wire.CLIENT_FLAGS.size:
                return False
            self._take_flags(wire.CLIENT_FLAGS.unpack_from(buffer)[0])
            self._buffer = buffer[wire.CLIENT_FLAGS.size :]
            return True
        if self._skip:
            return self._skip_on()
        if len(buffer) < wire.OPTION.size:
            return False
        magic, option, length = wire.OPTION.unpack_from(buffer)
        if magic != wire.OPTION_MAGIC:
            self._leave(f"an option begins with {magic:#x}, which is no option")
            return False
        start = wire.OPTION.size
        if length > _OPTION_LIMIT:
            if option == wire.OPT_EXPORT_NAME:
                self._leave(f"an export name of {length} bytes; at most {wire.NAME_LIMIT} are")
                return False
            self._buffer = buffer[start:]
            self._skip, self._skipped = length, option
            return True
        if len(buffer) < start + length:
            return False
        self._buffer = buffer[start + length :]
        self._answer(option, buffer[start : start + length])
        return True

    def _take_flags(self, flags: int) -> None:
        known = wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES
        if flags & ~known or not flags & wire.FLAG_FIXED_NEWSTYLE:
            self._leave(f"client flags {flags:#x}; fixed newstyle negotiation is spoken here")
        self._flags = flags

    def _skip_on(self) -> bool:
        taken = min(self._skip, len(self._buffer))
        self._skip -= taken
        self._buffer = self._buffer[taken:]
        if self._skip:
            return False
        self._refuse(self._skipped, wire.REP_ERR_TOO_BIG, f"at most {_OPTION_LIMIT} bytes of data")
        return True

    def _answer(self, option: int, data: bytes) -> None:
        guarded = self._tls is Tls.REQUIRE and not self._secured
        if guarded and option not in (wire.OPT_STARTTLS, wire.OPT_ABORT):
            if option == wire.OPT_EXPORT_NAME:
                self._leave("an export was asked for without TLS, which is required")
            else:
                self._refuse(option, wire.REP_ERR_TLS_REQD, "start TLS first")
            return
        answer = _ANSWERS.get(option)
        if answer is None:
            self._refuse(option, wire.REP_ERR_UNSUP, "this option is not known here")
        else:
            answer(self, option, data)

    # -- options -------------------------------------------------------------------------------------

    def _export_name(self, option: int, data: bytes) -> None:
        offer = self._find(_text(data))
        if offer is None:  # the protocol has no other way to say so
            self._leave(f"no export {_text(data)!r}")
            return
        assert self._flags is not None
        padded = not self._flags & wire.FLAG_NO_ZEROES
        padding = bytes(wire.EXPORT_PADDING) if padded else b""
        self._say(wire.EXPORT.pack(offer.size, offer.flags) + padding)
        self._enter(offer)

    def _abort(self, option: int, data: bytes) -> None:
        self._reply(option, wire.REP_ACK)
        self._leave("the client ended the negotiation")

    def _list(self, option: int, data: bytes) -> None:
        if data:
            self._refuse(option, wire.REP_ERR_INVALID, "this option has no data")
            return
        for offer in self._offers.values():
            described = offer.description.encode()
            self._reply(option, wire.REP_SERVER, wire.counted(offer.name) + described)
        self._reply(option, wire.REP_ACK)

    def _starttls(self, option: int, data: bytes) -> None:
        if data or self._secured:
            why = "TLS is on already" if self._secured else "this option has no data"
            self._refuse(option, wire.REP_ERR_INVALID, why)
        elif self._tls is Tls.OFF:
            self._refuse(option, wire.REP_ERR_POLICY, "TLS is off here")
        elif self._buffer:
            # Bytes from before TLS must never count as bytes from inside it.
            self._leave("the client spoke on before TLS had started")
        else:
            self._reply(option, wire.REP_ACK)
            self._secured = True
            self._structured, self._context_for = False, None
            self._actions.append(Secure())

    def _info(self, option: int, data: bytes) -> None:
        """OPT_INFO, and OPT_GO, which enters transmission if it succeeds."""
        parts = _Parts(data)
        name = parts.text()
        wanted = [parts.u16() for _ in range(parts.u16())] if parts.good else []
        if not parts.complete:
            self._refuse(option, wire.REP_ERR_INVALID, "its data does not have its length")
            return
        offer = self._find(name)
        if offer is None:
            self._refuse(option, wire.REP_ERR_UNKNOWN, f"no export {name!r}")
            return
        about = wire.INFO_EXPORT_DATA.pack(wire.INFO_EXPORT, offer.size, offer.flags)
        self._reply(option, wire.REP_INFO, about)
        if wire.INFO_NAME in wanted:
            text = offer.name.encode("utf-8", "surrogateescape")
            self._reply(option, wire.REP_INFO, wire.U16.pack(wire.INFO_NAME) + text)
        if wire.INFO_DESCRIPTION in wanted and offer.description:
            text = offer.description.encode()
            self._reply(option, wire.REP_INFO, wire.U16.pack(wire.INFO_DESCRIPTION) + text)
        if wire.INFO_BLOCK_SIZE in wanted:
            sizes = (wire.INFO_BLOCK_SIZE, offer.minimum, offer.preferred, wire.PAYLOAD_LIMIT)
            self._reply(option, wire.REP_INFO, wire.INFO_BLOCK_SIZE_DATA.pack(*sizes))
        self._reply(option, wire.REP_ACK)
        if option == wire.OPT_GO:
            self._enter(offer)

    def _structured_reply(self, option: int, data: bytes) -> None:
        if data:
            self._refuse(option, wire.REP_ERR_INVALID, "this option has no data")
        else:
            self._structured = True
            self._reply(option, wire.REP_ACK)

    def _meta_context(self, option: int, data: bytes) -> None:
        """List, or choose, what block status tells: base:allocation."""
        setting = option == wire.OPT_SET_META_CONTEXT
        if setting:
            self._context_for = None  # also if this one fails
        parts = _Parts(data)
        name = parts.text()
        count = parts.u32()
        queries = [parts.text() for _ in range(min(count, len(data)))]
        if not parts.complete:
            self._refuse(option, wire.REP_ERR_INVALID, "its data does not have its length")
            return
        if not self._structured:
            self._refuse(option, wire.REP_ERR_INVALID, "ask for structured replies first")
            return
        offer = self._find(name)
        if offer is None:
            self._refuse(option, wire.REP_ERR_UNKNOWN, f"no export {name!r}")
            return
        found = wire.ALLOCATION in queries
        if not setting:
            found = found or not queries or "base:" in queries
        if found:
            number = wire.U32.pack(_CONTEXT_ID if setting else 0)
            self._reply(option, wire.REP_META_CONTEXT, number + wire.ALLOCATION.encode())
            if setting:
                self._context_for = offer.name
        self._reply(option, wire.REP_ACK)

    # -- ends ----------------------------------------------------------------------------------------

    def _find(self, name: str) -> Offer | None:
        """The export of that name; the empty name is the first one's, if nobody else has it."""
        found = self._offers.get(name)
        if found is None and not name:
            return next(iter(self._offers.values()), None)
        return found

    def _say(self, data: bytes) -> None:
        self._actions.append(Say(data))

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._say(wire.option_reply(option, kind, data))

    def _refuse(self, option: int, kind: int, why: str) -> None:
        self._reply(option, kind, why.encode("utf-8", "replace")[: wire.NAME_LIMIT])

    def _enter(self, offer: Offer) -> None:
        agreed = self._context_for == offer.name
        rest, self._buffer = self._buffer, b""
        allocation = _CONTEXT_ID if agreed else None
        self._actions.append(Enter(offer, self._structured, allocation, rest))
        self._over = True

    def _leave(self, why: str) -> None:
        self._actions.append(Leave(why))
        self._buffer = b""
        self._over = True


_ANSWERS: Final[Mapping[int, Callable[[Handshake, int, bytes], None]]] = {
    wire.OPT_EXPORT_NAME: Handshake._export_name,
    wire.OPT_ABORT: Handshake._abort,
    wire.OPT_LIST: Handshake._list,
    wire.OPT_STARTTLS: Handshake._starttls,
    wire.OPT_INFO: Handshake._info,
    wire.OPT_GO: Handshake._info,
    wire.OPT_STRUCTURED_REPLY: Handshake._structured_reply,
    wire.OPT_LIST_META_CONTEXT: Handshake._meta_context,
    wire.OPT_SET_META_CONTEXT: Handshake._meta_context,
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@final
class _Parts:
    """Reads numbers and strings from an option's data; once too short, it only gives empties."""

    __slots__ = ("_at", "_data", "good")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.good = True

    def u16(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def text(self) -> str:
        length = self.u32()
        if length > wire.NAME_LIMIT:
            self.good = False
        return _text(self._take(length))

    @property
    def complete(self) -> bool:
        return self.good and self._at == len(self._data)

    def _take(self, count: int) -> bytes:
        if not self.good or self._at + count > len(self._data):
            self.good = False
            return b""
        self._at += count
        return self._data[self._at - count : self._at]
