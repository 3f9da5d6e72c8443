"""A list of objects by age: the walk's contract (T8.8), and counts that are always the lengths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headway.core.mm.list_lru import ListLru, Walk
from headway.core.plan import Guard
from headway.runtimes.threads import THREADS


def filled(count: int) -> ListLru[int]:
    lru: ListLru[int] = ListLru(THREADS)
    for item in range(count):
        assert lru.add(item)
    return lru


def order(lru: ListLru[int], group: str = "") -> list[int]:
    seen: list[int] = []

    def look(item: int, guard: Guard) -> Walk:
        seen.append(item)
        return Walk.SKIP

    assert lru.walk(look, 1000, group) == 0
    lru.check_invariants()
    return seen


def always(said: Walk) -> tuple[Callable[[int, Guard], Walk], list[int]]:
    seen: list[int] = []

    def visit(item: int, guard: Guard) -> Walk:
        seen.append(item)
        return said

    return visit, seen


def test_an_object_is_in_one_list_at_most() -> None:
    lru = filled(3)
    assert not lru.add(1) and not lru.add(1, "other")
    assert lru.use(0) and order(lru) == [1, 2, 0]
    assert lru.remove(2) and not lru.remove(2) and not lru.use(2)
    assert (len(lru), lru.count_of(""), lru.count_of("other")) == (2, 2, 0)
    assert 0 in lru and 2 not in lru


@pytest.mark.parametrize("said", list(Walk))
@pytest.mark.parametrize("budget", [0, 1, 7, 64, 1000])
def test_t8_8_a_walk_ends_within_its_budget_whatever_is_said(said: Walk, budget: int) -> None:
    lru = filled(100)
    visit, seen = always(said)
    removed = lru.walk(visit, budget)
    assert len(seen) <= budget
    expected = {
        Walk.REMOVED: min(budget, 100),
        Walk.REMOVED_RETRY: min(budget, 100),
        Walk.ROTATE: budget,
        Walk.SKIP: min(budget, 100),
        Walk.RETRY: budget,
        Walk.STOP: min(budget, 1),
    }[said]
    assert len(seen) == expected
    assert removed == (expected if said in (Walk.REMOVED, Walk.REMOVED_RETRY) else 0)
    assert len(lru) == 100 - removed
    lru.check_invariants()


def test_what_each_answer_does() -> None:
    lru = filled(6)
    answers = {0: Walk.SKIP, 1: Walk.REMOVED, 2: Walk.ROTATE, 3: Walk.REMOVED, 4: Walk.STOP}
    assert lru.walk(lambda item, guard: answers[item], 100) == 2
    assert order(lru) == [0, 4, 5, 2]


def test_a_callback_that_drops_the_guard_starts_again_and_may_find_others_changes() -> None:
    lru = filled(4)
    seen = []

    def visit(item: int, guard: Guard) -> Walk:
        seen.append(item)
        if item == 0 and len(seen) == 1:
            guard.release()
            lru.remove(1)  # somebody else, meanwhile
            lru.add(9)
            guard.acquire()
            return Walk.RETRY
        if item == 2:
            guard.release()
            lru.remove(2)
            guard.acquire()
            return Walk.REMOVED_RETRY  # gone already: not counted twice
        return Walk.SKIP

    assert lru.walk(visit, 100) == 0
    assert seen == [0, 0, 2, 0, 3, 9]
    lru.check_invariants()


def test_the_accounting_invariant_holds_when_a_group_is_handed_on_and_is_checked() -> None:
    lru = filled(3)
    for item in (10, 11):
        lru.add(item, "dying")
    assert lru.move_group("dying", "") == 2
    assert lru.move_group("dying", "") == 0 == lru.move_group("", "")
    assert (lru.count_of(""), lru.count_of("dying"), lru.count) == (5, 0, 5)
    assert order(lru) == [0, 1, 2, 10, 11]
    lru._counts[""] += 1
    with pytest.raises(AssertionError):
        lru.check_invariants()


class ListMachine(RuleBasedStateMachine):
    """Against a plain list of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.lru: ListLru[int] = ListLru(THREADS)
        self.model: list[tuple[str, int]] = []

    def index(self, item: int) -> int | None:
        return next((n for n, (_, other) in enumerate(self.model) if other == item), None)

    @rule(item=st.integers(0, 30), group=st.sampled_from("ab"))
    def add(self, item: int, group: str) -> None:
        assert self.lru.add(item, group) == (self.index(item) is None)
        if self.index(item) is None:
            self.model.append((group, item))

    @rule(item=st.integers(0, 30), use=st.booleans())
    def take(self, item: int, use: bool) -> None:
        found = self.index(item)
        assert (self.lru.use(item) if use else self.lru.remove(item)) == (found is not None)
        if found is not None:
            pair = self.model.pop(found)
            if use:
                self.model.append(pair)

    @rule(group=st.sampled_from("ab"), to=st.sampled_from("ab"))
    def move(self, group: str, to: str) -> None:
        mine = [pair for pair in self.model if pair[0] == group]
        assert self.lru.move_group(group, to) == (0 if group == to else len(mine))
        if group != to:
            self.model = [pair for pair in self.model if pair[0] != group]
            self.model += [(to, item) for _, item in mine]

    @rule(
        group=st.sampled_from("ab"),
        budget=st.integers(0, 40),
        said=st.lists(st.sampled_from([Walk.REMOVED, Walk.SKIP, Walk.ROTATE]), max_size=40),
    )
    def walk(self, group: str, budget: int, said: list[Walk]) -> None:
        answers = iter(said)
        self.lru.walk(lambda item, guard: next(answers, Walk.STOP), budget, group)
        mine = [item for name, item in self.model if name == group]
        passed = 0
        for answer, _ in zip([*said, Walk.STOP], range(budget), strict=False):
            if passed >= len(mine) or answer is Walk.STOP:
                break
            if answer is Walk.SKIP:
                passed += 1
            else:
                item = mine.pop(passed)
                if answer is Walk.ROTATE:
                    mine.append(item)
        self.model = [pair for pair in self.model if pair[0] != group]
        self.model += [(group, item) for item in mine]

    @invariant()
    def counts_are_lengths_and_order_is_kept(self) -> None:
        self.lru.check_invariants()
        for group in "ab":
            mine = [item for name, item in self.model if name == group]
            assert self.lru.count_of(group) == len(mine)
            assert order(self.lru, group) == mine


TestListMachine = ListMachine.TestCase
TestListMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
