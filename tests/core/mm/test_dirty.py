"""Dirty throttling: positions and pauses by hand (T8.4 to T8.6), then devices against each other in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from headway.core.mm.dirty import (
    CONGESTION_S,
    FIRST_BPS,
    MAX_PAUSE_S,
    DirtyDevice,
    DirtyThrottle,
    Pacing,
)
from headway.core.mm.domain import Domain, position_ratio
from headway.core.mm.gfp import Scope
from headway.core.plan import Now, Park, Plan, Ticket, park
from headway.errors import UsageError
from headway.runtimes.simulator import Option, Simulator
from tests.steps import step

MIB = 1 << 20
LIMIT, BACKGROUND = 64 * MIB, 32 * MIB
FREERUN = 48 * MIB


def first(options: Sequence[Option]) -> int:
    return 0


def make(pacing: Pacing = Pacing.POSITION, devices: int = 1) -> tuple[DirtyThrottle, Any]:
    throttle = DirtyThrottle(
        LIMIT, BACKGROUND, runtime=Simulator(first, fine=False), pacing=pacing, name="d"
    )
    made = [throttle.device(f"disk{number}") for number in range(devices)]
    return throttle, made[0] if devices == 1 else made


def pauses(plan: Plan[None], *, at_most: int = 50) -> list[float]:
    """What a writer is made to wait for, with a clock that moves by just that."""
    clock_s, waited = 0.0, []
    stepper = step(plan)
    while stepper.request is not None and len(waited) < at_most:
        if isinstance(stepper.request, Now):
            stepper.answer(clock_s)
            continue
        assert isinstance(stepper.request, Park)
        timeout_s = stepper.request.timeout_s
        assert timeout_s is not None, "a wait without a bound"
        waited.append(timeout_s)
        clock_s += timeout_s
        stepper.answer(False)
    return waited


@pytest.mark.parametrize(
    ("dirty", "ratio"),
    [(0, 2.0), (24, 2.0), (48, 2.0), (52, 1.125), (56, 1.0), (60, 0.875), (64, 0.0), (99, 0.0)],
)
def test_the_position_ratio_is_cubic_between_free_run_and_limit(dirty: int, ratio: float) -> None:
    assert position_ratio(dirty, 48, 64) == ratio


def test_nobody_is_slowed_in_the_free_run() -> None:
    throttle, disk = make()
    assert pauses(disk.dirtied_plan(FREERUN, None, False, 0, "w")) == []
    assert disk.try_dirtied(1)
    assert not disk.try_dirtied(1)
    assert throttle.whole.dirty == FREERUN + 1


def test_above_it_the_pause_is_the_chunk_over_the_rate_at_this_position() -> None:
    _, disk = make()
    disk.account(56 * MIB - MIB, None)
    assert pauses(disk.dirtied_plan(MIB, None, False, 0, "w")) == [pytest.approx(MIB / FIRST_BPS)]
    disk.account(4 * MIB, None)
    slower = pauses(disk.dirtied_plan(MIB, None, False, 0, "w"))[0]
    assert slower > 2 * MIB / FIRST_BPS, "nearer to the limit, whole and own position both say so"


def test_what_is_shorter_than_the_least_pause_is_let_go() -> None:
    _, disk = make()
    disk.account(55 * MIB, None)
    assert pauses(disk.dirtied_plan(4096, None, False, 0, "w")) == []


@pytest.mark.parametrize("pacing", list(Pacing))
def test_t84_every_wait_is_bounded_and_at_the_limit_the_writer_stays(pacing: Pacing) -> None:
    _, disk = make(pacing)
    disk.account(LIMIT, None)
    waited = pauses(disk.dirtied_plan(MIB, None, False, 0, "w"))
    drained_s = 65 * MIB / FIRST_BPS
    most = drained_s / 8 if pacing is Pacing.POSITION else CONGESTION_S
    assert waited == [pytest.approx(most)] * 50
    disk.bandwidth_bps = 1e6
    assert max(pauses(disk.dirtied_plan(MIB, None, False, 0, "w"))) <= MAX_PAUSE_S
    assert disk.stats().pauses >= 50


def test_t84_it_leaves_when_its_device_is_below_its_part() -> None:
    _, disk = make()
    disk.account(LIMIT, None)
    stepper = step(disk.dirtied_plan(MIB, None, False, 0, "w"))
    stepper.answer(0.0)
    for _ in range(3):
        assert isinstance(stepper.request, Park)
        stepper.answer(False)
    disk.cleaned(20 * MIB)
    stepper.answer(False)
    assert stepper.done


def test_t85_a_local_writer_goes_on_though_another_device_is_over_the_limit() -> None:
    throttle, (slow, mine) = make(devices=2)
    slow.account(LIMIT, None)
    assert pauses(mine.dirtied_plan(MIB, None, False, 0, "w")) != []
    assert pauses(mine.dirtied_plan(MIB, None, True, 0, "loop")) == []
    assert mine.try_dirtied(MIB, local=True)
    mine.account(mine.part, None)
    assert pauses(mine.dirtied_plan(MIB, None, True, 0, "loop")) != [], "but it is for its own"
    assert throttle.whole.dirty > LIMIT


def test_whom_reclaim_waits_for_is_never_slowed() -> None:
    _, disk = make()
    disk.account(2 * LIMIT, None)
    assert pauses(disk.dirtied_plan(MIB, None, False, int(Scope.NORECLAIM), "writer")) == []


def test_t86_of_two_domains_the_smaller_ratio_wins() -> None:
    throttle, disk = make()
    group = throttle.group("tenant", 8 * MIB, 4 * MIB)
    assert pauses(disk.dirtied_plan(6 * MIB, group, False, 0, "w")) == []
    disk.account(MIB, group)
    assert disk._ratio(group) < disk._ratio(None), "the group is at its set point, the whole idle"
    assert not disk.try_dirtied(MIB, group) and disk.try_dirtied(MIB)
    disk.account(8 * MIB - group.dirty, group)
    assert pauses(disk.dirtied_plan(MIB, group, False, 0, "w"), at_most=9)[8:]
    assert pauses(disk.dirtied_plan(MIB, None, False, 0, "other")) == [], "others are not"
    roomy = throttle.group("roomy", LIMIT - MIB, BACKGROUND)
    disk.account(LIMIT, None)
    assert pauses(disk.dirtied_plan(MIB, roomy, False, 0, "w"), at_most=9)[8:]


def test_a_flusher_is_woken_at_the_background_limit_of_any_domain() -> None:
    throttle, (one, two) = make(devices=2)
    ticket = one.flusher = Ticket("flusher")
    one.account(BACKGROUND // 2, None)
    assert not ticket.woken
    one.account(1, None)
    assert ticket.woken, "its own part of the background limit"
    ticket = two.flusher = Ticket("flusher")
    group = throttle.group("g", MIB, 4096)
    two.account(4096, group)
    assert not ticket.woken
    two.account(1, group)
    assert ticket.woken


def test_an_idle_device_is_not_a_slow_one() -> None:
    throttle, disk = make()
    simulator: Any = throttle.runtime
    simulator.clock_s = 10.0
    disk.account(30 * MIB, None)
    simulator.clock_s = 10.1
    disk.cleaned(MIB)
    assert disk.bandwidth_bps == FIRST_BPS, "it has been busy for too short a time to tell"
    simulator.clock_s = 10.5
    disk.cleaned(24 * MIB)
    assert disk.bandwidth_bps == pytest.approx(50 * MIB)


def test_what_makes_no_limits() -> None:
    with pytest.raises(UsageError, match="the background limit must be below the hard one"):
        Domain("d", MIB, MIB)
    _, disk = make()
    with pytest.raises(UsageError, match="give 0 or more"):
        pauses(disk.dirtied_plan(-1, None, False, 0, "w"))


def test_look() -> None:
    throttle, disk = make()
    disk.account(MIB, None)
    assert repr(disk) == "<DirtyDevice 'disk0': 1MiB dirty of 64MiB, 95.4 MiB/s>"
    assert repr(throttle.whole) == "<Domain 'd': 1MiB dirty, background 32MiB, limit 64MiB>"


# -- devices against each other, in virtual time -----------------------------------------------------


@dataclass
class Disk:
    """A device of that many bytes a second (0: it hangs), and its writers, who would never rest."""

    bps: float
    writers: int = 1
    from_s: float = 0.0


def play(pacing: Pacing, seconds: float, **disks: Disk) -> tuple[dict[str, float], DirtyThrottle]:
    """What each disk cleaned, in parts of what it could have; and the most that was ever dirty."""
    last = [0]

    def turns(options: Sequence[Option]) -> int:
        later = (i for i, option in enumerate(options) if option.task > last[0])
        index = next(later, 0)
        last[0] = options[index].task
        return index

    simulator = Simulator(turns, fine=False)
    throttle = DirtyThrottle(LIMIT, BACKGROUND, runtime=simulator, pacing=pacing)

    def flusher(device: DirtyDevice, disk: Disk) -> Plan[None]:
        while disk.bps and simulator.clock_s < seconds:
            size = min(device.dirty, 256 << 10)
            yield from park(Ticket("the disk"), size / disk.bps if size else 0.005)
            if size:
                device.cleaned(size)

    def writer(device: DirtyDevice, disk: Disk, name: str) -> Plan[None]:
        yield from park(Ticket("later"), disk.from_s)
        while simulator.clock_s < seconds:
            yield from device.dirtied_plan(64 << 10, None, False, 0, name)
            slack = (64 << 10) * sum(disk.writers for disk in disks.values())
            assert throttle.whole.dirty <= LIMIT + slack
            yield from park(Ticket("thinks"), 64e-6)

    devices = {}
    for name, disk in disks.items():
        devices[name] = throttle.device(name)
        simulator.start(flusher(devices[name], disk), f"flusher {name}")
        for number in range(disk.writers):
            simulator.start(writer(devices[name], disk, name), f"writer {name} {number}")
    while simulator.clock_s < seconds:
        options = simulator.options()
        simulator.take(options[turns(options)])
    for task in simulator.tasks:
        assert task.failure is None, task.failure
    simulator.close()
    busy = {name: disk.bps * (seconds - disk.from_s) for name, disk in disks.items() if disk.bps}
    return {name: devices[name].cleaned_bytes / most for name, most in busy.items()}, throttle


@pytest.mark.parametrize(
    "slow",
    [
        Disk(1e6),
        Disk(1e6, writers=4),
        Disk(10e6),
        Disk(0),
    ],
    ids=["slow", "slow with four writers", "a tenth as fast", "hangs"],
)
@pytest.mark.parametrize("from_s", [0.0, 5.0], ids=["together", "the slow one first"])
def test_a_slow_devices_writer_does_not_slow_the_other(slow: Disk, from_s: float) -> None:
    """At least nine tenths of what the fast device can do, whoever came first; and the slow one is busy."""
    found, _ = play(Pacing.POSITION, 15.0, slow=slow, fast=Disk(50e6, from_s=from_s))
    assert found["fast"] > 0.9
    assert found.get("slow", 1.0) > 0.9


def test_the_historic_wait_lets_the_slow_device_slow_the_other() -> None:
    """The absence of the promise: with congestion waits both get the slow one's turns."""
    found, _ = play(Pacing.CONGESTION, 15.0, slow=Disk(1e6), fast=Disk(50e6))
    assert found["fast"] < 0.5
    assert found["slow"] > 0.9


def test_one_device_with_many_writers_stays_busy_and_near_its_set_point() -> None:
    found, throttle = play(Pacing.POSITION, 15.0, disk=Disk(20e6, writers=8))
    assert found["disk"] > 0.95
    assert FREERUN * 0.9 < throttle.whole.dirty <= LIMIT + 8 * (64 << 10)
