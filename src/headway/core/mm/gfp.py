"""What an allocation may do to get its memory, and what a scope takes away from that.

It does not look at any ambient context: the faces keep the scope in a context variable and pass it
in. A mask is checked once, where the user passes it (`check`); masks derived from it are not.

`DIRECT_RECLAIM` is the one bit that says "may wait". `IO` means the allocation may start or wait for
device I/O (write-back, spill, swap); `FS` that it may call, or wait for, code above us. A scope only
removes bits: NOIO removes IO and FS, NOFS removes FS, NORECLAIM removes DIRECT_RECLAIM from what is
passed to an allocator (parking on a pool is not reclaim, and is judged before that removal).

Source: Linux ``include/linux/gfp_types.h`` and ``sched/mm.h`` (6.12); bits that mean nothing inside
one process (zones, compaction, accounting) are left out. NOLOCKDEP is for tools alone: it hides an
allocation from the maps of reclaim that `headway watch` keeps, where its author knows better.
"""

from __future__ import annotations

from enum import IntFlag

from headway.errors import GfpConflict


class Gfp(IntFlag):
    """Allocation flags; combine with ``|``, or use the presets KERNEL, NOFS, NOIO, ATOMIC, NOWAIT."""

    HIGH = 0x001
    IO = 0x002
    FS = 0x004
    DIRECT_RECLAIM = 0x008
    KSWAPD_RECLAIM = 0x010
    NORETRY = 0x020
    RETRY_MAYFAIL = 0x040
    NOFAIL = 0x080
    MEMALLOC = 0x100
    NOMEMALLOC = 0x200
    NOWARN = 0x400
    ZERO = 0x800
    NOLOCKDEP = 0x1000

    RECLAIM = DIRECT_RECLAIM | KSWAPD_RECLAIM
    ATOMIC = HIGH | KSWAPD_RECLAIM
    NOWAIT = KSWAPD_RECLAIM | NOWARN
    NOIO = RECLAIM
    NOFS = RECLAIM | IO
    KERNEL = RECLAIM | IO | FS

    @property
    def may_park(self) -> bool:
        """True if the allocation may wait (Linux: ``might_sleep``)."""
        return bool(int(self) & DIRECT_RECLAIM)


class Scope(IntFlag):
    """What the running code may not wait for; set by ``with noio():`` and its kin."""

    NONE = 0
    NOFS = 1
    NOIO = 2
    NORECLAIM = 4


# Plain integers: arithmetic on enum members costs half a microsecond.
DIRECT_RECLAIM = int(Gfp.DIRECT_RECLAIM)
_IO, _FS = int(Gfp.IO), int(Gfp.FS)
_POOL_BITS = int(Gfp.NOMEMALLOC | Gfp.NORETRY | Gfp.NOWARN)
_POOL_EXCLUDES = int(Gfp.NOFAIL | Gfp.RETRY_MAYFAIL | Gfp.MEMALLOC)  # what those overrule
_TAKEN_AWAY = (0, _FS, _IO | _FS, _IO | _FS)

_members: dict[int, Gfp] = {}  # a cache of values, not state: the same answer for ever


def _gfp(bits: int) -> Gfp:
    member = _members.get(bits)
    if member is None:
        member = _members[bits] = Gfp(bits)
    return member


def restrict(gfp: Gfp, scope: int) -> Gfp:
    """The mask with what the scope's NOIO and NOFS take away; NORECLAIM is left to `for_allocator`."""
    if not scope & 3:
        return gfp
    return _gfp(int(gfp) & ~_TAKEN_AWAY[scope & 3])


def for_allocator(gfp: Gfp, scope: int) -> Gfp:
    """The effective mask an allocator sees: every bit the scope forbids is gone."""
    bits = int(gfp) & ~_TAKEN_AWAY[scope & 3]
    if scope & 4:
        bits &= ~DIRECT_RECLAIM
    return _gfp(bits)


def light(gfp: Gfp) -> Gfp:
    """The mask of a pool's first, light try: it may not wait and may not start I/O."""
    return _gfp((int(gfp) | _POOL_BITS) & ~(DIRECT_RECLAIM | _IO | _FS | _POOL_EXCLUDES))


def heavy(gfp: Gfp, scope: int) -> Gfp:
    """The mask of a pool's heavy try: all the caller may do, but no emergency memory and no loops.

    NOFAIL and RETRY_MAYFAIL end here: the pool does the waiting, and its allocator gives up at once.
    """
    return _gfp((int(for_allocator(gfp, scope)) | _POOL_BITS) & ~_POOL_EXCLUDES)


def check(gfp: Gfp) -> tuple[str, ...]:
    """Refuse a mask that contradicts itself; what is merely odd is returned as warnings.

    Raises: GfpConflict if two bits exclude each other.
    """
    for first, second, why in _CONFLICTS:
        if gfp & first and gfp & second:
            raise GfpConflict((_name(first), _name(second)), why)
    if gfp & Gfp.NOFAIL and not gfp.may_park:
        raise GfpConflict(("NOFAIL", "no DIRECT_RECLAIM"), "it can neither wait nor fail")
    if gfp & Gfp.FS and not gfp & Gfp.IO:
        raise GfpConflict(
            ("FS", "no IO"),
            "whoever may not do I/O may not wait for code that does; drop FS or add IO",
        )
    odd = []
    if gfp & Gfp.MEMALLOC and gfp & Gfp.NOMEMALLOC:
        odd.append("MEMALLOC with NOMEMALLOC: NOMEMALLOC wins")
    if not gfp.may_park:
        for flag in (Gfp.NORETRY, Gfp.RETRY_MAYFAIL, Gfp.IO):
            if gfp & flag:
                odd.append(f"{flag.name} without DIRECT_RECLAIM has no effect")
    return tuple(odd)


def check_for_pool(gfp: Gfp) -> tuple[str, ...]:
    """`check`, and what a mempool cannot do.

    Raises: GfpConflict also for ZERO: elements of the reserve are not zeroed.
    """
    known = _oddities.get(int(gfp))
    if known is not None:
        return known
    if gfp & Gfp.ZERO:
        raise GfpConflict(
            ("ZERO", "a mempool"),
            "elements of the reserve are not zeroed; clear the element yourself",
        )
    odd = check(gfp)
    if int(gfp) & _POOL_BITS == _POOL_BITS:
        odd = ()  # another pool made it so
    _oddities[int(gfp)] = odd
    return odd


_oddities: dict[int, tuple[str, ...]] = {}  # a cache, as above: looking costs 6 us


def _name(flag: Gfp) -> str:
    return flag.name or str(int(flag))


_CONFLICTS = (
    (Gfp.NOFAIL, Gfp.NORETRY, "one may never fail, the other fails at once"),
    (Gfp.NOFAIL, Gfp.RETRY_MAYFAIL, "one may never fail, the other may"),
    (Gfp.NORETRY, Gfp.RETRY_MAYFAIL, "one gives up at once, the other keeps trying; choose one"),
)
