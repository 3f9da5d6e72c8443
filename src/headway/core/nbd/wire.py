"""The words of the NBD protocol: every constant, and how each message lies in bytes.

It decides nothing: `headway.core.nbd.handshake` and `headway.core.nbd.transmission` do. All numbers
are big-endian and unsigned. A name here is the specification's, without its NBD_ prefix.

Source: the NBD protocol, doc/proto.md of the reference implementation (the section is named at
each group).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

# -- Newstyle negotiation ------------------------------------------------------------------------

MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9

GREETING: Final = Struct(">QQH")  # magic, option magic, handshake flags
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">QII")  # magic, option, length of its data
OPTION_REPLY: Final = Struct(">QIII")  # magic, option, reply type, length of its data
EXPORT: Final = Struct(">QH")  # size, transmission flags
EXPORT_PADDING: Final = 124  # zeros after EXPORT where NO_ZEROES was not agreed
U32: Final = Struct(">I")
U16: Final = Struct(">H")

# Handshake flags, the same two bits from either side
FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1

# Option types
OPT_EXPORT_NAME: Final = 1
OPT_ABORT: Final = 2
OPT_LIST: Final = 3
OPT_STARTTLS: Final = 5
OPT_INFO: Final = 6
OPT_GO: Final = 7
OPT_STRUCTURED_REPLY: Final = 8
OPT_LIST_META_CONTEXT: Final = 9
OPT_SET_META_CONTEXT: Final = 10

# Option reply types
REP_ACK: Final = 1
REP_SERVER: Final = 2
REP_INFO: Final = 3
REP_META_CONTEXT: Final = 4
REP_ERROR: Final = 1 << 31
REP_ERR_UNSUP: Final = REP_ERROR + 1
REP_ERR_POLICY: Final = REP_ERROR + 2
REP_ERR_INVALID: Final = REP_ERROR + 3
REP_ERR_TLS_REQD: Final = REP_ERROR + 5
REP_ERR_UNKNOWN: Final = REP_ERROR + 6
REP_ERR_SHUTDOWN: Final = REP_ERROR + 7
REP_ERR_TOO_BIG: Final = REP_ERROR + 9

# Information types of OPT_INFO and OPT_GO
INFO_EXPORT: Final = 0
INFO_NAME: Final = 1
INFO_DESCRIPTION: Final = 2
INFO_BLOCK_SIZE: Final = 3

INFO_EXPORT_DATA: Final = Struct(">HQH")  # type, size, transmission flags
INFO_BLOCK_SIZE_DATA: Final = Struct(">HIII")  # type, minimum, preferred, maximum payload
NAME_LIMIT: Final = 4096  # bytes of any string
PAYLOAD_LIMIT: Final = 32 << 20  # what a client may assume a server takes in one request

# Transmission flags
SEND_READ_ONLY: Final = 1 << 1
SEND_FLUSH: Final = 1 << 2
SEND_FUA: Final = 1 << 3
SEND_TRIM: Final = 1 << 5
SEND_WRITE_ZEROES: Final = 1 << 6
SEND_MULTI_CONN: Final = 1 << 8
SEND_CACHE: Final = 1 << 10
HAS_FLAGS: Final = 1 << 0

# -- Transmission ---------------------------------------------------------------------------------

REQUEST_MAGIC: Final = 0x25609513
SIMPLE_MAGIC: Final = 0x67446698
CHUNK_MAGIC: Final = 0x668E33EF

REQUEST: Final = Struct(">IHHQQI")  # magic, flags, type, cookie, offset, length
SIMPLE: Final = Struct(">IIQ")  # magic, error, cookie
CHUNK: Final = Struct(">IHHQI")  # magic, flags, type, cookie, length of its data
DATA_CHUNK: Final = Struct(">IHHQIQ")  # a CHUNK, and the offset that its data starts with
HOLE_CHUNK: Final = Struct(">IHHQIQI")  # a CHUNK, an offset, and how many zeros
ERROR_HEAD: Final = Struct(">IH")  # error, length of the message
U64: Final = Struct(">Q")
EXTENT: Final = Struct(">II")  # length, status flags

# Request types
CMD_READ: Final = 0
CMD_WRITE: Final = 1
CMD_DISC: Final = 2
CMD_FLUSH: Final = 3
CMD_TRIM: Final = 4
CMD_CACHE: Final = 5
CMD_WRITE_ZEROES: Final = 6
CMD_BLOCK_STATUS: Final = 7

# Command flags
FLAG_FUA: Final = 1 << 0
FLAG_NO_HOLE: Final = 1 << 1
FLAG_REQ_ONE: Final = 1 << 3

# Chunk flags and types
CHUNK_DONE: Final = 1 << 0
CHUNK_NONE: Final = 0
CHUNK_OFFSET_DATA: Final = 1
CHUNK_OFFSET_HOLE: Final = 2
CHUNK_BLOCK_STATUS: Final = 5
CHUNK_ERROR: Final = (1 << 15) + 1
CHUNK_ERROR_OFFSET: Final = (1 << 15) + 2
CHUNK_IS_ERROR: Final = 1 << 15

# Status flags of the context base:allocation
ALLOCATION: Final = "base:allocation"
STATE_HOLE: Final = 1 << 0
STATE_ZERO: Final = 1 << 1

# Error values: the numbers are Linux's, but belong to the protocol
EPERM: Final = 1
EIO: Final = 5
ENOMEM: Final = 12
EINVAL: Final = 22
ENOSPC: Final = 28
EOVERFLOW: Final = 75
ENOTSUP: Final = 95
ESHUTDOWN: Final = 108
_ERRORS: Final = (EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN)
# What a device may say, and the protocol has no word for: EACCES, EFBIG, EROFS, EDQUOT
_NEAREST: Final = {13: EPERM, 27: ENOSPC, 30: EPERM, 122: ENOSPC}


def error_for(errno: int | None) -> int:
    """The protocol's error for a device's errno; EIO for what it has no word for."""
    if errno in _ERRORS:
        return errno
    return EIO if errno is None else _NEAREST.get(errno, EIO)


def option_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def option(option: int, data: bytes = b"") -> bytes:
    """What a client says."""
    return OPTION.pack(OPTION_MAGIC, option, len(data)) + data


def counted(text: str) -> bytes:
    """A string behind its 32-bit length."""
    data = text.encode("utf-8", "surrogateescape")
    return U32.pack(len(data)) + data


def simple(cookie: int, error: int = 0) -> bytes:
    """A simple reply without payload."""
    return SIMPLE.pack(SIMPLE_MAGIC, error, cookie)


def error_chunk(cookie: int, error: int, message: str, offset: int | None = None) -> bytes:
    """The last chunk of a reply that failed, at `offset` if that is known."""
    text = message.encode("utf-8", "replace")[:1000]
    tail = b"" if offset is None else U64.pack(offset)
    kind = CHUNK_ERROR if offset is None else CHUNK_ERROR_OFFSET
    data = ERROR_HEAD.pack(error, len(text)) + text + tail
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, kind, cookie, len(data)) + data


def status_chunk(cookie: int, context: int, extents: list[tuple[int, int]]) -> bytes:
    """The only chunk of a block status reply: (length, flags) of each extent in order."""
    data = U32.pack(context) + b"".join(EXTENT.pack(*extent) for extent in extents)
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_BLOCK_STATUS, cookie, len(data)) + data
