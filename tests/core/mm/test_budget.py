"""Budgets step by step: reserves, levels, floors, force, reclaim, what is refused."""

from __future__ import annotations

import logging

import pytest

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.ladder import Wake
from headway.core.mm.together import Together
from headway.core.plan import Offload, Park
from headway.errors import NoMemory, PoolBusy, PoolClosed, UsageError
from headway.runtimes import scopes
from tests.core.mm.memory import PAGE, Memory, cached
from tests.steps import Stepper, step


class Cancelled(BaseException):
    """What a driver throws into a plan that was cancelled."""


def ask(
    budget: Budget | Together,
    units: int | None,
    *,
    gfp: Gfp = Gfp.KERNEL,
    scope: int = 0,
    entitled: bool = False,
) -> Stepper[bool]:
    if isinstance(budget, Together):
        return step(budget.alloc_plan(gfp, scope, "a", None, entitled))
    assert units is not None
    return step(budget.alloc_plan(units, gfp, scope, "a", None, entitled))


def parked(budget: Budget | Together, units: int | None = None, **options: bool) -> Stepper[bool]:
    stepper = ask(budget, units, **options)
    stepper.to_park()
    return stepper


def test_units_are_served_in_order_of_arrival() -> None:
    budget = Budget(4)
    budget.alloc(4)
    large, small = parked(budget, 3), parked(budget, 1)
    budget.free(1)
    assert budget.waiters == 2, "a small request overtook a large one"
    budget.free(3)
    assert large.finish() and small.finish() and budget.used == 4


def test_any_fit_serves_whoever_fits() -> None:
    budget = Budget(4, wake=Wake.ANY_FIT)
    budget.alloc(4)
    large, small = parked(budget, 3), parked(budget, 1)
    budget.free(1)
    assert small.finish() and isinstance(large.request, Park)
    assert not budget.try_alloc(1)


def test_a_reserve_is_for_the_entitled_and_they_do_not_queue() -> None:
    budget = Budget(4, reserve=1)
    budget.alloc(3)
    waiting = parked(budget, 1)
    assert not budget.try_alloc(1) and budget.try_alloc(1, entitled=True)
    late = parked(budget, 1, entitled=True)
    budget.free(1)
    assert late.finish() and budget.waiters == 1 and isinstance(waiting.request, Park)
    budget.free(1)
    assert budget.waiters == 1, "what is owed to the reserve was given away"
    budget.free(1)
    assert waiting.finish() and budget.stats().reserve_uses == 2


def test_code_that_reclaims_and_memalloc_are_entitled() -> None:
    budget = Budget(4, reserve=2)
    budget.alloc(2)
    assert not budget.try_alloc(1)
    with scopes.noreclaim():
        assert budget.try_alloc(1)
    assert ask(budget, 1, gfp=Gfp.NOWAIT | Gfp.MEMALLOC).result
    with scopes.noreclaim():
        assert budget.alloc(1, Gfp.NOWAIT | Gfp.NOMEMALLOC) is False
    budget.free(4)


def test_a_child_draws_from_all_above_but_for_its_floor() -> None:
    root = Budget(10, name="root")
    middle = Budget(8, parent=root, name="middle")
    leaf = Budget(parent=middle, floor=3, name="leaf")
    assert (root.used, middle.used, leaf.used, leaf.capacity) == (3, 3, 0, 8)
    leaf.alloc(2)
    assert (root.used, middle.used, leaf.used) == (3, 3, 2)
    leaf.alloc(4)
    assert (root.used, middle.used, leaf.used) == (6, 6, 6)
    root.alloc(4)
    assert not middle.try_alloc(1)
    leaf.free(5)
    assert (root.used, middle.used, leaf.used) == (7, 3, 1)
    leaf.free(1)
    leaf.close()
    assert (root.used, middle.used) == (4, 0)


def test_who_is_stopped_by_its_own_limit_does_not_stop_its_neighbours() -> None:
    root = Budget(10, name="root")
    narrow, wide = Budget(2, parent=root), Budget(parent=root)
    narrow.alloc(2)
    stopped = parked(narrow, 2)
    assert wide.try_alloc(3)
    wide.alloc(5)
    starving = parked(wide, 2)
    narrow.free(1)  # one unit of the root is free: the elder of those who need it comes first
    assert isinstance(stopped.request, Park) and isinstance(starving.request, Park)
    assert not root.try_alloc(1)
    narrow.free(1)
    assert [stopped.request.ticket.woken, starving.request.ticket.woken] == [True, False]


