"""What reclaim does with a page that it finds under writeback: three cases, as a table.

It carries out none of them. The background counts, everybody marks the page and goes on, and who has met it
before waits, if his request allows it and nobody else slows down those who dirty. Whose requests allow it is
the rule that E-002 is about.

Source: Linux ``mm/vmscan.c``, ``shrink_folio_list``, its comment on three cases (3.6, 4.2, 6.12).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

from headway.core.mm.gfp import Gfp


class Case(Enum):
    """What reclaim does with a page that it finds under writeback."""

    IMMEDIATE = "counts it; the background stalls once, later"
    LATER = "marks it to be reclaimed as soon as it is written, and goes on"
    WAIT = "waits for it"


class Rule(Enum):
    """Whose requests may wait."""

    IO = "those that may do I/O"  # Linux 3.6 to 4.1
    FS = "those that may enter the file system"  # since 4.2
    NOBODY = "none"


@final
@dataclass(frozen=True, slots=True)
class Met:
    """A page under writeback, as reclaim meets it."""

    before: bool = False  # reclaim has met it already
    swap: bool = False  # it is of the swap cache, not of a file
    swap_by_fs: bool = False  # and its swap device is a file
    may_deadlock: bool = False  # its mapping says that waiting for it may never end (since 6.16)


def case_of(
    page: Met, gfp: Gfp, *, group: int | None = 1, kswapd: bool = False, many: bool = False,
    rule: Rule = Rule.FS,
) -> Case:  # fmt: skip
    """`group`: None for reclaim of the whole machine, else the version of the group's interface.

    Version 2 throttles those who dirty, and so does the machine: there nobody has to wait here.
    """
    if kswapd and page.before and many:
        return Case.IMMEDIATE
    enters_fs = bool(gfp & Gfp.FS or (page.swap and gfp & Gfp.IO and not page.swap_by_fs))
    may_wait = {Rule.IO: bool(gfp & Gfp.IO), Rule.FS: enters_fs, Rule.NOBODY: False}[rule]
    if group != 1 or not page.before or not may_wait or page.may_deadlock:
        return Case.LATER
    return Case.WAIT
