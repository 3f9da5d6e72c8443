"""Memory that a device may still write to after its request has failed: kept out of everybody's hands.

It does not decide when a request has failed (`host` does). What is quarantined belongs to a pool that
waits for it. Within a quota the pool gets another element in its place at once, so that it does not run
dry because a device hangs; the one that was replaced goes to the backend when the device answers
after all, or is closed. Beyond the quota the element itself goes home then, and no earlier.

Bound: at most `quota` elements beyond the reserves exist. Either way a pool gets back, for each element,
exactly one.

Source: own; the kernel keeps such requests until the error handler has reset the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from headway.core.mm.composite import Backend
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.plan import Guard


@final
class Quarantine:
    """By tag of the request. The dictionaries change under the guard of whoever owns this."""

    __slots__ = ("_backend", "_guard", "_held", "_left", "bytes", "count", "replaced")

    def __init__(self, guard: Guard, backend: Backend | None, quota: int) -> None:
        self._guard = guard
        self._backend = backend
        self._left = quota if backend is not None else 0  # replacements that may still be made
        # tag -> its elements: the home it is owed to, or None if a replacement has gone there
        self._held: dict[int, list[tuple[Any, Mempool[Any] | None]]] = {}
        self.count = self.bytes = self.replaced = 0

    def hold(self, tag: int, elements: Sequence[Any], home: Mempool[Any] | None) -> None:
        """Take the elements of a request that failed; replace in `home` what the quota allows."""
        held: list[tuple[Any, Mempool[Any] | None]] = []
        pairs = []
        for element in elements:
            by = None if home is None else self._replacement()
            if by is not None:
                pairs.append((element, by))
            held.append((element, home if by is None else None))
        with self._guard:
            self._held[tag] = held
            self.count += len(held)
            self.bytes += sum(memoryview(element).nbytes for element, _ in held)
        for element, by in pairs:
            assert home is not None
            home.replace(element, by)

    def _replacement(self) -> Any:
        with self._guard:
            if self._left == 0:
                return None
            self._left -= 1
        assert self._backend is not None
        element = self._backend.alloc(Gfp.ATOMIC)
        with self._guard:
            if element is None:
                self._left += 1
            else:
                self.replaced += 1
        return element

    def release(self, tag: int) -> bool:
        """The device is done with it: True if it was held. The elements go where they are owed."""
        with self._guard:
            held = self._held.pop(tag, None)
            if held is None:
                return False
            self.count -= len(held)
            self.bytes -= sum(memoryview(element).nbytes for element, _ in held)
        for element, home in held:
            if home is not None:
                home.free(element)
            elif self._backend is not None:
                self._backend.free(element)
                with self._guard:
                    self._left += 1
        return True

    def release_all(self) -> None:
        """The device is closed: it can write nowhere any more."""
        for tag in list(self._held):
            self.release(tag)
