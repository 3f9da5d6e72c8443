"""Objects carved from pages: who may have which (T4.3 to T4.5), and nothing lost, whatever fails."""

from __future__ import annotations

import threading

import pytest

from headway.core.mm.gfp import Gfp
from headway.core.mm.pools import BackedMempool
from headway.core.mm.slab_page import choose_order
from headway.errors import GfpConflict, NoMemory, PoolBusy, PoolClosed, UsageError
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import MIN
from tests.core.mm.slabs import Entitlement, Shop, SlabFlag

ATOMIC_MARK = MIN - MIN // 2 - (MIN - MIN // 2) // 4
EMERGENCY = ATOMIC_MARK + 1  # one page is left that only ATOMIC may have
MEMALLOC = Gfp.KERNEL | Gfp.MEMALLOC


def test_objects_fill_a_page_before_the_next_and_come_home() -> None:
    shop = Shop()
    slab = shop.slab()
    held = [slab.alloc() for _ in range(5)]
    assert len({id(view) for view in held}) == 5
    for number, view in enumerate(held):
        assert view is not None
        view[:] = bytes([number]) * 1024
    assert [view[1023] for view in held if view] == [0, 1, 2, 3, 4]
    assert slab.stats().page_count == 2
    for view in held:
        assert view is not None
        slab.free(view)
    shop.check(slab)
    assert slab.stats().page_count == 1, "one empty page is kept"
    assert slab.shrink() == 4096
    assert slab.stats().page_count == 0
    slab.close()


def test_at_hand_is_bounded_and_shrink_gives_it_back() -> None:
    shop = Shop()
    slab = shop.slab(keep=None)
    held = [slab.alloc() for _ in range(40)]
    for view in held:
        assert view is not None
        slab.free(view)
    stats = slab.stats()
    assert stats.at_hand <= 2 * stats.per_page
    shop.check(slab)
    assert slab.shrink() > 0
    assert (slab.stats().page_count, slab.stats().at_hand) == (0, 0)
    assert shop.memory.zone.stats().held_pages == 0


@pytest.mark.parametrize("keep", [0, None])
def test_wrong_frees_are_refused(keep: int | None) -> None:
    shop = Shop()
    slab = shop.slab(keep=keep)
    view = slab.alloc()
    assert view is not None
    with pytest.raises(UsageError, match="not out"):
        slab.free(view[:10])
    slab.free(view)
    with pytest.raises(UsageError, match="freed before"):
        slab.free(view)
    shop.check(slab)


def test_a_view_that_its_user_released_is_cut_anew() -> None:
    slab = Shop().slab(keep=None)
    view = slab.alloc()
    assert view is not None
    with view:
        view[0] = 1
    slab.free(view)
    fresh = [slab.alloc() for _ in range(4)]
    assert all(len(other) == 1024 for other in fresh if other is not None)


def test_closing_needs_all_objects_home() -> None:
    slab = Shop().slab()
    view = slab.alloc()
    assert view is not None
    with pytest.raises(PoolBusy, match="1 objects out"):
        slab.close()
    slab.free(view)
    slab.close()
    slab.close()
    assert slab.light(Gfp.NOWAIT) is None
    with pytest.raises(PoolClosed):
        slab.alloc()


# -- who may have what -----------------------------------------------------------------------------


def test_t43_each_page_knows_its_level_and_each_object_its_holder() -> None:
    shop = Shop()
    slab = shop.slab()
    seen: list[tuple[str, int, str]] = []
    slab.cache.observe = lambda what, slot, level, who: seen.append((what, level, who))
    slab.alloc()
    slab.alloc()
    shop.drain_to(EMERGENCY)
    for _ in range(3):
        slab.alloc(Gfp.ATOMIC)
    me = threading.current_thread().name
    assert seen == [
        ("grow", MIN, me), ("take", MIN, me), ("take", MIN, me), ("take", MIN, me),
        ("grow", ATOMIC_MARK, me),
    ]  # fmt: skip
    assert [page.level for page in slab.cache.pages()] == [MIN, ATOMIC_MARK]
    assert slab.stats().emergency_page_count == 1


def emergency_page(entitlement: Entitlement) -> tuple[Shop, list[memoryview]]:
    """One page, taken by ATOMIC from what is kept back; three of its four objects are free."""
    shop = Shop()
    slab = shop.slab(entitlement=entitlement)
    shop.drain_to(EMERGENCY)
    assert slab.alloc() is None
    view = slab.alloc(Gfp.ATOMIC)
    assert view is not None
    shop.slab_ = slab  # type: ignore[attr-defined]
    return shop, [view]