def test_several_budgets_in_one_event_or_nothing() -> None:
    memory, slots = Budget(10, name="memory"), Budget(1, name="slots")
    both = Together((memory, 4), (slots, 1))
    slots.alloc(1)
    waiting = parked(both)
    assert memory.used == 0, "it holds one while it waits for the other"
    assert not memory.try_alloc(1), "a newcomer passed it in the line of memory"
    slots.free(1)
    assert waiting.finish() and (memory.used, slots.used) == (4, 1)
    assert not both.try_alloc()
    both.free()
    with both.lease():
        assert slots.used == 1
    assert (memory.used, slots.used) == (0, 0)
    assert repr(Together((memory, 2), (memory, 1))) == "<Together: 3 of 'memory'>"


def test_units_that_came_home_where_nobody_waits_are_found_by_who_waits_elsewhere() -> None:
    """The root had nobody to look for when its unit came; the request waited for slots alone."""
    root, slots = Budget(4, name="root"), Budget(1, name="slots")
    child = Budget(parent=root, name="child")
    root.alloc(4)
    slots.alloc(1)
    waiting = parked(Together((slots, 1), (child, 1)))
    root.free(1)
    slots.free(1)
    assert waiting.finish()


@pytest.mark.parametrize("units", [-1, 1.5, b"1", None])
def test_units_are_whole_numbers(units: object) -> None:
    budget = Budget(4)
    for use in (budget.alloc, budget.try_alloc, budget.free):
        with pytest.raises(UsageError, match="give an int of 0 or more"):
            use(units)  # type: ignore[operator]
    assert budget.used == 0


def test_what_can_never_be_had_is_refused_at_once() -> None:
    root = Budget("8MiB", reserve="1MiB", name="root")
    child = Budget(parent=root, floor="2MiB", name="child")
    with pytest.raises(
        UsageError, match=r"'root': 6MiB .* more than 5MiB of its 8MiB, 1MiB are re"
    ):
        root.alloc(6 << 20)
    assert root.try_alloc(5 << 20)
    with pytest.raises(UsageError, match="'root': 6MiB"):
        child.alloc(8 << 20)
    with pytest.raises(UsageError):
        Together((root, 3 << 20), (child, 5 << 20)).alloc()
    root.free(5 << 20)
    assert child.try_alloc(8 << 20, entitled=True)


def test_a_smaller_limit_sends_away_who_can_never_be_served() -> None:
    budget = Budget(8)
    budget.alloc(6)
    large, small = parked(budget, 5), parked(budget, 2)
    budget.resize(4)
    with pytest.raises(UsageError, match="5 were asked for at once"):
        large.answer(True)
    small.answer(True)
    assert isinstance(small.request, Park) and budget.room == 0
    budget.free(3)
    assert budget.used == 3 and isinstance(small.request, Park)
    budget.free(1)
    assert small.finish() and budget.used == 4
    budget.resize(9)
    assert budget.room == 5
    with pytest.raises(UsageError, match="resized to 0; reserve and floors need 1"):
        budget.resize(0)


def test_the_entitled_may_be_forced_beyond_the_limit() -> None:
    root = Budget(4, name="root", force=True)
    child = Budget(2, parent=root, force=True, name="child")
    root.alloc(3)
    assert child.try_alloc(5, entitled=True) and (root.used, child.used) == (8, 5)
    assert not child.try_alloc(1) and child.stats().forced_count == 1
    child.free(5)
    assert child.try_alloc(1)


def test_reclaim_runs_entitled_outside_the_guard_and_only_where_the_mask_allows() -> None:
    seen: list[tuple[int, int]] = []

    def reclaim(units: int) -> int:
        seen.append((units, scopes.current()))
        budget.free(1)
        return 1

    budget = Budget(4, reclaim=reclaim)
    budget.alloc(4)
    assert not ask(budget, 2, gfp=Gfp.NOWAIT).result and not seen
    waiting = ask(budget, 2, gfp=Gfp.NOIO)
    waiting.to_park()
    assert not seen
    budget.free(2)
    assert waiting.finish()
    budget.alloc(3, Gfp.KERNEL | Gfp.NORETRY)
    assert seen == [(3, Scope.NORECLAIM)] * 3 and budget.used == 4


def test_one_that_comes_to_the_front_asks_the_reclaimer_itself() -> None:
    hoard = 0

    def reclaim(units: int) -> int:
        nonlocal hoard
        freed, hoard = min(hoard, units), hoard - min(hoard, units)
        budget.free(freed)
        return freed

    budget = Budget(4, reclaim=reclaim)
    budget.alloc(4)
    first, second = parked(budget, 1), parked(budget, 2)
    hoard = 3  # as if three had been put into a cache: nobody gives them back unasked
    with pytest.raises(Cancelled):
        first.throw(Cancelled())
    second.answer(True)
    second.to_park() if not isinstance(second.request, Offload) else second.effect()
    assert second.finish() and budget.used == 4


def test_a_kick_asks_the_reclaimer_again() -> None:
    pinned = True

    def reclaim(units: int) -> int:
        if pinned:
            return 0
        budget.free(units)
        return units

    budget = Budget(4, reclaim=reclaim)
    budget.alloc(4)
    waiting = parked(budget, 2)
    pinned = False
    budget.kick()
    assert waiting.finish()


