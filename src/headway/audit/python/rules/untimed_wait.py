"""A wait without an end while something is held that others wait for.

Decides by the pair: what is held, and what is waited for. A limiter in front of a pool is the right order
and is not a finding; a short lock inside a hold is none either. What is left waits for another party
(an item, a result, a thread, a second pool) that may itself need what is held. Under a lock that is a note,
unless the event is seen to be set, or the queue to be filled, with the same lock held: of 15 such places in packages
that were read, the other party was seen to need the lock in none.
"""

from __future__ import annotations

from collections.abc import Iterator

from headway.audit.finding import Evidence, Finding, Rule, Severity
from headway.audit.python.facts import Held, Pool, Use
from headway.audit.python.program import Program
from headway.audit.python.shapes import Kind
from headway.audit.python.wording import LOCKS, finding, held_at, label

RULE = Rule(
    "untimed-wait",
    "wait without a time-out while a lock or an element of a pool is held",
    ("holds-while-waiting",),
    "warning",
)
_PARTIES = frozenset({Kind.QUEUE, Kind.EXECUTOR, Kind.EVENT, Kind.THREAD})


def find(program: Program) -> Iterator[Finding]:
    """One finding for each such wait."""
    needed = _needed(program)
    for function, module in program.functions():
        for use in function.uses:
            pool = program.pools.get(use.place)
            if pool is None or not use.waits or use.timed or not use.held:
                continue
            for held in reversed(program.held(use.held)):
                outer = program.pools.get(held.place)
                severity = _severity(outer, pool, use, held) if outer is not None else None
                if outer is None or severity is None:
                    continue
                if (use.place, held.place) in needed:
                    severity = "warning"
                yield finding(
                    RULE, module, function, use.line, use.text, "holds-while-waiting",
                    f"{use.text} waits without a time-out while {label(outer)} is held: "
                    "if whoever would end the wait needs it too, neither goes on",
                    f"end the hold of {label(outer)} first, or give the wait a time-out",
                    [held_at(held, outer), Evidence(use.line, f"waits in {use.text}")], severity,
                )  # fmt: skip
                break


def _needed(program: Program) -> set[tuple[str, str]]:
    """(what is waited for, what is held where that is ended): whoever ends the wait needs the hold."""
    return {
        (place, held.place)
        for function, _ in program.functions()
        for place, holds in function.ends
        for held in program.held(holds)
    }


def _severity(outer: Pool, inner: Pool, use: Use, held: Held) -> Severity | None:
    if held.place == use.place or outer.shape.awaits is not inner.shape.awaits:
        return None
    if outer.place[0] == "l" and outer.kind is Kind.LOCK:
        return None  # a lock of one call is a signal
    if inner.kind in _PARTIES and not use.takes:
        if outer.kind in LOCKS:
            return "note"  # `stop()` joins its thread under its own lock, and mostly rightly
        if outer.kind is Kind.POOL:
            return "warning"
        return None  # a limiter is made to be held while its work waits
    if inner.shape.name.startswith("headway."):
        return (
            None  # such a wait ends if the holders give back, and the checker says whether they do
        )
    if inner.kind is Kind.POOL and outer.kind is Kind.POOL:
        return "warning"
    if inner.kind in (Kind.POOL, Kind.SEMAPHORE) and outer.kind in LOCKS:
        return "note"
    return None
