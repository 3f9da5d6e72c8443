"""One level of counted units: what is here, and what it draws from the level above.

It does not decide who may draw (`headway.core.mm.meeting` does) and holds no lock: everything changes
under the meeting's guard, except `_home`, a list into which units come back without one (appending is
atomic), to be added up by whoever has the guard next.

One number says it all. `_room` is what ordinary requests may take. It is negative while units are out
that must come home before there is room again: taken from the reserve by those entitled, forced beyond
the limit, or cut off by `resize`. So ``drawn == capacity - reserve - _room`` whatever happened, and an
entitled request may take ``_room + reserve``.

A level draws from the one above what exceeds its floor; the floor itself is drawn when the level is made.

Source: Linux ``mm/page_counter.c`` and ``mm/memcontrol.c`` for charging every level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from headway.core.mm.giver import Giver, Reclaim
from headway.core.mm.ladder import Wake
from headway.core.mm.unit_record import UnitRecord
from headway.core.mm.watched import TREE, WAITERS, Watched
from headway.core.plan import Guard, Runtime
from headway.core.waitqueue import WaitQueue

OUT_OF_RANGE: Final = "more units came back than were out: the surplus is dropped"


class Account(Watched):
    """The state of a budget. `starving` are the requests for which this level is the one that has too little."""

    __slots__ = (
        "_home", "_most", "_room", "below", "capacity", "floor", "floors", "force", "forced_count", "lines",
        "own", "parent", "reserve", "reserve_uses", "show", "starving", "wake",
    )  # fmt: skip

    what = "budget"

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        guard: Guard,
        capacity: int,
        *,
        reserve: int = 0,
        floor: int = 0,
        parent: Account | None = None,
        wake: Wake = Wake.FIFO,
        reclaim: Reclaim | None = None,
        force: bool = False,
        show: Callable[[int], str] = str,
        trace: bool = False,
    ) -> None:
        super().__init__(runtime, name, guard, trace=trace)
        self.capacity = capacity
        self.reserve = reserve
        self.floor = floor
        self.floors = (
            0  # the sum of the children's floors, drawn from here for as long as they live
        )
        self.parent = parent
        self.wake = wake
        # Who can make room: those of this level, and those of the levels below.
        self.own: tuple[Giver, ...] = (
            () if reclaim is None else (Giver(self, "its reclaimer", reclaim),)
        )
        self.below: tuple[Giver, ...] = ()
        self.force = force
        self.show = show
        self._room = self._most = capacity - reserve  # more than `_most` is a surplus
        self._home: list[int] = []  # units that came back and are not yet added up
        self.lines = (WaitQueue(), WaitQueue())  # ordinary requests, entitled ones
        self.starving: dict[Any, None] = {}
        self.reserve_uses = self.forced_count = 0
        if parent is not None:
            self._gate |= TREE

    def _new_record(self, *, complete: bool) -> UnitRecord:
        return UnitRecord(self.name, complete, self.runtime.guard())

    def _find(self, finding: str) -> None:
        """Under the guard: have this reported when it is free, for a log's handler may use budgets."""
        raise NotImplementedError

    def levels(self) -> Iterator[Account]:
        """This one and all above it."""
        level: Account | None = self
        while level is not None:
            yield level
            level = level.parent

    @property
    def gives_way(self) -> bool:
        """Whether anybody can be asked to make room here: one of its own, or one below."""
        return bool(self.own or self.below)

    # -- numbers; exact under the guard, a moment old elsewhere ----------------------------------------

    @property
    def room(self) -> int:
        """Units an ordinary request may take here now; a parent may have fewer."""
        return max(0, self._room + sum(list(self._home)))

    @property
    def used(self) -> int:
        """Units that are out: held, in flight, handed over, or kept for the floors of children."""
        return self._drawn - sum(list(self._home))

    @property
    def waiters(self) -> int:
        """Requests that wait here now."""
        return len(self.lines[0]) + len(self.lines[1])

    @property
    def _drawn(self) -> int:
        return self._most - self._room

    def most(self, entitled: bool) -> int:
        """What can ever be drawn here at once, all else being home."""
        return self.capacity - self.floors - (0 if entitled else self.reserve)

    # -- under the guard -------------------------------------------------------------------------------

    def charge(self, units: int, entitled: bool) -> Account | None:
        """Draw from this level and all above; or draw nothing, and name the level that has too little."""
        drawn: list[tuple[Account, int]] = []
        for level in self.levels():
            spare = level.reserve if entitled else 0
            if units > max(0, level._room + spare) and not (entitled and level.force):
                for lower, count in drawn:
                    lower._room += count
                return level
            above = level._above(units)
            level._room -= units
            drawn.append((level, units))
            units = above
            if not units:
                break
        for level, units in drawn:
            if level._room < 0 < units and entitled:
                level.reserve_uses += 1
                level.forced_count += level._room < -level.reserve
        return None

    def credit(self, units: int) -> None:
        """Give back to this level, and above what its floor does not keep."""
        for level in self.levels():
            before = max(level.floor, level._drawn)
            level._room += units
            units = before - max(level.floor, level._drawn)
            if not units:
                break

    def come_home(self) -> None:
        """Add up what came back."""
        while self._home:
            self.credit(self._home.pop())
        surplus = -self._drawn
        if surplus > 0:
            self._room -= surplus
            self._find(f"budget {self.name!r}: {OUT_OF_RANGE} ({self.show(surplus)})")

    def resized(self, capacity: int) -> None:
        """Change the limit; what is out already stays out, and `_room` may go below zero."""
        self._room += capacity - self.capacity
        self.capacity = capacity
        self._most = capacity - self.reserve

    def enter(self, giver: Giver) -> None:
        """Have it asked from now on when this level, or one above, has too little."""
        self.own = (*(one for one in self.own if one is not giver), giver)
        for level in self.levels():
            if level is not self:
                level.below = (*level.below, giver)

    def leave(self, giver: Giver) -> None:
        """Have it asked no more."""
        self.own = tuple(one for one in self.own if one is not giver)
        for level in self.levels():
            level.below = tuple(one for one in level.below if one is not giver)

    def givers(self, asking: tuple[Account, ...]) -> tuple[tuple[Giver, int | None], ...]:
        """Whom to ask for room here, and for how many units at most (None: any number).

        Its own first, then those below, each time another one before the rest. Whoever has no more than
        floors keep for it is not asked: what it gave would stay with the floor. `asking` are the levels of
        who needs it: what stays with one of these he can use.
        """
        asked = (*self.own, *self.below)
        self.own = self.own[1:] + self.own[:1]
        self.below = self.below[1:] + self.below[:1]
        found = ((giver, self._comes_from(giver.account, asking)) for giver in asked)
        return tuple((giver, most) for giver, most in found if most is None or most > 0)

    def _comes_from(self, account: Account, asking: tuple[Account, ...]) -> int | None:
        """How many of the units that come home to `account` would come to this level."""
        most: int | None = None
        for level in account.levels():
            if level is self:
                break
            level.come_home()
            if level.floor and level not in asking:
                over = level._drawn - level.floor
                most = over if most is None else min(most, over)
        return most

    def drop_floor(self) -> None:
        """Give the level above what was kept there for nobody but this one."""
        before, self.floor = max(self.floor, self._drawn), 0
        if self.parent is not None:
            self.parent.credit(before - max(0, self._drawn))

    def set_gate(self) -> None:
        """Say in the gate whether the next one to give back has to look for somebody."""
        waits = self.starving or self.lines[0] or self.lines[1]
        self._gate = self._gate | WAITERS if waits else self._gate & ~WAITERS

    def _above(self, units: int) -> int:
        """What the level above must give, for `units` drawn here: nothing while the floor covers it."""
        if self.parent is None:
            return 0
        drawn = self._drawn
        return max(self.floor, drawn + units) - max(self.floor, drawn)

    def granted(self, units: int, who: str) -> None:
        """Note a grant that is complete."""
        if self._record is not None:
            self._record.took(units, who, self.runtime.now(), self.runtime.where())
        self.tell("grant", units, owner=who)

    def check_numbers(self) -> None:
        """For tests: after every step."""
        assert self.used >= 0
        assert bool(self._gate & WAITERS) == bool(
            self.starving or self.lines[0] or self.lines[1]
        ), "the gate and the lines disagree"
        for line in self.lines:
            line.check_invariants()
