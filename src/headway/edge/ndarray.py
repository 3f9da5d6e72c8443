"""Arrays for NumPy in a zone's memory: mapped, touched, aligned to pages, and back when the last view is gone.

It decides nothing: an array is a buffer of the zone, of the power of two that it fits into. What a large
temporary costs elsewhere is that its pages are faulted in anew each time; here they are warm, and under
pressure the zone gives what is free to the system (`Zone.give_back`).

What is given is a view of a flat array, and so is all that is made from it: NumPy follows a chain of
bases down to the first that does not own its memory through another array, which is this one, and keeps
it. When it dies, the buffer is freed. `free` may be called from a finaliser, so it does not matter when,
and on which thread, that is.

Bound: internal waste is below one half; one array is one request to the zone.

Source: numpy PR #8783 and #11957 (blocks cached, huge pages): both wanted this, neither gave it back.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headway.core.mm.gfp import Gfp
from headway.core.units import format_size
from headway.edge.buffers import Buffers
from headway.errors import MissingExtra, NoMemory, UsageError

if TYPE_CHECKING:
    import numpy


def make(
    buffers: Callable[[int], Buffers],
    shape: int | tuple[int, ...],
    dtype: Any,
    gfp: Gfp,
    zone: str,
) -> numpy.ndarray[Any, Any]:
    """An array over a buffer that ``buffers(size_bytes)`` lends. Raises: as `Zone.ndarray`."""
    try:
        import numpy
    except ImportError:
        raise MissingExtra("an array in a zone", "numpy") from None
    kind = numpy.dtype(dtype)
    what = f"zone {zone!r}: array of shape {shape}, {kind}"
    if kind.hasobject:
        raise UsageError(f"{what}: objects cannot lie in a zone; use a type without references")
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(extent < 0 for extent in extents):
        raise UsageError(f"{what}: no extent may be negative")
    size_bytes = math.prod(extents) * kind.itemsize
    if not size_bytes:
        return numpy.empty(extents, kind)
    user = buffers(size_bytes)
    view = None if gfp & Gfp.ZERO else user.light(gfp)
    if view is None:
        view = user.alloc(gfp)
    if view is None:
        raise NoMemory(
            f"{what}: {format_size(size_bytes)} is not to be had now; drop arrays sooner, or make the zone "
            "larger"
        )
    flat = numpy.frombuffer(view, kind, math.prod(extents))
    weakref.finalize(flat, user.free, view).atexit = False
    return flat.reshape(extents)
