"""The order in which a pool tries to get an element, and whom a returned element wakes: as data.

It does not try anything: `headway.core.mm.mempool` climbs the steps. The mail of 2001 lists five
levels (light try, reserve if at least half full, heavy try, reserve, FIFO wait); the code of that
year tested "more than half"; today's kernel looks into the reserve before any heavy try.

Source: I. Molnar, "mempool-2.5.1" (2001); Linux ``mm/mempool.c`` 2.5.1 and 6.12.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Step(Enum):
    """One attempt; the wait comes after the last."""

    LIGHT = "light try: no wait, no I/O"
    RESERVE_IF_HALF = "reserve, if at least half full"
    RESERVE_IF_MORE_THAN_HALF = "reserve, if more than half full"
    HEAVY = "heavy try: whatever the mask allows"
    RESERVE = "reserve, if not empty"

    def threshold(self, minimum: int) -> int:
        """How many elements the reserve must hold for this step to take from it."""
        if self is RESERVE_IF_HALF:
            return (minimum + 1) // 2
        if self is RESERVE_IF_MORE_THAN_HALF:
            return minimum // 2 + 1
        return 1


# The members as plain names: on 3.11 looking one up in its class costs a third of a microsecond.
LIGHT: Final = Step.LIGHT
HEAVY: Final = Step.HEAVY
RESERVE_IF_HALF: Final = Step.RESERVE_IF_HALF
RESERVE_IF_MORE_THAN_HALF: Final = Step.RESERVE_IF_MORE_THAN_HALF


class Ladder(Enum):
    """Which steps, in which order; `again` is climbed after a wake-up that brought no element."""

    HALF_FULL = "the mail of 2001"
    LINUX_2_5 = "the code of 2001"
    RESERVE_FIRST = "Linux today"

    @property
    def first(self) -> tuple[Step, ...]:
        return _FIRST[self]

    @property
    def again(self) -> tuple[Step, ...]:
        return (Step.HEAVY, Step.RESERVE) if self is Ladder.RESERVE_FIRST else _FIRST[self]


class Wake(Enum):
    """Who gets a returned element.

    FIFO hands it to the head of the queue, and newcomers queue behind. ANY_FIT hands it to the first
    waiter whose request fits. EXCLUSIVE wakes the head and WAKE_ALL everybody, to race for it with
    newcomers, and both look again after five seconds: history, kept for comparison.
    """

    FIFO = "fifo"
    ANY_FIT = "any_fit"
    EXCLUSIVE = "exclusive"
    WAKE_ALL = "wake_all"

    def __init__(self, word: str) -> None:
        self.hands_over = word in ("fifo", "any_fit")


FIFO: Final = Wake.FIFO
ANY_FIT: Final = Wake.ANY_FIT
EXCLUSIVE: Final = Wake.EXCLUSIVE


RETRY_S = 5.0  # the timed retry of EXCLUSIVE and WAKE_ALL; Linux has had it since 2.6.18

_FIRST = {
    Ladder.HALF_FULL: (Step.LIGHT, Step.RESERVE_IF_HALF, Step.HEAVY, Step.RESERVE),
    Ladder.LINUX_2_5: (Step.LIGHT, Step.RESERVE_IF_MORE_THAN_HALF, Step.HEAVY, Step.RESERVE),
    Ladder.RESERVE_FIRST: (Step.LIGHT, Step.RESERVE, Step.HEAVY, Step.RESERVE),
}
