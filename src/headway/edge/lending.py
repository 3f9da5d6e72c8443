"""Who writes to, or still looks at, memory that was given back: the arena's views in debug mode.

It does not decide who gets memory. Free memory is filled with 0x6b; what is found changed when
it is lent again (or when the zone is closed) was written after free, and is reported with its
offset, not raised: whoever takes the memory next did not do it. A view that is given back is
released, so that its old holder's next access raises ValueError. If something else still exports it
(a slice, an array made from it) the return is refused, with the memory still lent.

The trick that shows slices: a view of a view counts as an export of the lowest buffer, not of the
view it was cut from. So each lent view is made over a `pickle.PickleBuffer` around an inner view:
all slices then hang on that, and the inner view can be released only when the last one is gone.

Bound: lending costs one pass over the memory, giving back another.

Source: Linux ``include/linux/poison.h`` (0x6b).
"""

from __future__ import annotations

from typing import Final, final

from headway.core.units import format_size
from headway.edge.arena import Arena
from headway.errors import UsageError

POISON: Final = 0x6B
_CHUNK: Final = 64 << 10
_PATTERN: Final = bytes((POISON,)) * _CHUNK
_SHOWN: Final = 16  # bytes of a finding that are shown


@final
class Lending:
    """The views of an arena that are out, each fresh and each watched."""

    __slots__ = ("_arena", "_lent")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._lent: dict[
            int, tuple[memoryview, memoryview, int]
        ] = {}  # offset -> inner, lent, size
        _fill(arena.view(0, arena.size_bytes))

    def lend(self, offset: int, size_bytes: int) -> tuple[memoryview, str | None]:
        """A fresh view, and what is wrong with the memory below it (or None)."""
        from pickle import PickleBuffer  # here: only debug mode needs it

        inner = self._arena.view(offset, size_bytes)
        finding = written_after_free(inner, offset)
        view = memoryview(PickleBuffer(inner))
        self._lent[offset] = (inner, view, size_bytes)
        return view, finding

    def take_back(self, offset: int) -> None:
        """Release the view and fill its memory.

        Raises: UsageError if something made from it is in use; then its memory is still lent, and
        this is to be called again when that is gone.
        """
        inner, view, size_bytes = self._lent[offset]
        try:
            view.release()
            inner.release()
        except BufferError:
            raise UsageError(
                f"buffer of {format_size(size_bytes)} at offset {offset} freed while slices or "
                "arrays made from it are in use; release them first, then free it"
            ) from None
        del self._lent[offset]
        _fill(self._arena.view(offset, size_bytes))


def written_after_free(view: memoryview, offset: int) -> str | None:
    """Where free memory, at `offset` in its arena, is not as it was left; None if it is."""
    for start in range(0, len(view), _CHUNK):
        found = bytes(view[start : start + _CHUNK])
        if found != _PATTERN[: len(found)]:
            first = start + len(found) - len(found.lstrip(_PATTERN[:1]))
            shown = bytes(view[first : first + _SHOWN]).hex(" ")
            return (
                f"written after free at offset {offset + first} of the arena "
                f"({first} of a buffer of {len(view)} bytes): {shown}"
            )
    return None


def _fill(view: memoryview) -> None:
    for start in range(0, len(view), _CHUNK):
        part = view[start : start + _CHUNK]
        part[:] = _PATTERN[: len(part)]
