"""Reservations for asyncio: the same promises, awaited.

It decides nothing. One set of reservations may serve threads and several loops at once:
``aio.Reservations(reservations)`` gives an existing one this face, a zone makes one.
"""

from __future__ import annotations

from types import TracebackType
from typing import final

from headway.core.mm import reservation as core
from headway.edge import reservation as edge
from headway.edge.arena import PAGE_BYTES
from headway.edge.zone import Zone
from headway.runtimes import scopes, tasks


@final
class Reservations:
    """Promises of buffers whose waits suspend the task: `headway.Reservations` with ``await``."""

    __slots__ = ("close", "reservations")

    def __init__(
        self,
        reservations: core.Reservations[memoryview] | Zone,
        size: int | str = PAGE_BYTES,
        *,
        name: str = "reservations",
    ) -> None:
        if isinstance(reservations, Zone):
            reservations = edge.Reservations(reservations, size, name=name)
        self.reservations = reservations
        self.close = reservations.close

    def try_reserve(
        self, count: int, name: str = "reserve", parent: Reserve | None = None
    ) -> Reserve | None:
        """The promise of `count` buffers, or None: an order to wait. Answers at once."""
        made = self.reservations.try_reserve(count, name, _core(parent))
        return None if made is None else Reserve(made)

    async def reserve(
        self,
        count: int,
        name: str = "reserve",
        parent: Reserve | None = None,
        timeout_s: float | None = None,
    ) -> Reserve:
        """The promise of `count` buffers; waits for it in order of arrival. A cancelled wait loses nothing.

        Raises: PoolTimeout; UsageError if the zone could never promise so many.
        """
        plan = self.reservations.reserve_plan(count, name, scopes.owner(), _core(parent), timeout_s)
        return Reserve(await tasks.run(plan))

    def __repr__(self) -> str:
        return f"<aio {repr(self.reservations)[1:]}"


def _core(reserve: Reserve | None) -> core.Reserve[memoryview] | None:
    return None if reserve is None else reserve.reserve


@final
class Reserve:
    """One promise; what it draws it gives back, and ``async with`` releases it at the end."""

    __slots__ = ("free", "release", "reserve")

    def __init__(self, reserve: core.Reserve[memoryview]) -> None:
        self.reserve = reserve
        self.free = reserve.free
        self.release = reserve.release

    async def child(self, count: int, name: str, timeout_s: float | None = None) -> Reserve:
        """A part of this reserve, admitted as `Reservations.reserve`."""
        return await Reservations(self.reserve.of).reserve(count, name, self, timeout_s)

    def try_child(self, count: int, name: str) -> Reserve | None:
        """A part of this reserve, or None: an order to wait."""
        return Reservations(self.reserve.of).try_reserve(count, name, self)

    async def draw(self) -> memoryview:
        """One of the buffers that were promised. Waits: for no I/O and no holder.

        Raises: UsageError if all that was promised is drawn.
        """
        drawn = self.reserve.of.draw_now(self.reserve)
        if drawn is not None:
            return drawn
        return await tasks.run(self.reserve.draw_plan(scopes.current(), scopes.owner()))

    async def __aenter__(self) -> Reserve:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<aio {repr(self.reserve)[1:]}"
