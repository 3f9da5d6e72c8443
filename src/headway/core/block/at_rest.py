"""Reading before a stack is started: headers, which say how large a layer is.

It decides nothing. Nothing below has workers yet and nobody is served, so the bytes are moved here and
now, through the inline doors, with the lowest layers' held open.

Source: own.
"""

from __future__ import annotations

from typing import final

from headway.core.block.bio import READ, Bio
from headway.core.block.bottom import Bottom
from headway.core.block.layer import Layer, combined, each
from headway.errors import UsageError


@final
class AtRest:
    """A layer that is not started yet, as bytes at offsets. `why` says who needs it, for the error."""

    __slots__ = ("_layer", "_why", "name", "size")

    def __init__(self, layer: Layer, why: str) -> None:
        self._layer = layer
        self._why = why
        self.name, self.size = layer.name, layer.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes, fewer where the device ends; whole blocks are read for them. Raises: BlockError;
        UsageError if a layer below answers only once it is started."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        block = combined(self._layer).alignment
        start = offset - offset % block
        view = memoryview(bytearray(end + -end % block - start))
        self._carry_out(Bio(READ, start, view))
        return bytes(view[offset - start : end - start])

    def _carry_out(self, bio: Bio) -> None:
        bottoms = [layer for layer in each(self._layer) if isinstance(layer, Bottom)]
        before = [bottom.inline for bottom in bottoms]
        for bottom in bottoms:
            bottom.inline = True
        try:
            if not self._layer.submit_now(bio):
                raise UsageError(
                    f"{self._why} is on {self._layer.name}, which answers only when it is started (a delay, "
                    "a host, a smaller block): put that above it, or the header on a device of its own"
                )
        finally:
            for bottom, inline in zip(bottoms, before, strict=True):
                bottom.inline = inline
        if bio.error is not None:
            raise bio.error
