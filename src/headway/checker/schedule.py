"""A schedule: the choices of one run, and their text, so that a run can be repeated anywhere.

It does not run anything. A choice is written as the number of the task (from 1, in order of start)
and a mark: none for its next step, ``x`` for its cancellation, ``t`` for the end of its patience, ``+``
and ``!`` for an allocator that works or fails in the step before. Choices are joined by dots, repeats are counted:
``1*3.2.1!`` is three steps of task 1, one of task 2, and a failure in task 1.

Source: dejafu's one-line traces; shuttle's encoded schedules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeAlias

from headway.errors import UsageError
from headway.runtimes.simulator import Kind, Option

Schedule: TypeAlias = tuple[Option, ...]

_CHOICE = re.compile(r"(\d+)([xt+!]?)(?:\*(\d+))?")
_LONGEST = 1_000_000


def render(schedule: Sequence[Option]) -> str:
    """The text of a schedule; ``-`` for the empty one."""
    parts = []
    for option, group in groupby(schedule):
        count = len(list(group))
        parts.append(f"{option}*{count}" if count > 1 else str(option))
    return ".".join(parts) or "-"


def parse(text: str) -> Schedule:
    """The schedule a text stands for.

    Raises: UsageError if the text is not a schedule.
    """
    text = text.strip()
    if text == "-":
        return ()
    schedule: list[Option] = []
    for part in text.split("."):
        match = _CHOICE.fullmatch(part)
        if match is None:
            raise UsageError(f"schedule: {part!r} is not a choice; write them as in 1*3.2.1!")
        number, mark, count = match.groups()
        repeats = int(count or 1)
        if not 1 <= int(number) or not 1 <= repeats <= _LONGEST - len(schedule):
            raise UsageError(
                f"schedule: {part!r} is out of range; tasks and counts start at 1, "
                f"a schedule has at most {_LONGEST} choices"
            )
        schedule += [Option(int(number), Kind(mark))] * repeats
    return tuple(schedule)


def seeded(seed: int | None) -> Callable[[Sequence[Option]], int]:
    """An oracle by chance: one seed is one run; None differs each time."""
    chance = random.Random(seed)
    return lambda options: chance.randrange(len(options))
