"""Three cases for a page under writeback: each cell of the table."""

from __future__ import annotations

from itertools import product

import pytest

from headway.core.mm.gfp import Gfp
from headway.incidents.under_writeback import Case, Met, Rule, case_of

KSWAPD_CASES = [
    # kswapd, flagged, many: the first case of all, whatever the mask
    (True, True, True, Case.IMMEDIATE),
    (True, True, False, Case.LATER),
    (True, False, True, Case.LATER),
    (False, True, True, Case.LATER),
]


@pytest.mark.parametrize(("kswapd", "flagged", "many", "case"), KSWAPD_CASES)
def test_t83_the_background_counts_and_goes_on(
    kswapd: bool, flagged: bool, many: bool, case: Case
) -> None:
    page = Met(before=flagged)
    assert case_of(page, Gfp.KERNEL, group=None, kswapd=kswapd, many=many) is case


WAITS = [  # mask, of the swap cache, through a file: may it wait under the rule of 3.6, and of 4.2
    (Gfp.KERNEL, False, False, True, True),
    (Gfp.KERNEL, True, True, True, True),
    (Gfp.NOFS, False, False, True, False),
    (Gfp.NOFS, True, False, True, True),
    (Gfp.NOFS, True, True, True, False),
    (Gfp.NOIO, False, False, False, False),
    (Gfp.NOIO, True, False, False, False),
    (Gfp.NOIO, True, True, False, False),
]


@pytest.mark.parametrize(("gfp", "swap", "by_fs", "with_io", "with_fs"), WAITS)
def test_t83_who_waits_for_a_page(
    gfp: Gfp, swap: bool, by_fs: bool, with_io: bool, with_fs: bool
) -> None:
    """Only in a group of version 1, at the second encounter, where the mapping allows it."""
    rules = {Rule.IO: with_io, Rule.FS: with_fs, Rule.NOBODY: False}
    for rule, may_wait in rules.items():
        for group, flagged, deadlocks in product((None, 1, 2), (False, True), (False, True)):
            page = Met(before=flagged, swap=swap, swap_by_fs=by_fs, may_deadlock=deadlocks)
            waits = may_wait and group == 1 and flagged and not deadlocks
            assert case_of(page, gfp, group=group, rule=rule) is (
                Case.WAIT if waits else Case.LATER
            )
