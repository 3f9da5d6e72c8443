"""What is known of each task of a run: who it is, what it did, what it holds; and the trace of it all.

It does not run anything: `trial` feeds it with the events of pools and with the start and end of
operations. An operation may hold others inside (a pool over a pool asks the lower one), so what a task
is doing is a stack. A task is identified by what it runs and on what, never by its number, and an
element not at all: equal tasks are to look equal.

Source: lockdep's held list; local state as the history of a task's own results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd
from types import MethodType
from typing import Any, final

from headway.checker.budgets import Units
from headway.checker.raw import vet
from headway.checker.shared import closed_over, is_plain, shared_by
from headway.core.mm.account import Account
from headway.core.mm.gfp import Gfp
from headway.core.mm.mempool import Mempool
from headway.core.mm.together import Together
from headway.errors import UsageError
from headway.runtimes.simulator import Task

_MEMALLOC = int(Gfp.MEMALLOC)  # plain: arithmetic on enum members costs half a microsecond


@final
@dataclass(slots=True)
class Entry:
    """One line of a trace; `result` is waits, granted, none, done, or the name of an exception."""

    task: str
    op: str
    pool: str
    n: int
    result: str = ""
    step: int = 0  # of a model: how many steps had been taken (one may touch several pools)
    shown: str = ""  # `n` as its budget shows it


@final
class Amounts(dict[int, int]):
    """Numbers by pool; 0 where none stands. (A `Counter` takes longer to make, and each task has three.)"""

    def __missing__(self, pool: int) -> int:
        return 0


@final
class Local:
    """What is known of one task."""

    __slots__ = (
        "arrived", "asked", "children", "doing", "entitled", "entries", "expired", "grain", "held",
        "history", "identity", "need",
    )  # fmt: skip

    def __init__(self, identity: tuple[Any, ...]) -> None:
        self.identity = identity
        self.history: list[tuple[Any, ...]] = []
        self.doing: list[tuple[Any, ...]] = []  # operations, the outermost first
        self.entries: list[Entry] = []  # their lines in the trace
        self.asked: list[bool] = []  # which allocators failed in the outermost
        self.held = Amounts()  # units by pool
        self.need = Amounts()  # most held and asked for together, by pool
        self.grain = Amounts()  # what all it asks for are multiples of
        self.children = 0
        self.arrived = 0  # when it first had to wait in the operation it is in; 0 if it had not
        self.entitled = False  # whether reserves are open to the request it is in
        self.expired = False  # its time was up before that was the only way to go on

    @property
    def pending(self) -> tuple[Any, ...] | None:
        """The operation it is about to do, or in the middle of: (what, pool, how many)."""
        return self.doing[-1] if self.doing else None

    @property
    def wants(self) -> list[tuple[int, int]]:
        """What it asks for now, all at once: of each pool how much."""
        found = []
        for what, index, count in reversed(self.doing):
            found.append((index, count))
            if what != "alloc+":
                break
        return found[::-1]


@final
class Ledger:
    """The tasks and pools of one run. `point` lets other tasks go first; `current` runs now."""

    def __init__(self, current: Callable[[], Task | None], point: Callable[[str], None]) -> None:
        self._current = current
        self._point = point
        self.pools: list[Any] = []  # a budget as its `Units`
        self._own: list[Any] = []  # the pools and budgets themselves
        self.names: list[str] = []  # of the pools, each once
        self.trace: list[Entry] = []
        self.locals: list[Local] = []
        self.owners: list[str] = []  # the names of the tasks, in order of start
        self.unmergeable: str | None = None
        self._called: Counter[str] = Counter()  # how many tasks of a name there are
        # What was found of a function with its arguments: kept with them, so that no id is used again.
        self._known: dict[tuple[int, ...], tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = {}
        self._out: set[tuple[int, int]] = set()  # (pool, element)
        self._holders: dict[tuple[int, int], list[int]] = {}  # (pool, element) -> task numbers

    # -- who there is ----------------------------------------------------------------------------

    def adopt(self, pool: Any) -> str:
        """Watch a new pool; its name here, which is its own unless another had that before."""
        same = sum(1 for known in self.pools if known.name == pool.name)
        self._own.append(pool)
        self.pools.append(Units(pool) if isinstance(pool, Account) else pool)
        reclaim = getattr(pool, "reclaim", None) if isinstance(pool, Account) else None
        if reclaim is not None and self.unmergeable is None:
            self.unmergeable = shared_by(reclaim, self._accept)
        self.names.append(f"{pool.name}-{same + 1}" if same else pool.name)
        pool.watch(self.event)
        return self.names[-1]

    def note(self, name: str, fn: Any, args: tuple[Any, ...], parent: Local | None = None) -> str:
        """Find out who a task is, wherever and whenever it is started; its name here.

        Raises: RawPrimitive, UsageError if it reaches a raw lock, or a pool made outside the check.
        """
        if parent is not None:
            parent.children += 1
        while isinstance(fn, partial):
            fn, args = fn.func, (*fn.args, *fn.keywords, *fn.keywords.values(), *args)
        same = (id(fn), *map(id, args))
        if not self._out and same in self._known:
            return self._enter(name, self._known[same][2], parent)
        unique = ("start", parent.identity, parent.children) if parent is not None else ("main",)
        why = shared_by(fn, self._accept, is_first=parent is None)
        for arg in args:
            if why is None and self._pool_of(arg) is None and callable(arg):
                why = shared_by(arg, self._accept)
        canon = tuple(self._canon(arg, unique) for arg in args)
        if why is None and unique in canon:
            why = f"{name} is given an object that others may have too"
        self.unmergeable = self.unmergeable or why
        cells = tuple(self._canon(cell, unique) for cell in closed_over(fn))
        identity = (name, self._canon(fn, unique), canon, cells)
        if why is None and not self._out:
            self._known[same] = (fn, args, identity)
        return self._enter(name, identity, parent)

    def _enter(self, name: str, identity: tuple[Any, ...], parent: Local | None) -> str:
        self.locals.append(Local(identity))
        self._called[name] += 1
        self.owners.append(name if parent is None else f"{name}-{self._called[name]}")
        return self.owners[-1]

    def _canon(self, value: Any, unique: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a value is, in words that are the same in every run."""
        if isinstance(value, Together):
            return ("together", *((self.index(part), units) for part, units in value.parts))
        pool = self._pool_of(value)
        if pool is not None:
            return ("pool", self.index(pool), getattr(value, "__name__", ""))
        if (unit := self._unit(value)) is not None:
            return unit
        if is_plain(value):
            return ("value", type(value), value)
        code = getattr(value, "__code__", None)
        if code is not None and not isinstance(value, MethodType):
            return ("code", code, *(self._canon(cell, unique) for cell in closed_over(value)))
        return unique

    def _unit(self, value: Any) -> tuple[Any, ...] | None:
        """Which pool's element a value is that a task passes on: one it holds, or one in flight."""
        task = self._current()
        for index in range(len(self.pools)):
            if task is not None and (index, id(value)) in self._out:
                holders = self._holders[index, id(value)]
                if not holders or task.number in holders:
                    return ("unit", index, bool(holders))
        return None

    def holders(self, index: int, value: Any) -> list[int]:
        """Which tasks hold this element of a pool, by their numbers."""
        return self._holders.get((index, id(value)), []) if (index, id(value)) in self._out else []

    def _pool_of(self, value: Any) -> Any:
        """The pool that a value is, or a method of which it is, or whose asynchronous face."""
        if isinstance(value, MethodType):
            value = value.__self__
        if isinstance(value, Together):
            value = value.parts[0][0]
        if not isinstance(value, Mempool | Account):
            value = (
                getattr(value, "pool", None) if type(value).__module__ == "headway.aio" else None
            )
        if value is None:
            return None
        if not any(value is known for known in self._own):
            raise UsageError(
                f"pool {value.name!r} was made outside the function under check: make it inside"
            )
        return value

    def _accept(self, fn: Any, name: str, value: Any) -> bool:
        vet(fn, name, value)
        return self._pool_of(value) is not None

    def index(self, pool: Any) -> int:
        for index, known in enumerate(self._own):
            if known is pool:
                return index
        raise UsageError(f"pool {pool.name!r} is not one of the function under check")

    # -- what they do ----------------------------------------------------------------------------

    def event(self, event: Any) -> None:
        """A pool's hook: before a request and a release others may come; a grant is a result."""
        task = self._current()
        if task is None:
            return
        local, index = self.locals[task.number - 1], self.index(event.pool)
        match event.kind:
            case "request":
                local.doing.append(("alloc+" if event.part else "alloc", index, event.count))
                self._needs(local, index, event.count)
                if not event.part:  # several budgets are asked in one event
                    local.entitled = bool(int(event.mask) & _MEMALLOC)
                    self._point(f"alloc {self.names[index]}")
                local.entries.append(self._write(task, "alloc", index, event.count))
            case "grant":
                self._granted(task, local, index, event)
            case "release":
                local.doing.append(("free", index, event.count))
                self._point(f"free {self.names[index]}")
                local.doing.pop()
                if isinstance(event.pool, Account):
                    self._check_units(index, event.count)
                elif event.pool.outstanding <= 0:  # untraced pools do not look
                    raise UsageError(
                        f"pool {self.names[index]!r}: an element was freed while none was out: "
                        "freed twice, or of another pool"
                    )
                self._gone(task, local, index, event, "free")
            case "hand_over" | "transfer":
                self._gone(task, local, index, event, event.kind)

    def did(self, task: Task, op: str, name: str, n: int, result: str) -> None:
        """Something that is not a pool's: it is a result of the task's own too."""
        self.trace.append(Entry(task.name, op, name, n, result))
        self.locals[task.number - 1].history.append((op, name, n, result))

    def ended(self, result: Any) -> None:
        """The end of an operation that ran as a plan: what it gave, or raised."""
        task = self._current()
        if task is None or not (local := self.locals[task.number - 1]).entries:
            return  # a plan that is no allocation
        index = local.doing[-1][1]
        while local.doing[-1][0] == "alloc+":
            self._outcome(local, result)
        self._outcome(local, result)
        for element in result[1:] if isinstance(result, list) else ():
            self._now_held(task, index, element)  # the event of a bulk names only the first
        if not local.doing:
            local.asked.clear()
            local.arrived = 0

    def _needs(self, local: Local, index: int, count: int) -> None:
        """Note what a task has and asks for together: of the pool, and of the budgets above it."""
        local.need[index] = max(local.need[index], local.held[index] + count)
        local.grain[index] = gcd(local.grain[index], count)
        face = self.pools[index]
        for level in [*face.budget.levels()][1:] if isinstance(face, Units) else ():
            below = [n for n, own in enumerate(self._own) if level in _levels(own)]
            above = self.index(level)
            has = sum(local.held[n] for n in below)
            local.need[above] = max(local.need[above], has + count)
            local.grain[above] = gcd(local.grain[above], count)

    def _outcome(self, local: Local, result: Any) -> None:
        entry, op = local.entries.pop(), local.doing.pop()
        if isinstance(result, BaseException):
            entry.result = type(result).__name__
        elif entry.result != "granted":
            entry.result = "none"
        local.history.append((*op, entry.result))

    def _check_units(self, index: int, count: int) -> None:
        face = self.pools[index]
        if count > face.out:
            raise UsageError(
                f"budget {self.names[index]!r}: {face.show(count)} were freed while "
                f"{face.show(face.out)} were out"
            )

    def _write(self, task: Task, op: str, index: int, count: int, result: str = "") -> Entry:
        face = self.pools[index]
        shown = face.show(count) if isinstance(face, Units) else ""
        self.trace.append(Entry(task.name, op, self.names[index], count, result, shown=shown))
        return self.trace[-1]

    def _granted(self, task: Task, local: Local, index: int, event: Any) -> None:
        if not local.entries:  # from the reserve alone, which is no request
            self._write(task, "alloc", index, event.count, "granted")
            local.history.append(("alloc", index, event.count, "granted"))
        else:
            asked = [n for n, op in enumerate(local.doing) if op[1] == index][-1]
            if (
                local.entries[asked].result == "waits"
            ):  # a line of its own: it was asked for long ago
                local.entries[asked] = self._write(task, "alloc", index, event.count, "granted")
            else:
                local.entries[asked].result = "granted"
        local.expired = False
        local.held[index] += event.count
        if isinstance(face := self.pools[index], Units):
            face.out += event.count
        else:
            self._now_held(task, index, event.element)

    def _now_held(self, task: Task, index: int, element: Any) -> None:
        self._out.add((index, id(element)))
        self._holders.setdefault((index, id(element)), []).append(task.number)

    def _gone(self, task: Task, local: Local, index: int, event: Any, op: str) -> None:
        """An element left whoever held it: freed, in flight, or another's now."""
        self._write(task, op, index, event.count, "done")
        local.history.append((op, index, event.count))
        if isinstance(face := self.pools[index], Units):
            self._units_gone(face, local, index, event, op)
            return
        if op == "free":
            self._out.discard((index, id(event.element)))
        holders = self._holders.setdefault((index, id(event.element)), [])
        if holders:  # equal elements may be out twice: whoever acts now gives up his own
            number = task.number if task.number in holders else holders[0]
            holders.remove(number)
            self.locals[number - 1].held[index] -= 1
        if op == "transfer" and event.to in self.owners:
            number = self.owners.index(event.to) + 1
            holders.append(number)
            self.locals[number - 1].held[index] += 1

    def _units_gone(self, face: Units, local: Local, index: int, event: Any, op: str) -> None:
        """Units left whoever held them: the one who acts if he has any, else what is in flight, else anybody."""
        left = event.count
        for its in (local, None, *self.locals):
            has = face.flight if its is None else max(0, its.held[index])
            part = min(left, has) if its is not None or op == "free" else 0
            left -= part
            if its is None:
                face.flight -= part
            else:
                its.held[index] -= part
        if op == "free":
            face.out -= event.count
        elif op == "transfer" and event.to in self.owners:
            self.locals[self.owners.index(event.to)].held[index] += event.count
        else:
            face.flight += event.count


def _levels(own: Any) -> list[Any]:
    return [*own.levels()] if isinstance(own, Account) else []
