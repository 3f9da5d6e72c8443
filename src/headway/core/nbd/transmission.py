"""What a request asks for, whether it may, and the shape of its replies.

It moves no data and keeps no queue: whoever serves a connection hands over the bytes of one request
at a time (`take`), is told a `Verb`, and finds the request's numbers in the fields. A request that
may not be is answered, never ended with the connection; only bytes that are no request end it.

The order of judgement is nbdkit's, so that clients see what they know: a command that is not known,
or a flag that the command does not take, EINVAL; a change of a read-only export, EPERM; no bytes at
all, EINVAL; past the end, ENOSPC for WRITE and WRITE_ZEROES, else EINVAL. Any length that lies inside
the export is served: memory is never a reason, as a long request passes through in pieces.

Source: the NBD protocol, "Transmission phase" and "Error values"; nbdkit's answers as measured.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, final

from headway.core.nbd import wire
from headway.core.nbd.handshake import Enter


class Verb(Enum):
    """What is to be done with a request."""

    READ = "read"
    WRITE = "write"  # its payload follows
    FLUSH = "flush"
    TRIM = "trim"
    ZERO = "zero"
    CACHE = "cache"
    STATUS = "status"
    REFUSE = "refuse"  # skip `payload` bytes, answer `error`
    LEAVE = "leave"  # no more requests; answer those in flight, then close
    GARBAGE = "garbage"  # close


READ: Final = Verb.READ
_FUA, _NO_HOLE, _REQ_ONE = wire.FLAG_FUA, wire.FLAG_NO_HOLE, wire.FLAG_REQ_ONE

# command -> its verb, and the flags it takes. FUA is taken, and means nothing, where nothing is written.
_COMMANDS: Final = {
    wire.CMD_READ: (Verb.READ, _FUA),
    wire.CMD_WRITE: (Verb.WRITE, _FUA),
    wire.CMD_FLUSH: (Verb.FLUSH, _FUA),
    wire.CMD_TRIM: (Verb.TRIM, _FUA),
    wire.CMD_CACHE: (Verb.CACHE, _FUA),
    wire.CMD_WRITE_ZEROES: (Verb.ZERO, _FUA | _NO_HOLE),
    wire.CMD_BLOCK_STATUS: (Verb.STATUS, _FUA | _REQ_ONE),
}
_PACK_DATA: Final = wire.DATA_CHUNK.pack_into
_PACK_SIMPLE: Final = wire.SIMPLE.pack_into
_UNPACK: Final = wire.REQUEST.unpack_from
_CHANGES: Final = (Verb.WRITE, Verb.TRIM, Verb.ZERO)


def flags_for(*, read_only: bool) -> int:
    """The transmission flags of an export.

    Several connections always see each other's completed writes: they share one device, and a flush
    on any of them covers it.
    """
    flags = wire.HAS_FLAGS | wire.SEND_FLUSH | wire.SEND_FUA | wire.SEND_MULTI_CONN
    flags |= wire.SEND_CACHE
    if read_only:
        return flags | wire.SEND_READ_ONLY
    return flags | wire.SEND_TRIM | wire.SEND_WRITE_ZEROES


@final
class Transmission:
    """The requests of one connection, one at a time; its fields are the last one's."""

    __slots__ = (
        "allocation",
        "cookie",
        "count",
        "error",
        "flags",
        "head_size",
        "length",
        "offset",
        "payload",
        "read_only",
        "size",
        "structured",
        "verb",
        "why",
    )

    def __init__(self, entered: Enter) -> None:
        self.size = entered.offer.size
        self.read_only = bool(entered.offer.flags & wire.SEND_READ_ONLY)
        self.structured = entered.structured
        self.allocation = entered.allocation
        self.head_size = wire.DATA_CHUNK.size if entered.structured else wire.SIMPLE.size
        self.count = 0  # of requests judged: statistics
        self.cookie = 0
        self.offset = 0
        self.length = 0
        self.flags = 0
        self.error = 0
        self.why = ""
        self.payload = 0
        self.verb: Verb | None = None  # of the request that was refused last, if it is known

    def take(self, buffer: memoryview | bytes, at: int) -> Verb:
        """Judge the request of `wire.REQUEST.size` bytes that lies at `at`."""
        magic, flags, kind, self.cookie, offset, length = _UNPACK(buffer, at)
        self.offset = offset
        self.length = length
        self.flags = flags
        self.count += 1
        if magic != wire.REQUEST_MAGIC:
            return Verb.GARBAGE
        if kind <= wire.CMD_WRITE and 0 < length <= self.size - offset and not flags:
            if kind == wire.CMD_READ:
                return READ
            if not self.read_only:
                return Verb.WRITE
        return self._judge(kind, flags)

    def _judge(self, kind: int, flags: int) -> Verb:
        if kind == wire.CMD_DISC:
            return Verb.LEAVE
        self.payload = self.length if kind == wire.CMD_WRITE else 0
        verb, allowed = _COMMANDS.get(kind, (None, 0))
        self.verb = verb
        if verb is None:
            return self._refuse(wire.EINVAL, f"command {kind} is not known here")
        if flags & ~allowed:
            return self._refuse(wire.EINVAL, f"{verb.value} does not take flags {flags:#x}")
        if verb in _CHANGES and self.read_only:
            return self._refuse(wire.EPERM, f"{verb.value} of a read-only export")
        if verb is Verb.FLUSH:
            if self.offset or self.length:
                return self._refuse(wire.EINVAL, "flush has no offset and no length")
            return verb
        if not self.length:
            return self._refuse(wire.EINVAL, f"{verb.value} of no bytes")
        if self.length > self.size - self.offset:
            full = verb in (Verb.WRITE, Verb.ZERO)
            why = (
                f"{verb.value} of {self.length} bytes at offset {self.offset} ends past the export's "
                f"{self.size} bytes"
            )
            return self._refuse(wire.ENOSPC if full else wire.EINVAL, why)
        if verb is Verb.STATUS and self.allocation is None:
            return self._refuse(wire.EINVAL, f"block status without the context {wire.ALLOCATION}")
        return verb

    def _refuse(self, error: int, why: str) -> Verb:
        self.error = error
        self.why = why
        return Verb.REFUSE

    # -- replies -------------------------------------------------------------------------------------

    def pack_data_head(self, buffer: memoryview, at: int) -> None:
        """Write the head (`head_size` bytes) of the last request's reply, with all its data."""
        if self.structured:
            _PACK_DATA(
                buffer,
                at,
                wire.CHUNK_MAGIC,
                wire.CHUNK_DONE,
                wire.CHUNK_OFFSET_DATA,
                self.cookie,
                self.length + 8,
                self.offset,
            )
        else:
            _PACK_SIMPLE(buffer, at, wire.SIMPLE_MAGIC, 0, self.cookie)

    def pack_success(self, buffer: memoryview, at: int) -> None:
        """Write the reply (`wire.SIMPLE.size` bytes) to a last request that gives no data."""
        _PACK_SIMPLE(buffer, at, wire.SIMPLE_MAGIC, 0, self.cookie)

    def piece_head(
        self, cookie: int, offset: int, length: int, *, first: bool, last: bool
    ) -> bytes:
        """What stands before one piece of a reply that comes in several, in order.

        A simple reply has one head for all pieces; after it a failure can only end the connection.
        """
        if self.structured:
            flags = wire.CHUNK_DONE if last else 0
            return wire.DATA_CHUNK.pack(
                wire.CHUNK_MAGIC, flags, wire.CHUNK_OFFSET_DATA, cookie, length + 8, offset
            )
        return wire.simple(cookie) if first else b""

    def success(self, cookie: int) -> bytes:
        """The reply to whatever gives no data."""
        return wire.simple(cookie)

    def failure(
        self, verb: Verb | None, cookie: int, error: int, why: str, offset: int | None = None
    ) -> bytes:
        """The reply to a request of `verb` that failed, at `offset` if that is known."""
        if self.structured and (verb is READ or verb is Verb.STATUS):
            return wire.error_chunk(cookie, error, why, offset)
        return wire.simple(cookie, error)

    def refusal(self) -> bytes:
        """The reply to the request that was refused last."""
        return self.failure(self.verb, self.cookie, self.error, self.why)
