"""Budgets against a list of who holds what: no unit lost, none twice, nobody forgotten, no one overtaken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headway.budgets import Budget
from headway.core.mm.gfp import Gfp
from headway.core.mm.ladder import Wake
from headway.core.mm.together import Together
from headway.core.plan import Now, Offload, Park
from headway.errors import PoolTimeout, UsageError
from headway.runtimes.threads import THREADS
from tests.steps import Stepper, step

Parts = list[tuple[int, int]]  # budget, units


@dataclass(eq=False)
class Request:
    parts: Parts
    entitled: bool
    stepper: Stepper[bool]
    number: int = 0  # its turn, once it waits

    @property
    def parked(self) -> bool:
        return isinstance(self.stepper.request, Park)

    @property
    def woken(self) -> bool:
        request = self.stepper.request
        return isinstance(request, Park) and request.ticket.woken


class BudgetMachine(RuleBasedStateMachine):
    """A root of 12 with two children (one with a floor), and a budget of 4 beside it with a reserve."""

    @initialize(wake=st.sampled_from([Wake.FIFO, Wake.ANY_FIT]), force=st.booleans())
    def make(self, wake: Wake, force: bool) -> None:
        self.hoard = 0
        root = Budget(12, name="root", wake=wake, reclaim=self.reclaim, runtime=THREADS)
        self.root = root
        self.budgets = [
            root,
            Budget(8, name="kept", parent=root, floor=3),
            Budget(name="free", parent=root, wake=Wake.ANY_FIT),
            Budget(4, name="slots", reserve=1, force=force),
        ]
        self.holding: list[Parts] = []
        self.waiting: list[Request] = []
        self.turns = 0

    def reclaim(self, units: int) -> int:
        """The cache gives back what it holds, at most what is asked for."""
        freed = min(units, self.hoard)
        self.hoard -= freed
        if freed:
            self.root.free(freed)
        return freed

    # -- what happens --------------------------------------------------------------------------------

    @rule(
        parts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=2),
        entitled=st.booleans(),
        may_wait=st.sampled_from([True, True, False]),
    )
    def ask(self, parts: Parts, entitled: bool, may_wait: bool) -> None:
        source = Together(*((self.budgets[index], units) for index, units in parts))
        gfp = Gfp.KERNEL if may_wait else Gfp.NOWAIT
        try:
            stepper = step(source.alloc_plan(gfp, 0, "somebody", 60.0, entitled))
            request = Request(parts, entitled, stepper)
            self.go_on(request)
        except UsageError:
            assert any(units > 3 for _, units in parts) or len(parts) == 2
            return
        if request.parked:
            assert may_wait
            self.turns += 1
            request.number = self.turns
            self.waiting.append(request)

    def go_on(self, request: Request) -> None:
        """Up to its next wait, or its end; a wait that is over already is passed."""
        stepper = request.stepper
        while not stepper.done and (not request.parked or request.woken):
            if request.parked:
                stepper.answer(True)
            elif isinstance(stepper.request, Now):
                stepper.answer(0.0)
            else:
                assert isinstance(stepper.request, Offload)
                stepper.effect()
        if stepper.done and stepper.result:
            self.holding.append(request.parts)

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 9))
    def wake_up(self, number: int) -> None:
        request = self.waiting[number % len(self.waiting)]
        try:
            self.go_on(request)
        except UsageError:  # a smaller limit made it impossible
            assert request.stepper.done
        if request.stepper.done:
            self.waiting.remove(request)

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 9), late=st.booleans())
    def give_up(self, number: int, late: bool) -> None:
        request = self.waiting.pop(number % len(self.waiting))
        if not late:
            try:
                request.stepper.throw(KeyboardInterrupt())
            except KeyboardInterrupt:
                return
        try:
            request.stepper.answer(False)
            request.stepper.answer(60.0)
        except PoolTimeout:
            return
        if request.stepper.done:  # granted in the last moment
            self.holding.append(request.parts)
        else:
            self.waiting.append(request)

    @precondition(lambda self: self.holding)
    @rule(number=st.integers(0, 9))
    def free(self, number: int) -> None:
        for index, units in self.holding.pop(number % len(self.holding)):
            self.budgets[index].free(units)

    @rule(index=st.integers(0, 3), units=st.integers(0, 5))
    def take_on_the_fast_path(self, index: int, units: int) -> None:
        budget = self.budgets[index]
        if budget.take_now(units):
            assert not any(line for level in budget.levels() for line in level.lines)
            self.holding.append([(index, units)])

    @rule(units=st.integers(1, 4))
    def fill_the_cache(self, units: int) -> None:
        if self.root.try_alloc(units):
            self.hoard += units

    @rule()
    def kick(self) -> None:
        self.root.kick()

    @rule(capacity=st.sampled_from([9, 12, 15]))
    def resize(self, capacity: int) -> None:
        self.root.resize(capacity)

    # -- what must hold ------------------------------------------------------------------------------

    def granted(self) -> list[Parts]:
        """What is out: what is held, and what was granted to those who have not woken up yet."""
        return self.holding + [r.parts for r in self.waiting if self.gift(r)]

    def gift(self, request: Request) -> Any:
        assert isinstance(request.stepper.request, Park)
        return request.stepper.request.ticket.gift

    def out(self) -> list[int]:
        """Units drawn from each budget itself, by those who hold them."""
        counts = [self.hoard, 0, 0, 0]
        for parts in self.granted():
            for index, units in parts:
                counts[index] += units
        return [counts[0] + max(3, counts[1]) + counts[2], *counts[1:]]

    @invariant()
    def every_unit_is_counted_once(self) -> None:
        if not hasattr(self, "budgets"):
            return
        assert [budget.used for budget in self.budgets] == self.out()
        for budget in self.budgets:
            budget.check_numbers()
        assert self.budgets[3].used <= 4 or self.budgets[3].force

    @invariant()
    def nobody_waits_who_could_go(self) -> None:
        """The oldest of the entitled, else the oldest of all, is stopped by too few units and nothing else."""
        if not hasattr(self, "budgets"):
            return
        idle = [r for r in self.waiting if not self.gift(r)]
        idle.sort(key=lambda r: (not r.entitled, r.number))
        if idle:
            assert not self.fits(idle[0]), f"{idle[0]} waits, and there is room"

    def fits(self, request: Request) -> bool:
        before = self.out()
        self.holding.append(request.parts)
        after = self.out()
        self.holding.pop()
        for budget, was, now in zip(self.budgets, before, after, strict=True):
            spare = 0 if request.entitled else budget.reserve
            limit = budget.capacity - spare
            if now > max(limit, was) or (now > limit and now > was):
                if not (request.entitled and budget.force):
                    return False
        return True

    def teardown(self) -> None:
        if not hasattr(self, "budgets"):
            return
        self.root.resize(15)
        self.root.free(self.hoard)
        self.hoard = 0
        for _ in range(200):
            if self.holding:
                self.free(0)
            elif self.waiting:
                self.wake_up(0)
                self.waiting = self.waiting[1:] + self.waiting[:1]
        assert not self.waiting, "somebody is left behind"
        assert [budget.used for budget in self.budgets] == [3, 0, 0, 0]


TestBudgets = BudgetMachine.TestCase
