"""Fill freed elements with a pattern and look at it when they are taken: who writes after free is seen.

It does not stop anybody: the element is delivered all the same, and the finding is reported. Works on
elements that are writable buffers; others pass unlooked at.

Source: Linux ``include/linux/poison.h`` (0x6b, last byte 0xa5 while free; 0x5a when taken).
"""

from __future__ import annotations

FREE, END, TAKEN = 0x6B, 0xA5, 0x5A
WINDOW = 8  # bytes shown on either side of the first wrong one


def _bytes_of(element: object) -> memoryview | None:
    try:
        view = memoryview(element).cast("B")  # type: ignore[arg-type]  # not a buffer: TypeError, below
    except TypeError:
        return None
    return None if view.readonly or not len(view) else view


def fill(element: object) -> None:
    """Mark an element as free."""
    view = _bytes_of(element)
    if view is not None:
        view[:] = bytes((FREE,)) * (len(view) - 1) + bytes((END,))


def inspect(element: object) -> str | None:
    """What is wrong with a free element's pattern (offset and bytes around it), or None; marks it taken."""
    view = _bytes_of(element)
    if view is None:
        return None
    expected = bytes((FREE,)) * (len(view) - 1) + bytes((END,))
    found = bytes(view)
    if found == expected:
        view[:] = bytes((TAKEN,)) * len(view)
        return None
    offset = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
    window = found[max(0, offset - WINDOW) : offset + WINDOW + 1]
    return f"written after free at offset {offset} of {len(found)} bytes: {window.hex(' ')}"
