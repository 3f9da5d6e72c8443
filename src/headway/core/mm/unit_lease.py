"""Counted units for the length of a ``with`` block: they go back however it ends.

It makes no decision of its own. What it takes from has ``alloc`` and ``free``, and gets the same
arguments for both.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, final

from headway.core.mm.gfp import Gfp


@final
class UnitLease:
    """What ``budget.lease(units)`` gives; entering it says whether the units were had."""

    __slots__ = ("_entitled", "_gfp", "_held", "_source", "_timeout_s", "_units")

    def __init__(
        self,
        source: Any,
        units: tuple[int | str, ...],
        gfp: Gfp,
        timeout_s: float | None,
        entitled: bool,
    ) -> None:
        self._source = source
        self._units = units
        self._gfp = gfp
        self._timeout_s = timeout_s
        self._entitled = entitled
        self._held = False

    def __enter__(self) -> bool:
        self._held = self._source.alloc(
            *self._units, self._gfp, self._timeout_s, entitled=self._entitled
        )
        return self._held

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        held, self._held = self._held, False
        if held:
            self._source.free(*self._units)

    async def __aenter__(self) -> bool:
        self._held = await self._source.alloc(
            *self._units, self._gfp, self._timeout_s, entitled=self._entitled
        )
        return self._held

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def hand_over(self) -> None:
        """The units are in flight: the block's end no longer gives them back, their completion does."""
        held, self._held = self._held, False
        if held:
            self._source.hand_over(*self._units)
