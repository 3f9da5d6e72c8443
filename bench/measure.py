"""How a time is taken here, and what a measured row looks like.

It measures nothing by itself; the subjects do. The idea: one process, the cases of one comparison in
turn, round after round, so that a disturbance hits all of them alike; a ratio is the median of the
ratios within each round, never a ratio of two medians; the cost of the bare loop is taken off both
sides; the garbage collector rests while the clock runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, final

Loop = Callable[[int], object]  # runs the operation so many times


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One case: what was measured, beside at most one peer.

    `goal` bounds `ratio` if there is one, else `value`; `better` says from which side. `low` and `high` are
    the extremes over the rounds: of the ratio if there is one, else of the value.
    """

    case: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None
    goal: float | None = None
    better: Literal["higher", "lower"] = "lower"
    note: str = ""  # what the number does not show
    low: float | None = None
    high: float | None = None
    subject: str = ""

    @classmethod
    def of(cls, row: Row | Mapping[str, Any], subject: str) -> Row:
        """A row of `subject`, from one that a subject made or from a mapping of its fields."""
        fields = asdict(row) if isinstance(row, Row) else dict(row)
        return cls(**(fields | {"subject": subject}))

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None if there is none."""
        if self.goal is None:
            return None
        measured = self.value if self.ratio is None else self.ratio
        return measured >= self.goal if self.better == "higher" else measured <= self.goal


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without the garbage collector, which is emptied first."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def bare(count: int) -> None:
    """The loop that every case runs, around nothing."""
    for _ in range(count):
        pass


def pairs_ns(cases: Mapping[str, Loop], *, rounds: int, round_s: float) -> dict[str, list[float]]:
    """Nanoseconds of one operation of each case, one number a round, without the cost of the loop.

    The number of operations is chosen for each case, so that it takes about `round_s` seconds a round.
    """
    counts = {name: _count_for(loop, round_s) for name, loop in cases.items()}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    with undisturbed():
        empty_ns = min(_once_ns(bare, 10_000) for _ in range(20))  # the undisturbed one
        for _ in range(rounds):
            for name, loop in cases.items():
                taken[name].append(_once_ns(loop, counts[name]) - empty_ns)
    return taken


def _once_ns(loop: Loop, count: int) -> float:
    began = time.perf_counter_ns()
    loop(count)
    return (time.perf_counter_ns() - began) / count


def _count_for(loop: Loop, round_s: float) -> int:
    loop(100)  # specialised by the interpreter before it is judged
    return max(50, int(round_s * 1e9 / _once_ns(loop, 500)))


def in_turn(cases: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, list[float]]:
    """One number of each case a round, the cases in turn; the order alternates from round to round."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        names = list(cases) if number % 2 == 0 else list(cases)[::-1]
        for name in names:
            with undisturbed():
                taken[name].append(cases[name]())
    return taken


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def compared(
    case: str,
    ours: Sequence[float],
    unit: str,
    peer: str,
    theirs: Sequence[float],
    *,
    goal: float | None = None,
    better: Literal["higher", "lower"] = "lower",
    note: str = "",
) -> Row:
    """A row beside a peer that was measured in the same rounds."""
    paired = ratios(ours, theirs)
    return Row(
        case, median(ours), unit, peer, median(paired), goal, better, note, min(paired), max(paired)
    )


def alone(
    case: str,
    values: Sequence[float],
    unit: str,
    *,
    goal: float | None = None,
    better: Literal["higher", "lower"] = "lower",
    note: str = "",
) -> Row:
    """A row that has no peer."""
    return Row(
        case,
        median(values),
        unit,
        goal=goal,
        better=better,
        note=note,
        low=min(values),
        high=max(values),
    )
