"""How far a search has come, told to whoever listens: a bar on a terminal, and the line that an interrupt leaves.

It decides nothing, and a search is the same whether anybody listens. In a worker process nobody does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

from headway.checker.raw import at_ease

EVERY = 1 << 12  # states from one telling to the next


@final
class Told:
    """What was told last: `done` of at most `size` things of a `stage`; and a `verdict`, once there is one."""

    def __init__(self, show: Callable[[str, int, int], None] | None) -> None:
        self.stage = ""
        self.done = 0
        self.verdict = ""
        self.show = show

    def text(self) -> str:
        """What is known so far, in one line; empty if nothing is."""
        if self.verdict:
            return f"{self.verdict} (its sizes were still being judged)"
        return f"{self.done} {self.stage} seen so far, and no verdict yet" if self.stage else ""


_listens: ContextVar[Told | None] = ContextVar("headway_told", default=None)


@contextmanager
def listening(show: Callable[[str, int, int], None] | None) -> Iterator[Told]:
    """What is told while the block runs; `show` is called with each (stage, done, size)."""
    told = Told(show)
    token = _listens.set(told)
    try:
        yield told
    finally:
        _listens.reset(token)


def tell(stage: str, done: int, size: int) -> None:
    """Say that `done` of at most `size` were seen."""
    if (told := _listens.get()) is not None:
        told.stage, told.done = stage, done
        if told.show is not None:
            at_ease(told.show, stage, done, size)


def tell_verdict(verdict: str) -> None:
    """Say what was found, before what takes longer is begun."""
    if (told := _listens.get()) is not None:
        told.verdict = verdict
