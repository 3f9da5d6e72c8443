"""Each observable of the kernel's memory (zones T3, slabs T4, reclaim and throttling T8) is a test of that name."""

from __future__ import annotations

import re

import pytest

from tests.house import tree

OBSERVABLES = {3: 6, 4: 5, 8: 9}  # section: how many it has
_NAME = re.compile(r"^def test_(?:\w*_)?t(\d)_?(\d+)_", re.MULTILINE)


def named() -> set[tuple[int, int]]:
    """Those that some test carries in its name: ``test_t3_1_...`` or ``test_t31_...``."""
    found = set()
    for path in (tree.ROOT / "tests").rglob("test_*.py"):
        for section, number in _NAME.findall(path.read_text(encoding="utf-8")):
            found.add((int(section), int(number)))
    return found


@pytest.mark.parametrize("section", OBSERVABLES)
def test_every_observable_has_its_test(section: int) -> None:
    missing = {(section, number + 1) for number in range(OBSERVABLES[section])} - named()
    said = ", ".join(f"T{one}.{number}" for one, number in sorted(missing))
    assert not missing, f"no test is named after {said}: write one, test_t{section}N_..."
