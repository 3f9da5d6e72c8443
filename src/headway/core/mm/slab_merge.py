"""When two slab caches become one: every rule, and for every decision its reason in words.

It does not make caches (`headway.core.mm.slab_caches` does); it is given what a new one asks for and
what there is, oldest first, and says into which it merges, or why into none. Merging saves pages that
are half used twice; it also lets users of one cache take what the page of another was obtained for,
which is what incident E-000 is about.

A cache carries two kinds of flags here. Some mean something in one process (the debug ones, NO_MERGE,
FAILSLAB); the others (DMA, RCU, accounting) mean nothing and are kept so that the configuration of
a kernel can be judged. The last rule is ours: entitlement and a floor are properties of one cache.

Source: Linux ``mm/slab_common.c`` (6.12): ``slab_unmergeable``, ``find_mergeable``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import Final, final

from headway.errors import UsageError

WORD: Final = 8  # a pointer: sizes are rounded up to it, and less than it may be wasted


class SlabFlag(IntFlag):
    """What a slab cache is made with; combine with ``|``."""

    RED_ZONE = 0x001
    POISON = 0x002
    STORE_USER = 0x004
    TRACE = 0x008
    TYPESAFE_BY_RCU = 0x010
    NOLEAKTRACE = 0x020
    FAILSLAB = 0x040
    NO_MERGE = 0x080
    RECLAIM_ACCOUNT = 0x100
    CACHE_DMA = 0x200
    CACHE_DMA32 = 0x400
    ACCOUNT = 0x800

    NONE = 0
    DEBUG = RED_ZONE | POISON | STORE_USER


_NEVER: Final = (
    SlabFlag.RED_ZONE | SlabFlag.POISON | SlabFlag.STORE_USER | SlabFlag.TRACE
    | SlabFlag.TYPESAFE_BY_RCU | SlabFlag.NOLEAKTRACE | SlabFlag.FAILSLAB | SlabFlag.NO_MERGE
)  # fmt: skip
_SAME: Final = (
    SlabFlag.RECLAIM_ACCOUNT | SlabFlag.CACHE_DMA | SlabFlag.CACHE_DMA32 | SlabFlag.ACCOUNT
)


class Entitlement(Enum):
    """Who may have an object of a page that was taken from what is kept back for urgent requests."""

    NONE = "none"  # anybody
    WATERMARK = "watermark"  # who could have had that page himself
    PFMEMALLOC = "pfmemalloc"  # of pages taken regardless of all marks: who may ignore them too


@final
@dataclass(frozen=True, slots=True)
class SlabSpec:
    """What a cache asks for. Units: bytes, except the counts."""

    name: str
    size: int
    align: int = WORD
    flags: SlabFlag = SlabFlag.NONE
    constructed: bool = False  # it has a constructor
    usercopy: int = 0  # the part that may be copied to users
    entitlement: Entitlement = Entitlement.WATERMARK
    floor: int = 0
    unmergeable: bool = False  # marked so when it was made

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(
                f"slab {self.name!r}: size is {self.size}; an object has 1 byte or more"
            )
        if self.align < 1 or self.align & (self.align - 1):
            raise UsageError(
                f"slab {self.name!r}: align is {self.align}; it must be a power of two"
            )

    @property
    def alignment(self) -> int:
        return max(self.align, WORD)

    @property
    def left_red(self) -> int:
        """Red zone in front of the object: as much as keeps it aligned."""
        return self.alignment if self.flags & SlabFlag.RED_ZONE else 0

    @property
    def stride(self) -> int:
        """From one object to the next: its size and red zones, rounded up to a word and the alignment."""
        size = self.size + self.left_red + (WORD if self.flags & SlabFlag.RED_ZONE else 0)
        return round_up(round_up(size, WORD), self.alignment)


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """Into which cache a new one merges (None: it is made), and every reason that was looked at."""

    name: str
    into: str | None
    reasons: tuple[str, ...]
    position: int | None = None  # of that cache, among those looked at

    def __str__(self) -> str:
        what = "a cache of its own" if self.into is None else f"merged into {self.into!r}"
        return f"slab {self.name!r}: {what}; " + "; ".join(self.reasons)


def decide(
    new: SlabSpec, caches: Sequence[SlabSpec], *, enabled: bool = True, hardened: bool = True
) -> Decision:
    """Into which of `caches` (oldest first) `new` merges; the first that will do.

    `hardened`: a window for copies to users is a reason, as where such copies are checked.
    """
    why = unmergeable(new, enabled=enabled, hardened=hardened)
    if why:
        return Decision(new.name, None, (why,))
    reasons = []
    for position, cache in enumerate(caches):
        why = differs(new, cache, hardened=hardened)
        if not why:
            reasons.append(
                f"{cache.name!r} has objects of {cache.stride} bytes, which fit "
                f"{new.size} with {cache.stride - new.stride} to spare"
            )
            return Decision(new.name, cache.name, tuple(reasons), position)
        reasons.append(f"not {cache.name!r}: {why}")
    return Decision(new.name, None, tuple(reasons) or ("there is no other cache",))


def unmergeable(new: SlabSpec, *, enabled: bool = True, hardened: bool = True) -> str:
    """Why this cache merges with none, or nothing."""
    if not enabled:
        return "merging is switched off"
    return _alone(new, hardened)


def _alone(spec: SlabSpec, hardened: bool) -> str:
    if spec.constructed:
        return "it has a constructor"
    if spec.usercopy and hardened:
        return f"{spec.usercopy} bytes of it may be copied to users"
    if spec.flags & _NEVER:
        return f"it is made with {_names(spec.flags & _NEVER)}"
    if spec.floor:
        return "it has a floor of its own"
    return ""


def differs(new: SlabSpec, cache: SlabSpec, *, hardened: bool = True) -> str:
    """Why `new` cannot share with `cache`, or nothing."""
    if cache.unmergeable:
        return "it was marked unmergeable"
    why = _alone(cache, hardened)
    if why:
        return why
    if cache.entitlement is not new.entitlement:
        return f"its entitlement is {cache.entitlement.value}, not {new.entitlement.value}"
    if (new.flags ^ cache.flags) & _SAME:
        return f"they differ in {_names((new.flags ^ cache.flags) & _SAME)}"
    if new.stride > cache.stride:
        return f"its {cache.stride} bytes are less than {new.stride}"
    if cache.stride % new.alignment:
        return f"its {cache.stride} bytes are no multiple of {new.alignment}"
    if cache.stride - new.stride >= WORD:
        return f"{cache.stride - new.stride} of its {cache.stride} bytes would be wasted"
    return ""


def round_up(size: int, to: int) -> int:
    return -(-size // to) * to


def _names(flags: int) -> str:
    single = (flag for flag in SlabFlag if flag and not flag & (flag - 1))
    return ", ".join(flag.name or "" for flag in single if flags & flag)
