"""Shrinkers: the arithmetic of asking, the contract of count and scan, and leaving (T8.7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.mm.gfp import Gfp, Scope
from headway.core.mm.shrinker import (
    EMPTY,
    STOP,
    Registration,
    ScanControl,
    Shrinkers,
    amount,
    reclaimable,
    shrink,
)
from headway.core.plan import Call, Offload, Park, Plan, Ticket, park
from headway.errors import UsageError
from headway.runtimes import scopes
from headway.runtimes.threads import THREADS
from tests.steps import step


class Things:
    """So many freeable objects; writes down what it was asked."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []
        self.answer: Any = None  # instead of freeing what was asked

    def count_objects(self, control: ScanControl) -> int:
        return self.count

    def scan_objects(self, control: ScanControl) -> int:
        self.asked.append(control.scan_count)
        if self.answer is not None:
            return int(self.answer)
        freed = min(self.count, control.scan_count)
        self.count -= freed
        return freed


def made(things: Any, **options: Any) -> Registration:
    return Shrinkers(THREADS).register(things, **options)


def control(gfp: Gfp = Gfp.KERNEL, scope: int = 0) -> ScanControl:
    return ScanControl(gfp, scope, "a")


def run(one: Registration, priority: int = 0, gfp: Gfp = Gfp.KERNEL) -> int:
    return THREADS.run(shrink(one, control(gfp), priority))


@pytest.mark.parametrize(
    ("freeable", "deferred", "priority", "seeks", "delta", "total"),
    [
        (1000, 0, 0, 2, 2000, 2000),
        (4096, 0, 12, 2, 2, 2),
        (4095, 0, 12, 2, 0, 0),
        (1000, 0, 2, 2, 500, 500),
        (1000, 0, 2, 4, 250, 250),
        (1000, 0, 2, 3, 333, 333),
        (1000, 0, 12, 0, 500, 500),  # nothing is lost with these: half of them, at any priority
        (1000, 4096, 12, 2, 0, 1),  # a share of what was deferred comes on top
        (1000, 9999, 0, 2, 2000, 2000),  # never more than twice what there is
    ],
)
def test_t8_7_how_much_is_asked(
    freeable: int, deferred: int, priority: int, seeks: int, delta: int, total: int
) -> None:
    assert amount(freeable, deferred, priority, seeks) == (delta, total)


def test_t8_7_batches_until_less_than_one_is_left_and_the_rest_is_deferred() -> None:
    things = Things(1000)
    one = made(things)
    assert run(one, priority=2) == 384  # 500 in all
    assert things.asked == [128, 128, 128]
    assert one.deferred == 500 - 384


def test_t8_7_few_objects_are_asked_for_though_less_than_a_batch() -> None:
    things = Things(10)
    assert run(made(things), priority=0) == 10
    assert things.asked == [20]


def test_t8_7_stop_ends_the_pass_and_what_was_not_done_raises_the_next_pressure() -> None:
    things = Things(1000)
    one = made(things)
    things.answer = STOP
    assert run(one, priority=2) == 0 and things.asked == [128]
    assert (one.deferred, one.stops) == (500, 1)
    things.answer = None
    assert run(one, priority=1) > 500, "half of what was deferred on top of half of what there is"
    again = made(Things(100))
    again.shrinker.answer = STOP
    for _ in range(10):
        run(again)
    assert again.deferred == 200, "never more than twice what there is"


def test_what_its_mask_forbids_is_deferred_and_not_called() -> None:
    things = Things(1000)
    one = made(things, needs=Gfp.FS)
    assert run(one, gfp=Gfp.NOFS) == 0 and things.asked == []
    assert one.deferred == 2000
    assert THREADS.run(reclaimable(one, control(Gfp.NOFS))) == 0
    assert run(one) == 1000


def test_a_scan_of_more_than_it_was_asked_is_charged_for_that() -> None:
    class Greedy(Things):
        def scan_objects(self, control: ScanControl) -> int:
            control.scanned = 400
            return super().scan_objects(control)

    things = Greedy(1000)
    assert run(made(things), priority=1) == 384
    assert things.asked == [128, 128, 128], "1000 - 3 x 400 < 0"


def test_a_scan_that_says_it_looked_at_nothing_ends() -> None:
    class Lazy(Things):
        def scan_objects(self, control: ScanControl) -> int:
            control.scanned = 0
            self.asked.append(0)
            return 0

    things = Lazy(300)
    assert run(made(things)) == 0
    assert len(things.asked) <= 600


@pytest.mark.parametrize("count", [0, EMPTY])
def test_nothing_to_free_is_not_scanned(count: int) -> None:
    things = Things(count)
    one = made(things)
    assert run(one) == 0 and things.asked == [] and one.deferred == 0
    assert THREADS.run(reclaimable(one, control())) == 0


