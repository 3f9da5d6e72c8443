"""A request that passes through in pieces: a long read being sent, a write being received.

They hold numbers and at most one frame; `headway.edge.serving.connection` moves the bytes.
"""

from __future__ import annotations

from typing import final


@final
class Reading:
    """A read longer than a frame: what is left of it."""

    __slots__ = ("cookie", "first", "left", "offset")

    def __init__(self, cookie: int, offset: int, length: int) -> None:
        self.cookie = cookie
        self.offset = offset  # of the next piece
        self.left = length
        self.first = True

    def advance(self, length: int) -> None:
        self.offset += length
        self.left -= length
        self.first = False


@final
class Filling:
    """A write whose payload is still on its way, or whose pieces are still with workers.

    After a failure the rest of the payload is received and forgotten; the first failure is answered.
    """

    __slots__ = (
        "cookie",
        "error",
        "flags",
        "frame",
        "have",
        "left",
        "offset",
        "pending",
        "prompt",
        "why",
    )

    def __init__(self, cookie: int, offset: int, length: int, flags: int) -> None:
        self.cookie = cookie
        self.offset = offset  # of the piece in the frame
        self.left = length  # from there to the end of the request
        self.flags = flags
        self.frame: memoryview | None = None
        self.have = 0  # bytes in the frame
        self.prompt = True  # whether a part of a piece is worth a try: none had to wait so far
        self.pending = 0  # pieces with workers
        self.error = 0
        self.why = ""

    @property
    def piece(self) -> int:
        """How long the piece is that the frame is being filled with."""
        assert self.frame is not None
        return min(self.left, len(self.frame))

    def advance(self, length: int) -> None:
        self.offset += length
        self.left -= length
        self.have = 0

    def fail(self, error: int, why: str) -> None:
        if not self.error:
            self.error, self.why = error, why

    @property
    def done(self) -> bool:
        return not self.left and not self.pending
