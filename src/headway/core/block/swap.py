"""Swap: slots on a device, for memory that has to be free now and whose content is wanted again.

It does not choose what goes out (`spill` does, or whoever shrinks). A slot is as long as a page of those
who use it. Taking a slot never waits: a full device refuses at once, since whoever asks is making room and
cannot wait for room. Writing goes straight from the page to the device, in a bio of the swap's own set and
under NOIO; so to write a page out takes nothing that writing pages out would have to free.

Bound: `in_flight` transfers at once, others wait their turn; one integer for each slot that was freed.

Source: Linux ``mm/page_io.c``, ``mm/swapfile.c`` (6.12); ``get_swap_bio`` of 2.6 for the closed set of bios.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from headway.core.block.bio import READ, WRITE, Bio, Op
from headway.core.block.bioset import BioSet
from headway.core.block.layer import Layer, combined
from headway.core.block.line import NOIO
from headway.core.block.sending import carry_out
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size
from headway.errors import BlockError, UsageError

IN_FLIGHT: Final = 4
NO_SLOT: Final = -1

Ended: TypeAlias = Callable[[BaseException | None], object]


def _nobody(error: BaseException | None) -> None:
    """Nobody else has to hear of a transfer's end."""


@final
@dataclass(frozen=True, slots=True)
class SwapStats:
    """A snapshot. `refused` is how often a slot was asked for and the device was full."""

    name: str
    slot_size: int
    slots: int
    used: int
    written: int
    read: int
    refused: int


class Swap:
    """The slots of one device. `_free` and `_fresh` change under `_guard`; the rest are statistics."""

    __slots__ = (
        "_bios", "_free", "_fresh", "_guard", "_runtime", "layer", "name", "offloads", "reads", "refused",
        "slot_count", "slot_size", "used", "writes",
    )  # fmt: skip

    def __init__(
        self,
        layer: Layer,
        slot_size: int,
        *,
        runtime: Runtime,
        name: str = "swap",
        in_flight: int = IN_FLIGHT,
        offloads: bool = False,
    ) -> None:
        """Raises: UsageError if the device has no such slots."""
        alignment = combined(layer).alignment
        if slot_size < 1 or slot_size % alignment or layer.size < slot_size:
            raise UsageError(
                f"swap {name!r}: slots of {slot_size} bytes on {layer.name} of {layer.size}: a slot must "
                f"be a multiple of the device's {alignment}, and the device hold at least one"
            )
        self.name = name
        self.layer = layer
        self.offloads = offloads
        self.slot_size = slot_size
        self.slot_count = layer.size // slot_size
        self._runtime = runtime
        self._guard = runtime.guard()
        self._bios = BioSet(runtime, f"swap bios of {name}", min_count=in_flight)
        self._free: list[int] = []
        self._fresh = 0  # slots from here on were never used
        self.used = self.writes = self.reads = self.refused = 0

    @property
    def scarce(self) -> bool:
        """More than half is used: a page that is in memory again should give its slot up."""
        return 2 * self.used > self.slot_count

    def alloc(self, keep: int = 0) -> int:
        """A slot, if `keep` are left after it. Waits: never. Raises: BlockError (ENOSPC) if the device is full."""
        with self._guard:
            if self.used + keep >= self.slot_count:
                self.refused += 1
                raise self._full()
            if self._free:
                slot = self._free.pop()
            else:
                slot, self._fresh = self._fresh, self._fresh + 1
            self.used += 1
            return slot

    def _full(self) -> BlockError:
        return BlockError(
            errno.ENOSPC,
            f"swap {self.name!r} is full: {self.used} of {self.slot_count} slots of "
            f"{format_size(self.slot_size)} are used; delete something, or give it a larger device",
        )

    def free(self, slot: int) -> None:
        """Give a slot back; its content is not needed any more. Waits: never."""
        with self._guard:
            assert 0 <= slot < self._fresh and self.used > 0, slot
            self.used -= 1
            self._free.append(slot)

    def write_plan(self, slot: int, view: memoryview, ended: Ended = _nobody) -> Plan[None]:
        """Write a page to its slot. Waits: for a bio of the swap's own, and for the device.

        Memory and slot are in use until the device is done with them, whoever is cancelled: `ended` is
        called then, once, with the error or None, on whatever thread. Raises: BlockError.
        """
        yield from self._move(WRITE, slot, view, ended)
        self.writes += 1

    def read_plan(self, slot: int, view: memoryview, ended: Ended = _nobody) -> Plan[None]:
        """Read a slot back. Waits, calls, raises: as `write_plan`."""
        yield from self._move(READ, slot, view, ended)
        self.reads += 1

    def _move(self, op: Op, slot: int, view: memoryview, ended: Ended) -> Plan[None]:
        assert len(view) == self.slot_size, (len(view), self.slot_size)
        try:
            bio = yield from self._bios.alloc()
        except BaseException as error:
            ended(error)
            raise
        bio.aim(op, slot * self.slot_size, view, self.slot_size)

        def over(bio: Bio) -> None:
            error = bio.error
            self._bios.free(bio)
            ended(error)

        yield from carry_out(self, bio, over, self._runtime.owner(), NOIO)

    def stats(self) -> SwapStats:
        return SwapStats(
            self.name,
            self.slot_size,
            self.slot_count,
            self.used,
            self.writes,
            self.reads,
            self.refused,
        )

    def close(self) -> None:
        """Raises: PoolBusy if transfers are under way. What is in the slots is lost with their numbers."""
        self._bios.close()

    def __repr__(self) -> str:
        return (
            f"<Swap {self.name!r}: {self.used} of {self.slot_count} slots of "
            f"{format_size(self.slot_size)} used, {self.writes} written, {self.reads} read>"
        )
