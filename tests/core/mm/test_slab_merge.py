"""T4.1: every rule of merging, decided either way, with its reason in words."""

from __future__ import annotations

from typing import Any

import pytest

from headway.core.mm.slab_merge import Entitlement, SlabFlag, SlabSpec, decide
from headway.errors import UsageError
from tests.core.mm.slabs import Shop

BIO = SlabSpec("bio", 128)


def spec(size: int = 128, **options: Any) -> SlabSpec:
    return SlabSpec("sense", size, **options)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (spec(constructed=True), "it has a constructor"),
        (spec(usercopy=96), "96 bytes of it may be copied to users"),
        (spec(floor=4096), "it has a floor of its own"),
        *(
            (spec(flags=flag), f"it is made with {flag.name}")
            for flag in SlabFlag
            if 0 < flag <= SlabFlag.NO_MERGE and flag.name != "DEBUG"
        ),
        (spec(flags=SlabFlag.DEBUG), "it is made with RED_ZONE, POISON, STORE_USER"),
    ],
)
def test_t41_what_never_merges(new: SlabSpec, reason: str) -> None:
    decision = decide(new, [BIO])
    assert (decision.into, decision.reasons) == (None, (reason,))
    other_way = decide(BIO, [new])
    assert other_way.into is None
    assert other_way.reasons == (f"not 'sense': {reason}",)


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        *(
            (spec(flags=flag), f"they differ in {flag.name}")
            for flag in (
                SlabFlag.RECLAIM_ACCOUNT,
                SlabFlag.CACHE_DMA,
                SlabFlag.CACHE_DMA32,
                SlabFlag.ACCOUNT,
            )
        ),
        (spec(129), "its 128 bytes are less than 136"),
        (spec(120), "8 of its 128 bytes would be wasted"),
        (
            spec(128, align=256),
            "its 128 bytes are less than 256",
        ),
        (spec(entitlement=Entitlement.NONE), "its entitlement is watermark, not none"),
    ],
)
def test_t41_what_differs(new: SlabSpec, reason: str) -> None:
    decision = decide(new, [BIO])
    assert (decision.into, decision.reasons) == (None, (f"not 'bio': {reason}",))


def test_t41_a_size_that_is_no_multiple_of_the_alignment() -> None:
    decision = decide(SlabSpec("a", 16, align=16), [SlabSpec("b", 24)])
    assert decision.reasons == ("not 'b': its 24 bytes are no multiple of 16",)


def test_t41_marked_unmergeable_and_switched_off() -> None:
    marked = SlabSpec("kmalloc", 128, unmergeable=True)
    assert decide(spec(), [marked]).reasons == ("not 'kmalloc': it was marked unmergeable",)
    assert decide(spec(), [BIO], enabled=False).reasons == ("merging is switched off",)
    assert decide(spec(), []).reasons == ("there is no other cache",)


def test_t41_a_window_counts_only_where_copies_are_checked() -> None:
    assert decide(spec(usercopy=96), [BIO], hardened=False).into == "bio"


def test_t41_the_oldest_that_will_do_and_the_reason_says_all() -> None:
    caches = [SlabSpec("small", 64), SlabSpec("bio", 128), SlabSpec("kmalloc-128", 128)]
    decision = decide(SlabSpec("sense", 121, align=8), caches)
    assert decision.into == "bio"
    assert str(decision) == (
        "slab 'sense': merged into 'bio'; not 'small': its 64 bytes are less than 128; "
        "'bio' has objects of 128 bytes, which fit 121 with 0 to spare"
    )


def test_t41_merged_slabs_share_pages_and_keep_their_sizes() -> None:
    shop = Shop()
    bios, senses = shop.slab("bio", 1024), shop.slab("sense", 1017)
    assert senses.decision.into == "bio"
    bio, sense = bios.alloc(), senses.alloc()
    assert bio is not None and sense is not None
    assert (len(bio), len(sense)) == (1024, 1017)
    assert bios.stats().page_count == senses.stats().page_count == 1
    with pytest.raises(UsageError, match="not out"):
        senses.free(bio)
    bios.free(bio)
    bios.close()
    assert shop.pages.lent, "the other still uses it"
    senses.free(sense)
    shop.check(senses)
    senses.close()
    assert not shop.pages.lent
    again = shop.slab("bio", 1024)
    assert again.decision.into is None, "a cache that nobody uses is gone"


def test_merging_can_be_switched_off_for_a_zone() -> None:
    shop = Shop(merging=False)
    shop.slab("bio")
    assert shop.slab("sense").decision.into is None
    assert [cache.spec.name for cache in shop.caches] == ["bio", "sense"]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"align": 3}, {"align": 0}])
def test_what_makes_no_slab(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="slab 'x'"):
        SlabSpec("x", **({"size": 8} | wrong))
