"""Provisional: equal buffers cut from one mapping; gives way to the zone over the arena."""

from __future__ import annotations

import mmap
from typing import Any

from headway.core.units import parse_size
from headway.errors import UsageError


class Zone:
    def __init__(self, size: int | str, *, name: str = "zone") -> None:
        self.name = name
        self.size = parse_size(size)
        self._map = mmap.mmap(-1, self.size)
        self._next = 0

    def buffers(self, size: int | str) -> _Buffers:
        return _Buffers(self, parse_size(size))

    def close(self) -> None:
        self._map.close()


class _Buffers:
    def __init__(self, zone: Zone, size: int) -> None:
        if size > zone.size:
            raise UsageError(f"zone {zone.name!r} of {zone.size} bytes holds no {size} bytes")
        self._zone = zone
        self._size = size
        self._free: list[int] = []

    def alloc(self, gfp: Any) -> memoryview | None:
        try:
            start = self._free.pop()
        except IndexError:
            start = self._zone._next
            if start + self._size > self._zone.size:
                return None
            self._zone._next = start + self._size
        return memoryview(self._zone._map)[start : start + self._size]

    light = alloc

    def free(self, element: memoryview) -> None:
        import ctypes

        address = ctypes.addressof(ctypes.c_char.from_buffer(element))
        origin = ctypes.addressof(ctypes.c_char.from_buffer(self._zone._map))
        element.release()
        self._free.append(address - origin)
