"""What a library's pool looks like from outside: which calls take, wait, lease and give back.

Decides what a *shape* can say. Which libraries have which shape is `presets`; what a project adds by
configuration is `declared`. Reads no program.

A shape describes one constructor. Everything that may make its caller wait is of a *kind*; the rules
speak of kinds, never of libraries, so a new library is one row of a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What is waited for. The rules choose by this alone."""

    LOCK = "lock"  # one holder; taking it twice hangs
    REENTRANT = "reentrant lock"  # one holder, who may take it again
    SEMAPHORE = "semaphore"  # a count; also used to limit, or to signal
    LIMITER = "limiter"  # a count per borrower: taking twice raises
    POOL = "pool"  # elements that come back: connections, buffers, sessions
    QUEUE = "queue"  # elements that travel
    EXECUTOR = "executor"  # workers; its queue has no limit
    EVENT = "event"  # somebody else must set it
    THREAD = "thread"  # somebody else must end


@dataclass(frozen=True, slots=True)
class Shape:
    """One constructor of a library, by its dotted name."""

    name: str
    kind: Kind
    awaits: bool = (
        False  # it waits in `await` or `async with`, and parks a task instead of a thread
    )
    itself: bool = False  # `with obj:` holds an element
    leases: frozenset[str] = (
        frozenset()
    )  # methods whose result is a context manager; "()": calling it
    takes: frozenset[str] = frozenset()  # methods that wait, and return holding
    gives: frozenset[str] = frozenset()  # methods of the pool that give back
    returns: frozenset[str] = frozenset()  # methods of the element that give it back
    waits: frozenset[str] = frozenset()  # methods that wait and hold nothing afterwards
    timed: bool = False  # the library itself ends the wait after a while, and raises
    size: str = ""  # the argument that says how many there are
    size_at: int = -1  # its position, if it has one
    size_default: int | None = None  # how many without it; None: not known, or no limit
    over: tuple[
        str, ...
    ] = ()  # arguments that are the pool this one stands on (`sessionmaker(engine)`)
    entered: bool = False  # `with Name(pool)` holds an element of that pool
    unpooled: tuple[str, ...] = ()  # words in the constructor's arguments that mean: no pool at all
    types: tuple[str, ...] = field(default=())  # other dotted names of what the constructor returns


# Where a wait may be bounded, by method: (position of the "may I wait" flag, position of the time-out).
BOUNDS: dict[str, tuple[int, int]] = {
    "acquire": (0, 1),
    "get": (0, 1),
    "put": (1, 2),
    "wait": (-1, 0),
    "wait_for": (-1, 1),
    "join": (-1, 0),
    "result": (-1, 0),
    "exception": (-1, 0),
    "connection": (-1, 0),
    "getconn": (-1, 0),
    "alloc": (-1, 1),
    "lease": (-1, 1),
    "alloc_bulk": (-1, 1),
}
FLAGS = frozenset({"blocking", "block"})  # keywords: False means "do not wait"
TIMEOUTS = frozenset({"timeout", "timeout_s", "pool_timeout"})
