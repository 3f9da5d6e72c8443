"""What pools and budgets have in common: a gate, hooks, a record of holders, and how to ask for all that.

It does not know what is given out: `headway.core.mm.observed` adds elements to it, and
`headway.core.mm.meeting` counted units. Everything here is off until asked for, and what is on raises
a bit in the gate, so that what is off costs nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Protocol

from headway.core.mm import gfp as masks
from headway.core.mm.gfp import Gfp
from headway.core.mm.ownership import Event, Holding, Hook
from headway.core.plan import Guard, Runtime
from headway.errors import PoolClosed, UsageError

# The bits of the gate; zero means that nothing but the fast path is needed.
WAITERS: Final = 1
CLOSED: Final = 2
WATCHED: Final = 4
FAULTS: Final = 8
TRACED: Final = 16
LOCKED: Final = 32
POISON: Final = 64
WIDE: Final = 128  # a request is under way that the reserve alone could not serve
TREE: Final = 256  # whatever is taken here is taken above too
REFUSED: Final = 512  # a pool over this one was refused, and is to be told when something comes

_KERNEL: Final = Gfp.KERNEL


class Holdings(Protocol):
    """A record of who holds what."""

    def holdings(self) -> tuple[Holding, ...]: ...


class Watched:
    """Something named that gives out and takes back. `_gate` changes only under `_guard`."""

    __slots__ = (
        "__weakref__", "_gate", "_guard", "_hooks", "_record", "longest_wait_s", "name", "runtime",
        "timeouts", "waits",
    )  # fmt: skip

    what: ClassVar[str] = "pool"  # how messages call it
    _record: Any

    def __init__(self, runtime: Runtime, name: str, guard: Guard, *, trace: bool) -> None:
        self.runtime = runtime
        self.name = name
        self._guard: Guard = guard
        self._hooks: tuple[Hook, ...] = ()
        self._record = self._new_record(complete=True) if trace else None
        self._gate: int = (TRACED if trace else 0) | (LOCKED if runtime.locked else 0)
        self.waits = self.timeouts = 0
        self.longest_wait_s = 0.0

    def _new_record(self, *, complete: bool) -> Holdings:
        raise NotImplementedError

    def _settle(self) -> None:
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        return bool(self._gate & CLOSED)

    def closed_error(self) -> PoolClosed:
        return PoolClosed(f"{self.what} {self.name!r} is closed: nothing can be allocated from it")

    def check_ask(self, gfp: Gfp, timeout_s: float | None) -> None:
        """Raises: UsageError if the mask or the time limit cannot be meant; what is odd is reported."""
        if gfp is not _KERNEL:
            for oddity in masks.check_for_pool(gfp):
                self.runtime.report(f"{self.what} {self.name!r}: {oddity}", once=True)
        if timeout_s is not None:
            if timeout_s < 0:
                raise UsageError(
                    f"{self.what} {self.name!r}: timeout_s is {timeout_s}; it must be 0 or more, or None"
                )
            if gfp & Gfp.NOFAIL:
                raise UsageError(
                    f"{self.what} {self.name!r}: NOFAIL with timeout_s={timeout_s}: "
                    "what may not fail has no limit"
                )

    def waited(self, start_s: float) -> None:
        """Count a wait that has ended, however it did."""
        self.waits += 1
        self.longest_wait_s = max(self.longest_wait_s, self.runtime.now() - start_s)

    # -- hooks -----------------------------------------------------------------------------------------

    def watch(self, hook: Hook) -> None:
        """Call `hook(event)` at each request and release (before it) and each grant (after it)."""
        with self._guard:
            self._hooks += (hook,)
            self._gate |= WATCHED
        self._settle()

    def unwatch(self, hook: Hook) -> None:
        """Stop calling `hook`."""
        with self._guard:
            self._hooks = tuple(other for other in self._hooks if other is not hook)
            if not self._hooks:
                self._gate &= ~WATCHED
        self._settle()

    def tell(
        self,
        kind: str,
        count: int = 1,
        *,
        element: Any = None,
        to: str | None = None,
        owner: str | None = None,
        mask: int = 0,
        gives_up: str = "",
        part: int = 0,
    ) -> None:
        """Tell the hooks, if there are any; never under the guard."""
        if self._gate & WATCHED:
            who = owner or self.runtime.owner()
            event = Event(kind, self, who, count, element, to, mask, gives_up, part)
            for hook in self._hooks:
                hook(event)

    # -- the record of holders -------------------------------------------------------------------------

    def trace(self, on: bool = True) -> None:
        """Record from now on who holds what, since when, taken where; or stop."""
        with self._guard:
            self._record = self._new_record(complete=False) if on else None
            self._gate = self._gate | TRACED if on else self._gate & ~TRACED
        self._settle()

    def holders(self) -> tuple[Holding, ...]:
        """Who holds what is out, oldest first; empty unless traced."""
        record: Holdings | None = self._record
        return () if record is None else record.holdings()

    def overdue(self, limit_s: float) -> tuple[Holding, ...]:
        """Holdings older than `limit_s` seconds: who breaks the rule of timely return (R2).

        Raises: UsageError if it is not traced.
        """
        if self._record is None:
            raise UsageError(f"{self.what} {self.name!r}: {self._trace_hint()}")
        now_s = self.runtime.now()
        return tuple(holding for holding in self.holders() if now_s - holding.since_s > limit_s)

    def say_holders(self) -> str:
        """For messages: who holds what, or how to find out."""
        if self._record is None:
            return self._trace_hint()
        now_s = self.runtime.now()
        return (
            "; ".join(holding.describe(now_s) for holding in self.holders())
            or "nobody on record holds any"
        )

    def _trace_hint(self) -> str:
        return f"who holds them is not traced: make the {self.what} with trace=True or set HEADWAY_TRACE=1"