def test_t44_robustified_a_request_fails_beside_free_objects() -> None:
    shop, _ = emergency_page(Entitlement.WATERMARK)
    slab = shop.slab_  # type: ignore[attr-defined]
    for mask in (Gfp.KERNEL, Gfp.NOIO, Gfp.NOWAIT, Gfp.KERNEL | Gfp.HIGH):
        assert slab.light(mask) is None
        assert slab.alloc(mask) is None
    assert slab.alloc(MEMALLOC | Gfp.NOMEMALLOC) is None, "NOMEMALLOC wins"
    assert slab.stats().free_count == 3
    assert slab.stats().refused_beside_free > 0
    assert slab.alloc(Gfp.ATOMIC) is not None
    assert slab.alloc(MEMALLOC) is not None
    shop.check(slab)


def test_t44_recovery_raises_the_level() -> None:
    shop, _ = emergency_page(Entitlement.WATERMARK)
    slab = shop.slab_  # type: ignore[attr-defined]
    shop.memory.release(20)
    view = slab.alloc(Gfp.NOIO)
    assert view is not None
    assert [page.level for page in slab.cache.pages()] == [MIN, MIN]
    assert slab.stats().raised == 1
    shop.memory.fill(EMERGENCY)
    rest = [slab.alloc(Gfp.NOIO) for _ in range(6)]
    assert None not in rest, "the shortage was over, and the page is an ordinary one"
    assert slab.alloc(Gfp.NOIO) is None
    shop.check(slab)


def test_t45_what_it_costs_is_counted() -> None:
    shop, _ = emergency_page(Entitlement.WATERMARK)
    slab = shop.slab_  # type: ignore[attr-defined]
    before = slab.stats().extra
    shop.memory.release(20)
    slab.alloc(Gfp.NOIO)
    assert (before, slab.stats().extra) == (0, 1), "a page was taken while three objects were free"


def test_without_entitlement_the_emergency_page_serves_everybody() -> None:
    shop, _ = emergency_page(Entitlement.NONE)
    slab = shop.slab_  # type: ignore[attr-defined]
    assert [slab.light(Gfp.NOIO) is not None for _ in range(4)] == [True, True, True, False]


def test_pfmemalloc_does_not_cover_pages_of_high_but_those_of_memalloc() -> None:
    shop, _ = emergency_page(Entitlement.PFMEMALLOC)
    slab = shop.slab_  # type: ignore[attr-defined]
    assert slab.light(Gfp.NOIO) is not None, "HIGH leaves no tag"
    assert [slab.light(Gfp.NOIO) is not None for _ in range(3)] == [True, True, False]
    shop.memory.fill(3)
    assert slab.alloc(MEMALLOC) is not None
    assert slab.alloc(Gfp.ATOMIC) is None
    assert slab.alloc(MEMALLOC | Gfp.NOMEMALLOC) is None
    shop.memory.release(40)
    slab.alloc(Gfp.NOIO)
    assert [page.level for page in slab.cache.pages()][1] == 0, "the tag stays with the page"
    assert slab.alloc(MEMALLOC) is not None


def test_an_emergency_page_goes_home_at_once() -> None:
    shop, held = emergency_page(Entitlement.WATERMARK)
    slab = shop.slab_  # type: ignore[attr-defined]
    slab.free(held.pop())
    assert slab.stats().page_count == 0
    assert shop.memory.zone.room() == EMERGENCY


def test_objects_of_an_emergency_page_never_come_to_hand() -> None:
    shop = Shop()
    slab = shop.slab(keep=None)
    shop.drain_to(EMERGENCY)
    first, second = slab.alloc(Gfp.ATOMIC), slab.alloc(Gfp.ATOMIC)
    assert first is not None and second is not None
    slab.free(first)
    assert slab.stats().at_hand == 0
    assert slab.alloc() is None
    shop.check(slab)


def test_a_floor_is_ordinary_and_proves_nothing() -> None:
    shop = Shop()
    slab = shop.slab(floor=4096)
    shop.drain_to(EMERGENCY)
    held = [slab.alloc() for _ in range(4)]
    assert None not in held
    assert slab.alloc() is None
    assert [page.level for page in slab.cache.pages()] == [MIN]


# -- constructors, zeroing, debug ------------------------------------------------------------------


def test_a_constructor_sees_each_object_once_and_its_work_stays() -> None:
    seen: list[int] = []

    def construct(view: memoryview) -> None:
        seen.append(len(view))
        view[:4] = b"list"

    slab = Shop().slab(constructor=construct)
    for _ in range(3):
        view = slab.alloc()
        assert view is not None and bytes(view[:4]) == b"list"
        slab.free(view)
    assert seen == [1024] * 4
    with pytest.raises(GfpConflict, match="constructor"):
        slab.alloc(Gfp.KERNEL | Gfp.ZERO)
    assert slab.stats().out_count == 0


