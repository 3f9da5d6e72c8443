"""A device in code under check: each request lets others go first, and may fail.

It does no I/O of its own and decides nothing about pools: it stands before a real device (best one in
memory: a file remembers what an earlier run wrote). A request that is made to fail moves no bytes and raises what
a broken disk raises. A task that ends by it is no finding; what it leaves held, or waiting, is.

Source: the failing block devices of the kernel's fault injection (``fail_make_request``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, final

from headway.core.block.device import Device
from headway.errors import BlockError


class Injected(BlockError):
    """An error that the checker let a device have."""


@final
class CheckedDevice:
    """A device before another; `turn` lets others go first, and says whether the request fails."""

    def __init__(self, device: Device, turn: Callable[[str, str, int], bool]) -> None:
        self._device = device
        self._turn = turn

    def pread_into(self, view: memoryview, offset: int) -> None:
        self._ask("read", len(view), offset)
        self._device.pread_into(view, offset)

    def pwrite(self, view: memoryview, offset: int) -> None:
        self._ask("write", len(view), offset)
        self._device.pwrite(view, offset)

    def flush(self) -> None:
        self._ask("flush", 0, 0)
        self._device.flush()

    def _ask(self, op: str, length: int, offset: int) -> None:
        if self._turn(op, self._device.name, length):
            said = f"{self._device.name}: this {op} of {length} bytes at {offset} was made to fail"
            raise Injected(errno.EIO, said, offset=offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def __repr__(self) -> str:
        return f"<checked {self._device!r}>"
