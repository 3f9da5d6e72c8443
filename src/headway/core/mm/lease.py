"""An element for the length of a ``with`` block: it goes back however the block ends.

It makes no decision of its own. A lease is a fresh object each time: reusing one would save 30 ns and
buy stale handles. It has no ``__init__``, whose frame would cost as much again: `Mempool.lease` fills it in.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, TypeVar, final

from headway.core.mm.gfp import Gfp

E = TypeVar("E")


@final
class Lease(Generic[E]):
    """What ``pool.lease()`` gives; enter it to get the element."""

    __slots__ = ("_gfp", "_pool", "_timeout_s", "element")

    _pool: Any
    _gfp: Gfp
    _timeout_s: float | None
    element: Any

    def __enter__(self) -> E:
        self.element = element = self._pool.alloc(self._gfp, self._timeout_s)
        return element  # type: ignore[no-any-return]  # the pool's own element type

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        element = self.element
        if element is not None:
            self.element = None
            self._pool.free(element)

    def hand_over(self) -> E:
        """The element is in flight: the block's end no longer frees it, its completion does."""
        element, self.element = self.element, None
        self._pool.hand_over(element)
        return element  # type: ignore[no-any-return]  # as above