@pytest.mark.parametrize("where", ["count_objects", "scan_objects"])
def test_a_shrinker_that_raises_counts_as_stop_and_is_told_ever_more_seldom(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(control: ScanControl) -> int:
        raise RuntimeError(f"no {where} today")

    things: Any = Things(1000)
    setattr(things, where, broken)
    one = made(things, name=f"broken {where}")
    for _ in range(9):
        assert run(one) == 0
    said = [record.getMessage() for record in caplog.records]
    assert all(f"no {where} today" in line and f"'broken {where}'" in line for line in said)
    assert "test_shrinker.py" in said[0], "and where"
    assert [line.rpartition(", ")[2] for line in said[1:]] == [
        "2 times so far", "4 times so far", "8 times so far",
    ]  # fmt: skip
    assert one.raised.count == 9 and "raised 9 times" in repr(one)
    assert isinstance(one.raised.last, str), "an exception would keep what its frames hold"


def test_count_is_called_and_scan_is_offloaded_under_the_requesters_scope() -> None:
    scope = int(Scope.NOIO | Scope.NORECLAIM)
    plan = step(shrink(made(Things(1)), control(Gfp.KERNEL, scope), 0))
    asked = plan.request
    assert isinstance(asked, Call) and asked.scope == scope
    plan.effect()
    asked = plan.request
    assert isinstance(asked, Offload) and asked.scope == scope
    plan.effect()
    assert plan.result == 1


def test_what_a_shrinker_allocates_is_under_the_scope_of_whom_it_works_for() -> None:
    class Looks(Things):
        def scan_objects(self, control: ScanControl) -> int:
            self.asked.append(int(scopes.effective(Gfp.KERNEL)))
            return super().scan_objects(control)

    things = Looks(1)
    THREADS.run(
        shrink(made(things), control(Gfp.NOFS, int(Scope.NOFS | Scope.NORECLAIM)), priority=0)
    )
    assert things.asked[0] == Gfp.IO | Gfp.KSWAPD_RECLAIM, "no FS, and no reclaim of its own"


def test_a_shrinker_may_be_a_plan() -> None:
    ticket = Ticket("disk")

    class Writes:
        def count_objects(self, control: ScanControl) -> int:
            return 1

        def scan(self, control: ScanControl) -> Plan[int]:
            yield from park(ticket)
            return 1

    plan = step(shrink(made(Writes()), control(), 0))
    plan.effect()
    assert isinstance(plan.request, Park)
    plan.answer(True)
    assert plan.result == 1


def test_a_cancelled_pass_leaves_its_work_to_the_next() -> None:
    one = made(Things(1000))
    plan = step(shrink(one, control(), 0))
    plan.effect()
    with pytest.raises(KeyboardInterrupt):
        plan.throw(KeyboardInterrupt())
    assert one.deferred == 2000
    assert step(one.leave()).done, "nobody is inside any more"


def test_leaving_waits_for_whoever_is_inside() -> None:
    all_ = Shrinkers(THREADS)
    one = all_.register(Things(10), name="x")
    inside = step(shrink(one, control(), 0))
    leaving = step(one.leave())
    assert isinstance(leaving.request, Park) and len(all_) == 0
    inside.finish()
    leaving.finish()
    assert run(one) == 0, "whoever still has it in hand finds it closed"
    assert step(one.leave()).done, "leaving twice is once"


def test_the_cheapest_come_first_and_equals_in_order_of_arrival() -> None:
    all_ = Shrinkers(THREADS)
    for name, seeks in (("disk", 8), ("a", 2), ("free", 0), ("b", 2)):
        all_.register(Things(1), name=name, seeks=seeks)
    assert [one.name for one in all_] == ["free", "a", "b", "disk"]


@pytest.mark.parametrize("options", [{"seeks": -1}, {"batch": 0}, {"object_pages": 0}])
def test_numbers_that_make_no_shrinker(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="'shrinker'"):
        made(Things(1), **options)


@given(
    counts=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    priorities=st.lists(st.integers(0, 12), min_size=8, max_size=8),
    stops=st.lists(st.booleans(), min_size=8, max_size=8),
    seeks=st.integers(0, 9),
    batch=st.integers(1, 200),
)
def test_t8_7_deferral_against_its_definition(
    counts: list[int], priorities: list[int], stops: list[bool], seeks: int, batch: int
) -> None:
    things = Things(0)
    one = made(things, seeks=seeks, batch=batch)
    deferred = 0
    for count, priority, stop in zip(counts, priorities, stops, strict=False):
        things.count, things.asked, things.answer = count, [], STOP if stop else 0
        run(one, priority)
        if count == 0:
            assert things.asked == []
            continue
        delta = count // 2 if seeks == 0 else (count >> priority) * 4 // seeks
        scanned = 0 if stop else sum(things.asked)
        assert sum(things.asked) <= 2 * count + batch
        assert all(asked <= batch for asked in things.asked)
        deferred = min(max(deferred + delta - scanned, 0), 2 * count)
        assert one.deferred == deferred
