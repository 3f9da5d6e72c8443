"""What is watched: pools grouped by the place where they were made, who holds what, who waits.

It decides nothing. A *class* is all pools of one kind made at one place, as in lockdep; a pool is one
instance. A holding is one element that is out. An owner is a task or a thread, or one item of work in
an executor; what a worker thread does in a task's copied context, it does as that task.

Source: lockdep's lock classes and held list (Documentation/locking/lockdep-design.rst).
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from operator import itemgetter
from typing import Any, final

from headway.errors import Deadlock
from headway.watch import places
from headway.watch.places import Place
from headway.watch.roads import Road

_numbers = itertools.count(1)

# Kinds whose elements may be given back by anyone: a connection stays a connection.
CONNECTIONS = ("connections", "mempool", "workers", "tokens")
# Kinds that say who waits for whom, without elements: reclaim and completions.
MAP = "map"
RECLAIM = ("fs_reclaim", "io_reclaim")  # the maps that are held while memory is reclaimed


@final
class PoolClass:
    """All pools of one kind made at one place."""

    __slots__ = (
        "kind", "label", "made", "number", "passed_on", "reentrant", "road", "size",
    )  # fmt: skip

    def __init__(self, kind: str, label: str, made: Place, reentrant: bool) -> None:
        self.kind = kind
        self.label = label
        self.made = made
        self.reentrant = reentrant
        self.number = next(_numbers)
        self.size: int | None = None  # of its smallest pool; None: no limit
        self.road = Road() if kind == "queue" else None  # says whether queues are pools
        self.passed_on = False  # given back by someone who did not take it: a signal, not a pool

    @property
    def name(self) -> str:
        """As reports call it: ``SQLAlchemy pool of 5 made at app.py:7 in <module>``."""
        of = "" if self.size is None or self.kind in ("lock", MAP) else f" of {self.size}"
        at = f" made at {places.where(self.made)}" if self.made else ""
        return f"{self.label}{of}{at}"

    @property
    def holds(self) -> bool:
        """Whether to hold one of its elements keeps others from getting it."""
        return (
            not self.passed_on
            and (self.size is not None or self.kind == MAP)
            and (self.road is None or self.road.is_pool())
        )

    def __repr__(self) -> str:
        return f"<PoolClass {self.name!r}>"


@final
class Pool:
    """One pool: its size (None: no limit), and what is out."""

    __slots__ = (
        "__weakref__", "away", "cls", "here", "listed", "number", "of", "out", "size", "taking", "timed",
        "waiters", "within",
    )  # fmt: skip

    def __init__(self, cls: PoolClass, size: int | None) -> None:
        self.cls = cls
        self.size = size
        self.number = next(_numbers)
        self.out: list[Holding] = []
        self.of: weakref.ref[Any] | None = None  # the watched object
        self.away = 2  # frames from the ledger to the program, when it last took one,
        self.here: Place = (None, 0, None, 0)  # and where that was
        self.within: Pool | None = (
            None  # one that is taken together with it, in one event: they have no order
        )
        self.timed = False  # whether nobody waits there without a time limit
        self.listed = False  # whether the ledger knows it
        self.taking: list[None] = []  # one for each that is about to have one, or has to wait
        self.waiters: list[Wait] = []

    def crowded(self) -> bool:
        """Enter as one who is taking; True if there may be none left, and the taker has to wait.

        Whoever enters leaves by ``taking.pop()``.
        """
        self.taking.append(None)
        return self.size is not None and len(self.out) + len(self.taking) > self.size

    def resized(self, size: int | None) -> None:
        self.size = size
        if size is not None:
            known = self.cls.size
            self.cls.size = size if known is None else min(size, known)

    def __repr__(self) -> str:
        return f"<Pool {self.cls.name!r}: {len(self.out)} out, {len(self.waiters)} waiting>"


@final
class Holding(tuple[Any, ...]):
    """One element that is out: (pool, owner, place, since_s, element). A tuple, for its price."""

    __slots__ = ()
    pool: Pool = property(itemgetter(0))  # type: ignore[assignment]
    owner: Owner = property(itemgetter(1))  # type: ignore[assignment]
    place: Place = property(itemgetter(2))  # type: ignore[assignment]
    since_s: float = property(itemgetter(3))  # type: ignore[assignment]
    element: Any = property(itemgetter(4))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@final
class Wait:
    """Somebody waits, now: for an element of a pool, for a piece of work, or for an event."""

    __slots__ = (
        "broken", "cancelled", "ended_s", "owner", "place", "pool", "since_s", "target", "timeout_s", "wake", "what",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        pool: Pool | None,
        what: str,
        place: Place,
        since_s: float,
        timeout_s: float | None,
        target: Any = None,
    ) -> None:
        self.owner = owner
        self.pool = pool
        self.what = what
        self.place = place
        self.since_s = since_s
        self.timeout_s = timeout_s
        self.target = target  # says who could end it: a function that gives owners
        self.wake: Callable[[], object] | None = (
            None  # ends it, where that can be done from outside
        )
        self.broken: Deadlock | None = None  # what the waiter gets then
        self.ended_s = 0.0  # when it was told to end
        self.cancelled = False  # the way in which a task gets it

    def carry(self, wake: Callable[[], object]) -> None:
        """From now on `wake` ends it; an earlier try to end it came too late."""
        self.broken = None
        self.wake = wake


@final
class Owner:
    """Who acts: a task, a thread, or one item of work.

    `wants` is what it has waited for or might have, with how many units of the same pool it held then;
    whoever waits for this owner waited for that too.
    """

    __slots__ = (
        "__weakref__",
        "_alive",
        "done",
        "edges",
        "held",
        "inherits",
        "key",
        "name",
        "origin",
        "parent",
        "place",
        "simple",
        "since",
        "starter",
        "task",
        "thread",
        "wait",
        "wants",
    )  # fmt: skip

    def __init__(
        self,
        key: Any,
        name: str,
        alive: Callable[[], bool],
        parent: Owner | None = None,
        task: weakref.ref[Any] | None = None,
    ) -> None:
        self.key = key
        self.name = name
        self._alive = alive
        self.parent = parent
        self.task = task
        self.thread = 0  # in which the task was first seen
        self.inherits = False  # the parent waits for it for certain
        self.done = False
        self.starter = parent  # whoever made it act, if he may still act himself,
        self.since = 0  # and after how many starts in all
        self.origin = self  # whoever started the chain of work this belongs to
        self.held: list[Holding] = []
        self.wants: dict[Pool, int] = {}
        self.simple: set[Pool] = set()  # of which it took while it held nothing: nothing new there
        self.edges: dict[Any, int] = {}
        self.wait: Wait | None = None
        self.place: Place = ()  # of its latest request

    def alive(self) -> bool:
        return not self.done and self._alive()

    def started(self, starter: Owner | None, since: int) -> None:
        """By whom, and as the how many-th start of all; of those before him only who lives is kept."""
        self.starter, self.since = starter, since
        self._forget_the_dead()
        if self.starter is not None:
            self.starter._forget_the_dead()

    def _forget_the_dead(self) -> None:
        while (dead := self.starter) is not None and not dead.alive():
            self.starter, self.since = dead.starter, dead.since

    def at_once(self, other: Owner, last: int) -> bool:
        """Whether `other`, after `last` starts in all, and we, now, are at once: neither is over when the other begins.

        What one did before he started the other was over; so is all that was done by who has ended.
        """
        if other is self or not other.alive():
            return False
        one = self
        while one.starter is not None:
            if one.starter is other:
                return last >= one.since
            one = one.starter
        return True

    def holds(self, pool: Pool) -> int:
        """How many elements of `pool` it has itself."""
        return sum(1 for holding in self.held if holding.pool is pool)

    def __repr__(self) -> str:
        return f"<Owner {self.name!r}: {len(self.held)} held>"


def remove(holdings: list[Any], item: Any) -> None:
    """Take an item out of a list, if it is there."""
    try:
        holdings.remove(item)
    except ValueError:
        pass  # two threads gave it back at once, or it was forgotten