@pytest.mark.parametrize("fail_at", range(4))
def test_a_constructor_that_raises_loses_nothing(fail_at: int) -> None:
    calls: list[int] = []

    def construct(view: memoryview) -> None:
        calls.append(1)
        if len(calls) == fail_at + 1:
            raise OSError("no descriptor")

    shop = Shop()
    slab = shop.slab(constructor=construct)
    with pytest.raises(OSError, match="no descriptor"):
        slab.alloc()
    assert shop.memory.zone.stats().held_pages == 0 and not shop.pages.lent
    view = slab.alloc()
    assert view is not None
    slab.free(view)
    shop.check(slab)
    slab.close()


def test_zero_clears() -> None:
    slab = Shop().slab()
    view = slab.alloc()
    assert view is not None
    view[:] = b"x" * 1024
    slab.free(view)
    clear = slab.alloc(Gfp.KERNEL | Gfp.ZERO)
    assert clear is not None and bytes(clear) == bytes(1024)


def test_red_zones_show_who_wrote_beside(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    slab = shop.slab(flags=SlabFlag.DEBUG, size=1000)
    view = slab.alloc()
    assert view is not None and len(view) == 1000
    offset = next(iter(slab._slots.values()))
    left = slab.cache.spec.left_red
    shop.pages.bytes[offset + left + 1000] = 1
    shop.pages.bytes[offset + left - 2] = 7
    slab.free(view)
    assert slab.stats().findings == 2
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "written 2 bytes before it: 07" in said
    assert "written 1 bytes behind it: 01" in said
    assert f"taken by {threading.current_thread().name}" in said
    view = slab.alloc()
    assert view is not None
    slab.free(view)
    assert slab.stats().findings == 2, "what was overwritten is mended"


def test_poison_shows_who_wrote_after_free(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    slab = shop.slab(flags=SlabFlag.DEBUG)
    view = slab.alloc()
    assert view is not None
    offset = next(iter(slab._slots.values())) + slab.cache.spec.left_red
    slab.free(view)
    with pytest.raises(ValueError, match="released"):
        view[0] = 1
    shop.pages.bytes[offset + 3] = 1
    assert slab.alloc() is not None
    assert slab.stats().findings == 1
    assert "written after free at offset 3" in caplog.records[-1].getMessage()


# -- as a backend ----------------------------------------------------------------------------------


def test_a_mempool_over_a_slab_keeps_its_reserve_when_the_zone_is_empty() -> None:
    shop = Shop()
    slab = shop.slab()
    pool = BackedMempool[memoryview](slab, min_count=2, runtime=THREADS, name="p")
    shop.drain_to(MIN)
    held = [pool.alloc() for _ in range(4)]
    assert pool.try_alloc() is None
    for view in held:
        pool.free(view)
    pool.close()
    shop.check(slab)
    slab.close()


def test_a_pool_without_a_reserve_hears_of_objects_and_of_pages() -> None:
    shop = Shop()
    ours, theirs = shop.slab("ours", keep=None), shop.slab("theirs", keep=None)
    shop.drain_to(MIN + 1)
    held = [theirs.alloc() for _ in range(4)]
    kicks: list[str] = []
    ours.on_room(lambda: kicks.append("kick"))
    assert ours.alloc() is None
    view = held.pop()
    assert view is not None
    theirs.free(view)
    assert kicks == ["kick"], "an object of the shared cache came back"
    mine = ours.alloc()
    assert mine is not None
    assert ours.alloc() is None
    shop.memory.release(1)
    assert kicks == ["kick"] * 2, "a page came back"
    assert ours.alloc() is not None
    shop.check(ours)


def test_what_neighbours_keep_at_hand_is_asked_for_before_refusing() -> None:
    shop = Shop()
    ours, theirs = shop.slab("ours", keep=None), shop.slab("theirs", keep=None)
    shop.drain_to(MIN + 1)
    view = theirs.alloc()
    assert view is not None
    theirs.free(view)
    assert theirs.stats().at_hand > 0
    assert [ours.alloc() is not None for _ in range(5)] == [True] * 4 + [False]


def test_orders_hold_eight_and_waste_little() -> None:
    assert choose_order(128, 4096, 1024) == 0
    assert choose_order(4096, 4096, 1024) == 3
    assert choose_order(700, 4096, 1024) == 1
    assert choose_order(4096, 4096, 16) == 0, "a small zone has no place for large runs"
    assert choose_order(100_000, 4096, 1024) == 5


def test_a_floor_that_does_not_fit_is_refused() -> None:
    with pytest.raises((UsageError, NoMemory)):
        Shop().slab(floor=1 << 20)


def test_look() -> None:
    slab = Shop().slab("inode")
    slab.alloc()
    assert repr(slab) == "<Slab 'inode': 1 of 1KiB out, 0 at hand, 1 pages of 4>"
    assert repr(slab.cache) == "<SlabCache 'inode': 1 pages of 4 x 1KiB, 3 objects free>"
