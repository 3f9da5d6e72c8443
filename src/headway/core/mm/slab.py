"""What one user sees of a slab cache: objects taken and given back, at the cost of a list operation.

It does not carve or judge (`headway.core.mm.slab_caches` does). At hand it keeps objects of ordinary
pages, which everybody may have, so the fast path needs no question: an integer gate, a pop, and a
note of what is out, by which a second free is seen. Whatever is out from an emergency page is noted
elsewhere, so its free takes the slow path and never lands at hand.

A slab is a backend for a mempool: `light` never waits, `alloc` may. It keeps no reserve and no
queue of its own. With `debug` every object goes the slow path, is fresh for each loan, and is looked
at when taken and when freed (`headway.core.mm.slab_debug`).

Bound: at hand are at most two pages' worth of objects, which may hold as many pages as they are;
`shrink` gives them back.

Source: the per-cpu queues of Linux ``mm/slab.c``; ``mm/slub.c`` (6.12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from headway.core.mm.gfp import Gfp
from headway.core.mm.refused import Refused
from headway.core.mm.slab_cache import SlabCache
from headway.core.mm.slab_caches import SlabCaches, SlabStats
from headway.core.mm.slab_debug import Inspector
from headway.core.mm.slab_merge import SlabFlag, SlabSpec
from headway.core.plan import Plan, Runtime
from headway.core.units import format_size
from headway.core.zeros import clear
from headway.errors import GfpConflict, PoolBusy, PoolClosed, UsageError

E = TypeVar("E")

KERNEL: Final = Gfp.KERNEL
_ZERO: Final = int(Gfp.ZERO)
# The bits of the gate; zero means that nothing but the fast path is needed.
CLOSED: Final = 1
HUNGRY: Final = 2  # somebody was refused: whoever gives back sees to it
LOCKED: Final = 4
DEBUG: Final = 8


class Slab(Generic[E]):
    """Objects of one size, for one user. Thread-safe.

    `_at_hand` and `_out` change by atomic operations, outside any guard; `_gate` under the cache's.
    """

    __slots__ = (
        "_at_hand", "_constructor", "_gate", "_inspector", "_kept", "_key", "_out", "_refused",
        "_runtime", "_slots", "_urgent", "_views", "cache", "decision", "name",
        "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        caches: SlabCaches,
        spec: SlabSpec,
        *,
        runtime: Runtime,
        constructor: Callable[[E], object] | None = None,
        order: int | None = None,
        keep: int | None = None,
    ) -> None:
        self.name = spec.name
        self.size_bytes = spec.size
        self._runtime = runtime
        self._constructor = constructor
        self._key = runtime.key
        self._at_hand: list[E] = []
        self._out: dict[int, E] = {}  # by key: ordinary objects that are out
        self._urgent: dict[int, E] = {}  # those of emergency pages, and all in debug mode
        self._views: dict[int, E] = {}  # by slot; cut when first needed
        self._slots: dict[int, int] = {}  # by key of what is in `_views`
        self._refused = Refused()
        self._gate = LOCKED if runtime.locked else 0
        self._inspector: Inspector | None = None
        if spec.flags & SlabFlag.DEBUG:
            self._inspector = Inspector(spec, runtime)
            self._gate |= DEBUG
        self.cache: SlabCache
        self.cache, self.decision = caches.find(spec, order)
        self._kept = 2 * self.cache.per_page if keep is None else keep
        self.cache.join(self)

    # -- taking ----------------------------------------------------------------------------------

    def alloc(self, gfp: Gfp = KERNEL) -> E | None:
        """An object, or None where the zone has no page that this mask may have.

        Waits: as `headway.core.mm.slowpath` for a page; for an object never. ZERO gives it cleared,
        else its content is what the constructor, or its last user, left.
        Raises: PoolClosed; GfpConflict; NoMemory if that is the zone's policy; what a constructor raised.
        """
        if gfp is KERNEL and not self._gate:
            try:
                element = self._at_hand.pop()
            except IndexError:
                pass
            else:
                self._out[self._key(element)] = element
                return element
        taken = self.light(gfp)
        if taken is None:
            runtime = self._runtime
            who = runtime.owner()
            if self.cache.must_wait(int(gfp)):
                return runtime.run(self._grow(gfp, runtime.scope(), who))
            return self._grown(gfp, self.cache.grow_now(gfp, who), who)
        return self._cleared(taken, gfp)

    def alloc_plan(self, gfp: Gfp, scope: int, who: str) -> Plan[E | None]:
        """`alloc` as a plan."""
        element = self.light(gfp)
        if element is None:
            return (yield from self._grow(gfp, scope, who))
        return self._cleared(element, gfp)

    def _grow(self, gfp: Gfp, scope: int, who: str) -> Plan[E | None]:
        return self._grown(gfp, (yield from self.cache.grow(gfp, scope, who)), who)

    def _grown(self, gfp: Gfp, slot: int | None, who: str) -> E | None:
        if self._gate & CLOSED:
            if slot is not None:
                self.cache.give(slot)
            raise PoolClosed(f"slab {self.name!r} is closed")
        if slot is None:
            slot = self._refused.look_again(self.cache.ask_again, gfp, who)
        return None if slot is None else self._cleared(self._hand_out(slot, who), gfp)

    def light(self, gfp: Gfp) -> E | None:
        """The first, light try: what is free and the mask may have, or a page if that leaves `low`.

        Waits: never. Raises: nothing, but what a constructor raised.
        """
        if self._gate & CLOSED:
            return None
        if not self._gate & (LOCKED | DEBUG):
            try:
                element = self._at_hand.pop()
            except IndexError:
                pass
            else:
                self._out[self._key(element)] = element
                return element
        who = self._runtime.owner()
        slot = self.cache.take(int(gfp), who)
        if slot is not None:
            self._refill()
        else:
            slot = self.cache.grow_lightly(who)
        if slot is None and self._ask_neighbours():
            slot = self.cache.take(int(gfp), who)
        return None if slot is None else self._hand_out(slot, who)

    def _refill(self) -> None:
        """Lay up objects for the fast path, half of what may be at hand."""
        if not self._gate and self._kept:
            views = [self._view(slot) for slot in self.cache.take_ordinary(self._kept // 2)]
            self._at_hand.extend(views)
            if self._gate:
                self._settle()  # type: ignore[unreachable]  # raised since we looked

    def _ask_neighbours(self) -> int:
        """Have those who share the cache give back what they keep at hand."""
        return sum(user.drain() for user in self.cache.users if user is not self)

    def _hand_out(self, slot: int, who: str) -> E:
        if self._inspector is not None:
            element, key = self._inspector.lend(self.cache.memory, slot, who)
            self._slots[key] = slot
            self._urgent[key] = element
            return element  # type: ignore[no-any-return]
        element = self._view(slot)
        key = self._key(element)
        if self.cache.is_ordinary(slot):
            self._out[key] = element
        else:
            self._urgent[key] = element
        return element

    def _view(self, slot: int) -> E:
        """What lies there; cut once, and kept as long as its page."""
        element = self._views.get(slot)
        if element is None or _is_released(element):
            if element is not None:
                del self._slots[self._key(element)]
            element = self._views[slot] = self.cache.memory.cut(slot, self.size_bytes)
            self._slots[self._key(element)] = slot
        return element

    def _cleared(self, element: E | None, gfp: Gfp) -> E | None:
        if int(gfp) & _ZERO and element is not None:
            if self._constructor is not None:
                self.free(element)
                raise GfpConflict(
                    ("ZERO", "a constructor"), "clearing would undo what it did; drop one of them"
                )
            clear(element)  # type: ignore[arg-type]
        return element

    # -- giving back -----------------------------------------------------------------------------

    def free(self, element: E) -> None:
        """Give an object back: the very one that was taken, in the state its constructor left it in.

        Waits: never. Raises: UsageError if it is not out from here.
        """
        key = self._key(element)
        if not self._gate and len(self._at_hand) < self._kept:
            try:
                if not element:  # ValueError if it is a view that its user released
                    raise ValueError
                del self._out[key]
            except (KeyError, ValueError):
                pass
            else:
                self._at_hand.append(element)
                if self._gate:
                    self._settle()  # type: ignore[unreachable]  # raised since we looked
                return
        self._free_slowly(element, key)

    def _free_slowly(self, element: E, key: int) -> None:
        if self._inspector is not None:
            held = self._urgent.pop(key, None)
            if held is not None:
                slot = self._slots.pop(key)
                self._inspector.take_back(element, slot, self._runtime.owner())
                self.cache.give(slot)
                self._settle()
                return
        held = self._out.pop(key, None)
        if held is None:
            held = self._urgent.pop(key, None)
        if held is None:
            raise UsageError(
                f"slab {self.name!r}: free of {element!r}, which is not out; it was freed before, or "
                "is another's, or a slice of what was taken"
            )
        self.cache.give(self._slots[key])
        if len(self._at_hand) >= self._kept:
            self.drain(self._kept // 2)
        self._settle()

    def _settle(self) -> None:
        """Give up what is at hand if that is asked for, and tell who was refused."""
        if self._gate & (HUNGRY | CLOSED):
            self.drain()
        if self.cache.hungry:
            self.cache.tell()

    def drain(self, keep: int = 0) -> int:
        """Give back what is at hand, but for so many; how many objects. Waits: never."""
        given = 0
        while len(self._at_hand) > keep:
            try:
                element = self._at_hand.pop(0)
            except IndexError:
                break  # another was faster
            self.cache.give(self._slots[self._key(element)])
            given += 1
        return given

    def shrink(self) -> int:
        """Give what is at hand to the pages, and every empty page to the zone; how many bytes that were."""
        for user in self.cache.users:
            user.drain()
        return self.cache.shrink()

    # -- what the cache asks ---------------------------------------------------------------------

    def starving(self, hungry: bool) -> None:
        self._gate = self._gate | HUNGRY if hungry else self._gate & ~HUNGRY

    def fed(self) -> None:
        self._refused.tell()

    def carved(self, slots: list[int]) -> None:
        if self._inspector is not None:
            self._inspector.carved(self.cache.memory, slots, self._constructor)
        elif self._constructor is not None:
            for slot in slots:
                self._constructor(self._view(slot))

    def dropped(self, slots: list[int]) -> None:
        for slot in slots:
            element = self._views.pop(slot, None)
            if element is not None:
                self._slots.pop(self._key(element), None)
                self.cache.memory.drop(element)

    # -- what its owner may ask --------------------------------------------------------------------

    def on_room(self, call: Callable[[], object]) -> None:
        """Have `call` made, without any lock, when what was refused came back. A mempool does it itself."""
        self._refused.add(call)

    def off_room(self, call: Callable[[], object]) -> None:
        """Undo `on_room`."""
        self._refused.drop(call)

    @property
    def held_count(self) -> int:
        """Objects that are out."""
        return len(self._out) + len(self._urgent)

    @property
    def at_hand_count(self) -> int:
        return len(self._at_hand)

    @property
    def closed(self) -> bool:
        return bool(self._gate & CLOSED)

    def stats(self) -> SlabStats:
        cache, pages = self.cache, self.cache.pages()
        return SlabStats(
            name=self.name,
            size=self.size_bytes,
            stride=cache.stride,
            page_size=cache.path.zone.page_bytes << cache.share.order,
            per_page=cache.per_page,
            out_count=self.held_count,
            at_hand=len(self._at_hand),
            merged_into=self.decision.into,
            user_count=len(cache.users),
            page_count=len(pages),
            emergency_page_count=sum(page.level < cache.least for page in pages),
            free_count=sum(len(page.free) for page in pages),
            grown=cache.grown,
            extra=cache.extra,
            raised=cache.raised,
            refused_beside_free=cache.refused_beside_free,
            findings=0 if self._inspector is None else self._inspector.findings,
        )

    def close(self) -> None:
        """End the slab; its pages go back to the zone, unless others are merged with it.

        Closing twice is once. Raises: PoolBusy if objects are out (the slab stays as it was).
        """
        if self._gate & CLOSED:
            return
        if self.held_count:
            raise PoolBusy(
                f"slab {self.name!r} closed with {self.held_count} objects out; free them first",
                pool=self.name,
                count=self.held_count,
            )
        self._gate |= CLOSED
        self.drain()
        self.cache.leave(self)
        self.dropped(list(self._views))

    def __enter__(self) -> Slab[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self.close()
        except PoolBusy:
            if kind is None:  # else the block's own error says more
                raise

    def __repr__(self) -> str:
        cache = self.cache
        merged = "" if self.decision.into is None else f", merged into {self.decision.into!r}"
        return (
            f"<Slab {self.name!r}: {self.held_count} of {format_size(self.size_bytes)} out, "
            f"{len(self._at_hand)} at hand, {len(cache.pages())} pages of {cache.per_page}{merged}>"
        )

    def check_invariants(self) -> None:
        """All objects of the cache are free, at hand, or out; for when nobody uses it just now."""
        users: list[Any] = list(self.cache.users)
        self.cache.check_invariants(sum(u.held_count + len(u._at_hand) for u in users))
        keys = [self._key(element) for element in self._at_hand]
        assert len(dict.fromkeys(keys)) == len(keys), "an object is at hand twice"
        assert not any(key in self._out or key in self._urgent for key in keys)
        assert all(self.cache.is_ordinary(self._slots[key]) for key in keys)


def _is_released(element: object) -> bool:
    try:
        return not element
    except ValueError:
        return True
