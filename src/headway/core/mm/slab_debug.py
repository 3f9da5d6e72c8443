"""What debug mode looks at around each object of a slab: red zones, poison, who had it last.

It does not decide who gets objects (`headway.core.mm.slab_caches` does). Before and behind an object
lie red zones, 0xbb while it is free and 0xcc while it is out: a store beside an object changes them.
A free object is filled with poison, so a store after free is seen when it is next taken (not if
there is a constructor, whose work must stay). Findings are reported, once each, with the offset and
the last holders, not raised: whoever is there then did not do it. What was overwritten is mended.

Source: Linux ``mm/slub.c``, ``include/linux/poison.h`` (0xbb, 0xcc, 0x6b, 0xa5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, final

from headway.core.mm import poison
from headway.core.mm.slab_merge import SlabFlag, SlabSpec
from headway.core.plan import Runtime

INACTIVE: Final = 0xBB
ACTIVE: Final = 0xCC
_SHOWN: Final = 8  # bytes of a red zone that are shown


class Bytes(Protocol):
    """Where the bytes of an object are to be had."""

    def cut(self, offset: int, size: int, /) -> Any: ...
    def drop(self, element: Any, /) -> None: ...


@final
class Inspector:
    """The marks around the objects of one cache, and who had them."""

    __slots__ = ("_last", "_poison", "_runtime", "_spec", "_whole", "findings")

    def __init__(self, spec: SlabSpec, runtime: Runtime) -> None:
        self._spec = spec
        self._runtime = runtime
        self._poison = bool(spec.flags & SlabFlag.POISON) and not spec.constructed
        self._whole: dict[int, Any] = {}  # by slot: object and red zones, while it is out
        self._last: dict[int, str] = {}  # by slot
        self.findings = 0

    def carved(
        self, memory: Bytes, slots: list[int], constructor: Callable[[Any], object] | None
    ) -> None:
        """Mark new objects as free."""
        for slot in slots:
            self._last[slot] = "never taken"
            whole = memory.cut(slot, self._spec.stride)
            self._paint(whole, INACTIVE)
            element = self._inside(whole)
            if constructor is not None:
                constructor(element)
            elif self._poison:
                poison.fill(element)
            memory.drop(element)
            memory.drop(whole)

    def lend(self, memory: Bytes, slot: int, who: str) -> tuple[Any, int]:
        """A fresh view of an object, looked at; and its key."""
        whole = memory.cut(slot, self._spec.stride)
        self._look(whole, slot, INACTIVE)
        element = self._inside(whole)
        if self._poison:
            finding = poison.inspect(element)
            if finding is not None:
                self._report(slot, finding)
        self._paint(whole, ACTIVE)
        self._whole[slot] = whole
        if self._spec.flags & SlabFlag.STORE_USER:
            self._last[slot] = f"taken by {who}"
        return element, self._runtime.key(element)

    def take_back(self, element: Any, slot: int, who: str) -> None:
        """Look at what was out, and mark it as free; its view is released."""
        whole = self._whole.pop(slot)
        self._look(whole, slot, ACTIVE)
        self._paint(whole, INACTIVE)
        if self._poison:
            with self._inside(whole) as inside:
                poison.fill(inside)
        if self._spec.flags & SlabFlag.STORE_USER:
            self._last[slot] = f"{self._last.get(slot, '')}, freed by {who}"
        for view in (element, whole):
            try:
                view.release()
            except BufferError:
                pass  # an array made from it is alive; what it writes will be found

    def _inside(self, whole: Any) -> Any:
        left = self._spec.left_red
        return whole[left : left + self._spec.size]

    def _paint(self, whole: Any, mark: int) -> None:
        if self._spec.flags & SlabFlag.RED_ZONE:
            left, end = self._spec.left_red, self._spec.left_red + self._spec.size
            whole[:left] = bytes((mark,)) * left
            whole[end:] = bytes((mark,)) * (len(whole) - end)

    def _look(self, whole: Any, slot: int, mark: int) -> None:
        if not self._spec.flags & SlabFlag.RED_ZONE:
            return
        left, end = self._spec.left_red, self._spec.left_red + self._spec.size
        for start, stop, where in ((0, left, "before"), (end, len(whole), "behind")):
            found = bytes(whole[start:stop])
            wrong = next((i for i, byte in enumerate(found) if byte != mark), None)
            if wrong is not None:
                distance = left - wrong if where == "before" else wrong + 1
                shown = found[wrong : wrong + _SHOWN].hex(" ")
                self._report(slot, f"written {distance} bytes {where} it: {shown}")

    def _report(self, slot: int, finding: str) -> None:
        self.findings += 1
        self._runtime.report(
            f"slab {self._spec.name!r}, object at {slot}: {finding}; {self._last.get(slot, '')}"
        )
