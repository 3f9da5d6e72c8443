"""The face of swap for threads: slots on a device, and a mapping whose values may be larger than memory.

It decides nothing: `headway.core.block.swap` and `headway.core.block.spill` do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, MutableMapping
from typing import Any, TypeVar, final

from headway.core.block import swap as core
from headway.core.block.bottom import Bottom
from headway.core.block.device import Device, Kind
from headway.core.block.spill import Spill
from headway.core.block.spilled import SpillStats, Swapping
from headway.core.block.stacked import StackedDevice
from headway.core.mm.gfp import Gfp
from headway.core.mm.shrinker import SEEKS
from headway.core.plan import Runtime
from headway.core.units import parse_size
from headway.errors import UsageError
from headway.runtimes.scopes import ambient
from headway.runtimes.threads import THREADS
from headway.threaded import Zone

__all__ = ["SpillStore", "Swap"]

V = TypeVar("V")


@final
class Swap(core.Swap):
    """Slots of `slot_size` on a device: where memory goes that has to be free now.

    Whatever was on the device is overwritten. It may be used by several stores, and by itself: take a
    slot (`alloc`, which refuses at once when the device is full), `write`, `read`, `free`.

    >>> from headway import open_device
    >>> swap = Swap(open_device("memory:1MiB"), slot_size="64KiB")
    >>> page = memoryview(bytearray(b"x" * 65536))
    >>> slot = swap.alloc()
    >>> swap.write(slot, page)
    >>> swap
    <Swap 'memory:1048576': 1 of 16 slots of 64KiB used, 1 written, 0 read>

    Raises: UsageError if the device has no such slots.
    """

    __slots__ = ()

    def __init__(
        self,
        device: Device,
        *,
        slot_size: int | str = "64KiB",
        name: str | None = None,
        in_flight: int = core.IN_FLIGHT,
        runtime: Runtime | None = None,
    ) -> None:
        super().__init__(
            Bottom(device),
            parse_size(slot_size, "slot_size"),
            runtime=runtime or ambient() or THREADS,
            name=name or device.name,
            in_flight=in_flight,
            offloads=device.kind is not Kind.MEMORY or isinstance(device, StackedDevice),
        )

    def write(self, slot: int, view: memoryview) -> None:
        """Write `slot_size` bytes to a slot. Waits: for the device, and for a bio of the swap's own.

        Raises: BlockError.
        """
        self._runtime.run(self.write_plan(slot, view))

    def read(self, slot: int, view: memoryview) -> None:
        """Read a slot back. Waits, raises: as `write`."""
        self._runtime.run(self.read_plan(slot, view))


@final
class SpillStore(MutableMapping[Hashable, V]):
    """A mapping whose values live in a zone's memory as long as there is room, and on a swap else.

    Values are bytes-like, and come back as bytes. With `dumps` and `loads` (`pickle.dumps` and
    `pickle.loads`, say, if nobody else can write to the device) they are what those take and give.

    `reserve` frames are the store's for ever: with one, values of any size are stored and loaded
    even if no other memory can be had. For others it gives pages up only while clean cache is below a
    twentieth of the zone. When the swap is full a store is refused at once with
    `NoMemory`, and nothing is lost.

    >>> from headway import Zone, open_device
    >>> zone = Zone("64KiB", min_free=0)
    >>> swap = Swap(open_device("memory:1MiB"), slot_size=4096)
    >>> store = SpillStore(swap, memory=zone)
    >>> for number in range(50):
    ...     store[number] = bytes([number]) * 5000
    >>> all(store[number] == bytes([number]) * 5000 for number in range(50))
    True
    >>> store.close()

    Raises: NoMemory if the reserve cannot be had now.
    """

    def __init__(
        self,
        swap: Swap,
        *,
        memory: Zone,
        name: str = "spill store",
        reserve: int = 1,
        dumps: Callable[[V], Any] | None = None,
        loads: Callable[[Any], V] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if reserve < 1 or (dumps is None) != (loads is None):
            raise UsageError(
                f"spill store {name!r}: reserve={reserve}; it needs 1 or more, and dumps= and loads= both "
                "or neither"
            )
        self._dumps, self._loads = dumps, loads
        self._share: Any = memory.buffers(swap.slot_size, floor=reserve * swap.slot_size, name=name)
        try:
            self.core = Spill(
                swap, self._share, runtime=runtime or ambient() or THREADS, name=name,
                reserve_count=reserve,
            )  # fmt: skip
        except BaseException:
            self._share.close()
            raise
        self._share.on_room(self.core.supply.kick)
        self._registered = memory.register_shrinker(
            Swapping(self.core, memory.slow_path().zone.swap_due),
            name=name,
            object_size=swap.slot_size,
            needs=Gfp.IO,
            seeks=2 * SEEKS,  # a write now, and a read to have it again
        )

    def __setitem__(self, key: Hashable, value: V) -> None:
        """Store a value. Waits: for a frame, at most for one write to the swap.

        Raises: NoMemory at once if neither memory nor swap has room; BlockError if the swap fails;
        UsageError if the value is not bytes-like and there is no `dumps`.
        """
        data: Any = value if self._dumps is None else self._dumps(value)
        try:
            view = memoryview(data).cast("B")
        except TypeError:
            raise UsageError(
                f"{self.core.name!r} was given {type(value).__name__}: it keeps bytes; make it with dumps= and "
                "loads= (pickle.dumps, pickle.loads) for other values"
            ) from None
        self.core.runtime.run(self.core.put_plan(key, view))

    def __getitem__(self, key: Hashable) -> V:
        """The value. Waits: for its pages to come back. Raises: KeyError, BlockError."""
        found = self.core.runtime.run(self.core.get_plan(key))
        return bytes(found) if self._loads is None else self._loads(found)  # type: ignore[return-value]

    def __delitem__(self, key: Hashable) -> None:
        self.core.delete(key)

    def __iter__(self) -> Iterator[Hashable]:
        return self.core.keys()

    def __len__(self) -> int:
        return len(self.core)

    def __contains__(self, key: object) -> bool:
        return key in self.core

    def spill(self, page_count: int) -> int:
        """Give the zone back the memory of so many pages, the least used first; how many it were.

        Waits: for them to be written.
        """
        return self.core.runtime.run(self.core.spill_plan(page_count))

    def stats(self) -> SpillStats:
        return self.core.stats()

    def close(self) -> None:
        """Forget all values, give memory and slots back. The swap and its device stay open."""
        self._registered.unregister()
        self.core.close()
        self._share.close()

    def __enter__(self) -> SpillStore[V]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<SpillStore {stats.name!r}: {stats.values} values, {stats.resident} pages in memory, "
            f"{stats.spilled} on swap>"
        )