def test_units_may_be_written_as_sizes() -> None:
    budget = Budget("64MiB", trace=True)
    with budget.lease("8MiB"), Together((budget, "1KiB")).lease():
        assert budget.used == (8 << 20) + 1024
        assert budget.try_alloc("2MiB") and not budget.try_alloc("60MiB")
        budget.hand_over("2MiB")
    budget.free("2MiB")
    assert budget.used == 0
    with pytest.raises(UsageError, match=r"8M.*write '8MiB'"):
        budget.alloc("8M")


def test_closing() -> None:
    root = Budget(8)
    child = Budget(4, parent=root, floor=2, name="child", trace=True)
    child.alloc(4)
    waiting = parked(child, 1)
    with pytest.raises(PoolBusy, match="closed with 4 out; 4 held by MainThread"):
        child.close()
    with pytest.raises(PoolClosed, match="'child' is closed"):
        waiting.answer(True)
    with pytest.raises(PoolClosed):
        child.alloc(1)
    child.free(4)
    assert (root.used, child.used) == (0, 0)
    with pytest.raises(PoolClosed), Budget(1, name="block") as block:
        block.close()
        block.alloc(1)


@pytest.mark.parametrize("way", ["alloc", "kick", "resize", "put"])
def test_what_is_reported_is_said_outside_every_guard(way: str) -> None:
    """The handler of a log may use budgets, and caches."""
    budget = Budget(8 * PAGE, parent=Budget(8 * PAGE, name="root"), name="b")
    cache = cached(Memory(), budget=budget)
    free: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            free.append(not budget._guard.locked() and not cache._guard.locked())  # type: ignore[attr-defined]

    handler = Handler()
    logging.getLogger("headway").addHandler(handler)
    try:
        budget._home.append(5)
        if way == "put":
            cache["a"] = 1
        elif way == "alloc":
            budget.alloc(1)
        elif way == "kick":
            budget.kick()
            budget.stats()
            budget.try_alloc(8 * PAGE)
        else:
            budget.resize(9 * PAGE)
    finally:
        logging.getLogger("headway").removeHandler(handler)
    assert free == [True]


def test_more_than_was_taken_does_not_make_room(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(4, name="b")
    budget.alloc(3)
    budget.free(5)
    assert budget.try_alloc(3) and not budget.try_alloc(2) and budget.used == 3
    assert "budget 'b': more units came back than were out" in caplog.text
    traced = Budget(4, name="t", trace=True)
    traced.alloc(2)
    with pytest.raises(UsageError, match="3 units were given back, and 2 are out"):
        traced.free(3)


def test_what_makes_no_budget_is_refused() -> None:
    root = Budget(4, name="root")
    for wrong in (
        {"capacity": 0},
        {"capacity": 4, "reserve": 4},
        {"capacity": None},
        {"capacity": 4, "floor": 1},
        {"capacity": 2, "floor": 3, "parent": root},
        {"capacity": 4, "wake": Wake.EXCLUSIVE},
    ):
        with pytest.raises(UsageError):
            Budget(**wrong)  # type: ignore[arg-type]
    root.alloc(3)
    with pytest.raises(NoMemory, match="a floor of 2 was asked for, and 'root' has 1 free"):
        Budget(parent=root, floor=2)
    assert (root.used, root.floors) == (3, 0)


def test_who_holds_what_is_on_record() -> None:
    budget = Budget(9, name="b", trace=True)
    budget.alloc(4)
    budget.alloc(3)
    budget.hand_over(2)
    budget.transfer(1, "other")
    held = [(item.count, item.owner, item.in_flight) for item in budget.holders()]
    assert sorted(held) == [
        (1, "other", False),
        (2, "MainThread", True),
        (4, "MainThread", False),
    ]
    budget.free(7)
    assert budget.holders() == ()


def test_a_request_tells_how_it_may_end_and_whether_reserves_are_open_to_it() -> None:
    first, second = Budget(9, reserve=1, name="first"), Budget(4, name="second")
    told: list[tuple[str, str, bool, int]] = []
    for budget in (first, second):
        budget.watch(
            lambda event: (
                event.kind == "request"
                and told.append(
                    (event.pool.name, event.gives_up, bool(event.mask & Gfp.MEMALLOC), event.part)
                )
            )
        )
    first.alloc(1)
    first.alloc(1, timeout_s=1.0)
    first.alloc(1, Gfp.NOWAIT, entitled=True)
    Together((first, 1), (second, 2)).alloc()
    assert told == [
        ("first", "", False, 0), ("first", "PoolTimeout", False, 0), ("first", "none", True, 0),
        ("first", "", False, 0), ("second", "", False, 1),
    ]  # fmt: skip
