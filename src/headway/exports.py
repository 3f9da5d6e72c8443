"""Opens what is to be served: devices by name, stacks of layers on them, and the layers' memory.

It decides what may be opened together: no device twice where there are layers, since two stacks on one
device would each believe it to be theirs. What layers need comes out of the server's memory: a quarter
of it, mapped when the first layer asks, with every stack's reserves in it; what is left helps them in
easy times. A stack that asks for more than that is refused at the start, not when it runs dry.

Source: own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, final

from headway.core.block.bottom import Bottom
from headway.core.block.device import Device
from headway.core.block.layer import each
from headway.core.block.stacked import StackedDevice
from headway.core.units import format_size
from headway.devices import open_stack
from headway.edge.opening import open_device
from headway.errors import HeadwayError, NoMemory, UsageError
from headway.threaded import Zone

__all__ = ["Exports", "LayerMemory", "open_exports"]

_IN_FLIGHT = 16  # requests of one stack that may wait for its devices at once


@final
class LayerMemory:
    """At most `limit` bytes for the buffers of all layers; mapped and touched when the first asks."""

    __slots__ = ("_zone", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._zone: Zone | None = None

    def buffers(self, size: int, *, name: str) -> Any:
        """As `Zone.buffers`. Raises: UsageError if one does not fit."""
        if self._zone is None:
            self._zone = Zone(self.limit, name="layers", min_free=0)
        return self._zone.buffers(size, name=name)

    @property
    def mapped_bytes(self) -> int:
        return 0 if self._zone is None else self._zone.size

    def close(self) -> None:
        """Give it back. Raises: PoolBusy if a stack still has some of it."""
        if self._zone is not None:
            self._zone.close()


@final
class Exports(dict[str, Device]):
    """What is served, by name; `memory_bytes` is what is set aside for layers."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.memory = LayerMemory(limit)

    @property
    def memory_bytes(self) -> int:
        return self.memory.mapped_bytes

    def add(self, spec: str, *, read_only: bool, layers: Sequence[str]) -> None:
        """Open one ``[NAME=]DEVICE``. Raises: as `open_exports`."""
        name, equals, rest = spec.partition("=")
        if not equals or "/" in name or ":" in name:
            name, rest = "", spec
        if name in self:
            shown = f"the name {name!r}" if name else "no name"
            raise UsageError(
                f"{spec}: another device has {shown} already: give each its own, as NAME=DEVICE"
            )
        if rest == "null:":
            raise UsageError(f"{spec} has no size to serve: write for example null:1GiB")
        if not layers:
            self[name] = open_device(rest, writable=not read_only, direct=False)
            return
        try:
            self[name] = open_stack(
                rest,
                layers,
                memory=self.memory,
                writable=not read_only,
                in_flight=_IN_FLIGHT,
                prompt=True,
                any_bytes=True,  # a client may not know, or not care, how large a block is
                private=True,  # a request's frame is its own until it is answered
                apart_from=self._files(),
            )
        except NoMemory as error:
            raise NoMemory(
                f"{spec}: its layers do not get by with the {format_size(self.memory.limit)} that is "
                f"theirs, a quarter of --memory: {error}"
            ) from error

    def close(self) -> None:
        """Close the devices, and then the memory of their layers. Waits: for requests under way."""
        for device in self.values():
            device.close()
        self.memory.close()

    def _files(self) -> list[os.stat_result]:
        """The files and block devices in use."""
        stacks = [device for device in self.values() if isinstance(device, StackedDevice)]
        lowest = [layer for stack in stacks for layer in each(stack.stack.top)]
        devices = [layer.device for layer in lowest if isinstance(layer, Bottom)]
        return [os.fstat(device.fd) for device in devices if hasattr(device, "fd")]


def open_exports(
    specs: Iterable[str], *, read_only: bool, layers: Sequence[str] = (), memory: int = 64 << 20
) -> Exports:
    """Open ``[NAME=]DEVICE``s to be served, each with `layers` on it, the outermost last.

    `memory` (bytes) is the server's; a quarter of it is the layers', if they need any. A name has no ``/`` and no
    ``:``; what has one before the first ``=`` is a device whose path has one.
    Raises: UsageError if two have one name, one is no device, or layers cannot be made of it; BlockError
    if one cannot be opened; NoMemory if the layers' reserves do not fit.
    """
    opened = Exports(memory // 4)
    try:
        for spec in specs:
            opened.add(spec, read_only=read_only, layers=layers)
    except HeadwayError:
        opened.close()
        raise
    return opened
