"""Callbacks that raise while they make room for somebody else: his request goes on, and theirs are told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import headway as hw
from headway.core.mm.gfp import Gfp
from headway.core.mm.oom import OutOfMemory
from headway.core.mm.shrinker import ScanControl
from headway.errors import PoolTimeout
from headway.runtimes.threads import THREADS
from tests.core.mm.memory import PAGES, Memory, cached


class Broken:
    """A shrinker that says it has much, and raises when it is to give it."""

    def __init__(self, answer: Any = None) -> None:
        self.calls = 0
        self.answer = answer

    def count_objects(self, control: ScanControl) -> int:
        return 1000

    def scan_objects(self, control: ScanControl) -> Any:
        self.calls += 1
        if self.answer is None:
            raise ValueError("their list is broken")
        return self.answer


@pytest.mark.parametrize("answer", [None, "seven", (1, 2)])
def test_a_strangers_request_is_served_by_others_and_asks_the_broken_one_once(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    broken = Broken(answer)
    one = memory.path.reclaim.shrinkers.register(broken, name="theirs", seeks=0)
    cache = cached(memory)
    for key in range(PAGES):
        cache[key] = 4000
    before = broken.calls
    freed = THREADS.run(memory.path.reclaim.direct(Gfp.KERNEL, 0, "a stranger", 30))
    assert freed >= 30, "the cache gave it"
    assert broken.calls == before + 1, "once in a run of thirteen passes"
    assert one.raised.count == broken.calls
    assert (
        "shrinker 'theirs': its scan raised" in caplog.text and "goes on without it" in caplog.text
    )


def test_an_error_in_reclaim_is_counted_at_the_zone_and_the_request_gets_what_its_policy_says() -> (
    None
):
    with hw.Zone("1MiB", min_free=0, name="z") as zone:
        buffers = zone.buffers("512KiB")
        held = [buffers.alloc(), buffers.alloc()]
        broken = Broken()
        registered = zone.register_shrinker(broken)
        assert buffers.alloc() is None
        assert 1 <= broken.calls <= 17 and zone.stats().raised_count == broken.calls
        assert registered.raised.last.startswith("ValueError: their list is broken (")
        for view in held:
            assert view is not None
            buffers.free(view)


def test_an_oom_callback_that_raises_has_made_nobody_give_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def victim(info: OutOfMemory) -> bool:
        raise KeyError(info.zone)

    with hw.Zone("1MiB", min_free=0, name="full", oom=victim) as zone:
        buffers = zone.buffers("1MiB")
        held = buffers.alloc()
        with pytest.raises(hw.NoMemory, match="zone 'full'"):
            buffers.alloc()
        assert zone.stats().raised_count == 1
        assert "zone 'full': its oom callback raised KeyError: 'full'" in caplog.text
        assert held is not None
        buffers.free(held)


@pytest.mark.parametrize("answer", [None, "seven", (1, 2)])
def test_a_neighbours_reclaimer_does_not_fail_a_strangers_request(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def broken(units: int) -> Any:
        calls.append(units)
        if answer is None:
            raise ValueError("their cache is broken")
        return answer

    def one_by_one(units: int) -> int:
        good.free(1)
        return 1

    root = hw.Budget(12, name="root")
    theirs = hw.Budget(parent=root, name="theirs", reclaim=broken)
    good = hw.Budget(parent=root, name="good", reclaim=one_by_one)
    mine = hw.Budget(parent=root, name="mine")
    theirs.alloc(4)
    good.alloc(8)
    assert mine.alloc(6), "in six rounds, one unit each"
    assert calls == [6], "it is asked no more in that run"
    assert theirs.stats().raised_count == 1 and good.stats().raised_count == 0
    assert "budget 'theirs': its reclaimer raised" in caplog.text
    assert mine.alloc(2) and len(calls) == 2, "but it is, in the next"


@pytest.mark.parametrize(
    ("answer", "freed"), [(lambda: None, 0), (lambda: -5, 0), (lambda: True, 1)]
)
def test_what_frees_nothing_may_say_so_in_its_own_way(
    answer: Callable[[], Any], freed: int
) -> None:
    budget = hw.Budget(2, reclaim=lambda units: (budget.free(freed), answer())[1])
    budget.alloc(2)
    assert budget.alloc(1, Gfp.KERNEL | Gfp.NORETRY) is bool(freed)
    assert budget.stats().raised_count == 0


def test_a_request_that_waits_asks_a_broken_reclaimer_twice_and_then_its_limit_counts() -> None:
    calls = []

    def broken(units: int) -> int:
        calls.append(units)
        raise ValueError

    budget = hw.Budget(2, reclaim=broken)
    budget.alloc(2)
    with pytest.raises(PoolTimeout):
        budget.alloc(1, timeout_s=0.01)
    assert calls == [1, 1], "when it does not fit, and once more when it stands in line"


def test_an_interrupt_is_not_an_error_and_ends_the_request() -> None:
    def interrupted(units: int) -> int:
        raise KeyboardInterrupt

    budget = hw.Budget(2, reclaim=interrupted)
    budget.alloc(2)
    with pytest.raises(KeyboardInterrupt):
        budget.alloc(1)
    assert budget.used == 2 and budget.waiters == 0 and budget.stats().raised_count == 0
