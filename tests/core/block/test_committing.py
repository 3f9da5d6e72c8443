"""The committing worker: who shares a round, what is told when, and what a failure leaves."""

from __future__ import annotations

import pytest

from headway.core.block.bio import FLUSH, Bio
from headway.core.block.committing import Committer
from headway.core.plan import Plan, Ticket, park
from headway.errors import BlockError
from tests.core.block.rig import Rig


class Owner:
    """What was done before a commit is durable after it; `gate` holds a commit back."""

    def __init__(self, rig: Rig) -> None:
        self.done = self.durable = self.settled = self.rounds = 0
        self.gate: Ticket | None = None
        self.failure: Exception | None = None
        guard = rig.simulator.guard()
        self.committer = Committer(guard, rig.workers("commit", limit=1), self._commit, self._after)
        self.told: list[tuple[int, int, int, BaseException | None]] = []

    def _commit(self) -> Plan[None]:
        seen = self.done
        self.rounds += 1
        if self.gate is not None:
            yield from park(self.gate)
        if self.failure is not None:
            raise self.failure
        self.durable = seen

    def _after(self) -> None:
        self.settled = self.durable

    def flush(self) -> None:
        """Do something, and flush it; `told` has its number, what was durable and settled, and the error."""
        self.done += 1
        bio, number = Bio(FLUSH), self.done
        bio.push(lambda bio: self.told.append((number, self.durable, self.settled, bio.error)))
        self.committer.flush(bio)


def quick(effect: object) -> Plan[None]:
    effect()  # type: ignore[operator]
    return
    yield


def test_all_who_ask_during_a_round_share_the_next() -> None:
    rig = Rig()
    owner = Owner(rig)
    owner.gate = gate = Ticket("the device")
    rig.run(quick(owner.flush))
    assert owner.rounds == 1 and not owner.told
    rig.run(*(quick(owner.flush) for _ in range(5)))
    owner.gate = None
    gate.wake()
    rig.run()
    assert owner.rounds == 2, "however many asked"
    assert [(number, durable) for number, durable, *_ in owner.told] == [(1, 1)] + [
        (number, 6) for number in range(2, 7)
    ]
    assert [settled for _, _, settled, _ in owner.told] == [0] + [1] * 5, "told first, settled then"
    assert owner.settled == 6


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_told_too_early_or_never(seed: int) -> None:
    rig = Rig(seed)
    owner = Owner(rig)
    stuck = rig.run(*(quick(owner.flush) for _ in range(6)), owner.committer.last())
    assert all(task.name.startswith("start") or "commit" in task.name for task in stuck)
    assert sorted(number for number, *_ in owner.told) == list(range(1, 7))
    assert all(durable >= number for number, durable, *_ in owner.told)


def test_a_failure_is_for_good_and_told_to_each_without_its_traceback() -> None:
    rig = Rig()
    owner = Owner(rig)
    owner.failure = RuntimeError("no thread")
    rig.run(quick(owner.flush))
    owner.failure = None
    rig.run(quick(owner.flush), quick(owner.flush))
    assert owner.rounds == 1, "it is not tried again"
    errors = [error for *_, error in owner.told]
    assert all(isinstance(error, BlockError) and "no thread" in str(error) for error in errors)
    kept = owner.committer.error
    assert kept is not None and kept.__traceback__ is kept.__cause__ is None
    assert len({id(error) for error in (*errors, kept)}) == 4
