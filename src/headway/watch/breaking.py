"""Ending a hang: the youngest of those that are stuck gets an exception, so that its holdings come back.

It decides which wait ends: the youngest that watch carries itself (`patches.carried`); one at a time, and the next only
when that one has gone and the others are stuck all the same. A wait with a time limit of its own ends as the program
means it to, and is left alone until that has passed. Of what it does not end it says why.

Source: the victim of a database's deadlock detector; here the youngest, because it has done least.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

from headway.errors import Deadlock
from headway.watch import explain
from headway.watch.classes import Wait
from headway.watch.ledger import Ledger
from headway.watch.naming import tell_apart

_GRACE_S: Final = 1.0  # for the one that was told, before another is


def end_youngest(ledger: Ledger, quiet_s: float = 0.0) -> list[str]:
    """End one wait of a hang; what was done, or why nothing was, in words. Empty: nobody is stuck.

    `quiet_s` (seconds): only if none of the waits is younger.
    """
    stuck = explain.stuck(ledger, quiet_s)
    stuck.sort(key=lambda wait: -wait.since_s)
    tell_apart(wait.owner for wait in stuck)
    now = monotonic()
    if any(now - wait.ended_s < _GRACE_S for wait in stuck):
        return []  # it is on its way out
    names = tuple(wait.owner.name for wait in stuck)
    for wait in stuck:
        wake = wait.wake
        if wake is None or wait.broken is not None or _will_end(wait, now):
            continue
        wait.broken = Deadlock(
            f"headway watch ended this wait for {_what(wait)}: {len(stuck)} were stuck, and "
            f"{wait.owner.name} waited the shortest; give back what is held and try again",
            stuck=names,
        )
        wait.ended_s = now
        try:
            wake()
        except RuntimeError:
            wait.broken = None  # it was served just now, or its loop is closed
            return []
        return [f"broken: {wait.owner.name} got Deadlock where it waited for {_what(wait)}"]
    return [f"not broken: {_why(ledger, wait, now)}" for wait in stuck]


def _will_end(wait: Wait, now: float) -> bool:
    """Whether the wait has a limit of its own, which is still to come."""
    return wait.timeout_s is not None and now - wait.since_s < wait.timeout_s + _GRACE_S


def _what(wait: Wait) -> str:
    return wait.what if wait.pool is None else wait.pool.cls.name


def _why(ledger: Ledger, wait: Wait, now: float) -> str:
    who = f"{wait.owner.name} waits for {_what(wait)}"
    if not ledger.breaks:
        return f"{who}, and no wait can be ended unless the program was started with --break"
    if _will_end(wait, now):
        return f"{who}, at most {wait.timeout_s:g} s: its own limit ends it"
    if wait.broken is not None:
        return f"{who}; it was told to end, and went on waiting"
    return f"{who}: the library waits in a way of its own, which watch does not carry"
