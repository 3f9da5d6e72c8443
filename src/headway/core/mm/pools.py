"""The two kinds of pool, each with its own fast path: a fixed set of elements, and a reserve over a backend.

They do not share a fast path on purpose: one method for both, with its "have I a backend?" test and
its second counter, costs half as much again (a pair is 110 to 130 ns for fixed elements, 190 to 250 ns
over a backend). Nothing may be added to these four methods.

`free` reads the gate twice: first to let hooks and poison see the element before anybody can have it,
and again after the append, for whoever raised the gate in between (store, then look).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from headway.core.mm import climb
from headway.core.mm.composite import Backend
from headway.core.mm.gfp import Gfp, for_allocator
from headway.core.mm.gfp import light as light_mask
from headway.core.mm.ladder import FIFO, Step
from headway.core.mm.mempool import Mempool
from headway.core.mm.observed import PoolStats
from headway.core.mm.refused import register, unregister
from headway.core.mm.watched import LOCKED, WAITERS
from headway.core.plan import Plan, offload
from headway.errors import NoMemory, UsageError

E = TypeVar("E")

KERNEL: Final = Gfp.KERNEL
LIGHT_KERNEL: Final = light_mask(Gfp.KERNEL)


class Climbing(Mempool[E], Generic[E]):
    """A pool whose slow path is `headway.core.mm.climb`."""

    __slots__ = ()

    def alloc_plan(
        self,
        gfp: Gfp,
        scope: int,
        who: str,
        count: int,
        timeout_s: float | None,
        light_tried: bool = False,
    ) -> Plan[list[E] | None]:
        return climb.alloc(self, gfp, scope, who, count, timeout_s, light_tried)


class FixedMempool(Climbing[E], Generic[E]):
    """A pool of the elements it was made with, and no others."""

    __slots__ = ("capacity",)

    def __init__(self, elements: Iterable[E], **options: Any) -> None:
        reserve = list(elements)
        super().__init__(min_count=len(reserve), **options)
        if any(element is None for element in reserve):
            raise UsageError(
                f"pool {self.name!r}: None cannot be an element: it says that there is none"
            )
        if not reserve:
            raise UsageError(
                f"pool {self.name!r} has no elements: every allocation would wait for ever"
            )
        self._reserve = self.at_hand = reserve
        self._poison_reserve()
        self.capacity = len(reserve)
        self.first = self.again = (Step.RESERVE,)  # there is nothing else to try

    def alloc_plan(
        self,
        gfp: Gfp,
        scope: int,
        who: str,
        count: int,
        timeout_s: float | None,
        light_tried: bool = False,
    ) -> Plan[list[E] | None]:
        if gfp is KERNEL and timeout_s is None and self.unplug is None and self.wake is FIFO:
            gate = self._gate & ~LOCKED
            if gate == WAITERS or (not gate and len(self._reserve) < count):
                return climb.line_up(self, who, count)
        return climb.alloc(self, gfp, scope, who, count, timeout_s, light_tried)

    def alloc(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> Any:
        if gfp is KERNEL and not self._gate:
            try:
                return self._reserve.pop()
            except IndexError:
                pass
        return self._alloc_slow(gfp, timeout_s)

    def try_alloc(self) -> E | None:
        if not self._gate:
            try:
                return self._reserve.pop()
            except IndexError:
                return None
        return self._alloc_slow(Gfp.NOWAIT, None)

    def take_now(self) -> E | None:
        if not self._gate:
            try:
                return self._reserve.pop()
            except IndexError:
                pass
        return None

    def free(self, element: E) -> None:
        if self._gate and self._gate != WAITERS:
            self._free_slow(element)
            return
        self.free_count += 1
        self._reserve.append(element)
        if self._gate:
            self._settle()  # raised by another thread since we looked

    @property
    def outstanding(self) -> int:
        return self.capacity - len(self._reserve)

    @property
    def alloc_count(self) -> int:
        return self.free_count + self.outstanding

    def _count_alloc(self, count: int) -> None:
        pass  # derived: frees and what is out

    def check_count(self, count: int) -> None:
        super().check_count(count)
        if count > self.capacity:
            raise UsageError(
                f"pool {self.name!r}: {count} elements were asked for at once; it has {self.capacity}"
            )

    def stats(self) -> PoolStats:
        return replace(
            super().stats(), reserve_uses=self.alloc_count
        )  # there is nothing but the reserve

    def resize(self, count: int) -> int:
        raise UsageError(
            f"pool {self.name!r} has a fixed set of elements and no backend: it cannot be resized"
        )


class BackedMempool(Climbing[E], Generic[E]):
    """A reserve of `min_count` elements over a backend; filled when it is made.

    Raises: NoMemory if the backend cannot fill it (what was taken is given back first).
    """

    __slots__ = ("_alloc_count", "_caller", "_dispose", "_roomy")

    def __init__(self, backend: Backend, *, min_count: int, **options: Any) -> None:
        super().__init__(min_count=min_count, **options)
        if min_count < 0:
            raise UsageError(f"pool {self.name!r}: min_count is {min_count}; it must be 0 or more")
        self._backend = backend
        self._dispose = backend.free
        self._light = getattr(backend, "light", None) or _nothing
        self._alloc_count = 0
        self._set_minimum(min_count)
        self._fill()
        self._caller = self._call_back()
        register(backend, self._caller)

    def _call_back(self) -> Callable[[], object]:
        """What the backend calls when it has what it refused. (A face's does not keep the pool alive.)"""
        return self.kick

    def close(self) -> None:
        unregister(self._backend, self._caller)
        super().close()

    def alloc(self, gfp: Gfp = KERNEL, timeout_s: float | None = None) -> Any:
        if gfp is not KERNEL or self._gate:
            return self._alloc_slow(gfp, timeout_s)
        element = self._light(LIGHT_KERNEL)
        if element is None and len(self._reserve) >= self._roomy:
            try:
                element = self._reserve.pop()
                self.reserve_uses += 1
            except IndexError:
                pass
        if element is None:
            return self._alloc_slow(gfp, timeout_s, True)
        self._alloc_count += 1
        return element

    def try_alloc(self) -> E | None:
        return self._alloc_slow(Gfp.NOWAIT, None)

    def take_now(self) -> E | None:
        if self._gate:
            return None
        element: E | None = self._light(LIGHT_KERNEL)
        if element is None and len(self._reserve) >= self._roomy:
            try:
                element = self._reserve.pop()
                self.reserve_uses += 1
            except IndexError:
                pass
        if element is not None:
            self._alloc_count += 1
        return element

    def free(self, element: E) -> None:
        if self._gate:
            self._free_slow(element)
            return
        self.free_count += 1
        if len(self._reserve) < self.min_count:
            self._reserve.append(element)
            if self._gate:
                self._settle()  # type: ignore[unreachable]  # raised since we looked
        else:
            self._dispose(element)
            if self._gate:
                self.kick()  # type: ignore[unreachable]  # whoever waits since then asks the backend again

    @property
    def light_door(self) -> Any:
        return None if self._light is _nothing else self._light

    @property
    def alloc_count(self) -> int:
        return self._alloc_count

    def _count_alloc(self, count: int) -> None:
        self._alloc_count += count

    def check_count(self, count: int) -> None:
        super().check_count(count)
        if count > self.min_count:
            self.runtime.report(
                f"pool {self.name!r}: {count} elements at once are more than its reserve of {self.min_count}: "
                "if the backend fails this can wait for ever",
                once=True,
            )

    def resize(self, count: int) -> int:
        """Change the reserve to `count` elements while it is in use; gives how many it has now.

        Shrinking gives the surplus to the backend. Growing asks the backend; if that has no more, the
        reserve is larger but under-filled, and the next elements freed fill it.
        Waits: as long as the backend does. Raises: UsageError if `count` is below 1; PoolClosed.
        """
        if count < 1:
            raise UsageError(f"pool {self.name!r}: resized to {count}; the least is 1")
        if self.closed:
            raise self.closed_error()
        with self._guard:
            self._set_minimum(count)
        self._settle()
        self.runtime.run(self._top_up())
        self.kick()  # a request that is asking the backend now may have counted on the old reserve
        return len(self._reserve)

    def _top_up(self) -> Plan[None]:
        assert self._backend is not None
        scope = self.runtime.scope()
        mask = for_allocator(KERNEL, scope)
        while not self.closed and len(self._reserve) < self.min_count and not self.fails():
            element = yield from offload(
                self._backend.alloc, mask, scope=scope, undo=self.undo_alloc
            )
            if element is None:
                return
            self.put_back(element)

    def _set_minimum(self, count: int) -> None:
        self.min_count = count
        in_reserve = (step for step in self.ladder.first if step not in (Step.LIGHT, Step.HEAVY))
        self._roomy = next(in_reserve).threshold(count)

    def _fill(self) -> None:
        assert self._backend is not None
        mask = for_allocator(KERNEL, self.runtime.scope())
        try:
            while len(self._reserve) < self.min_count:
                element = self._backend.alloc(mask)
                if element is None:
                    raise NoMemory(
                        f"pool {self.name!r}: {self.min_count} elements were asked for as its reserve, and the "
                        f"backend gave {len(self._reserve)}; ask for fewer, or give the backend more"
                    )
                self._reserve.append(element)
            self._poison_reserve()
        except BaseException:
            while self._reserve:
                self._backend.free(self._reserve.pop())
            raise


def _nothing(gfp: Gfp) -> None:
    """The light try of a backend that has none."""
